"""PR-DARTS: Theory-Inspired Path-Regularized Differentiable NAS (Zhou, Xiong, Socher, Hoi, NeurIPS 2020)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from prdarts_jax import gates, genotypes, regularizers
from prdarts_jax.methods.base import Arch
from prdarts_jax.methods.darts import normal_logits
from prdarts_jax.spaces import CELL_TYPES, SearchSpace, darts

FORMS = ("paper", "released")


@dataclasses.dataclass(frozen=True)
class PRDarts:
    """Independent hard-concrete gates, group-structured sparsity and a reward for depth.

    Two ops of every edge run in a forward pass. `paper`: two drawn uniformly, weighted by their gates. `released`, as
    in the authors' code: the two with the largest gates after some were dropped at random, of weight exactly 1, with
    the gradient of the gates (straight-through); the regularisers look only at the ops chosen in the draw.

    Attributes:
      form: 'paper' or 'released'.
      space: the search space, which says which ops are skips and which edges form the path.
      lambda_skip: lambda1, weight of L_skip.
      lambda_nonskip: lambda2, weight of L_nonskip (and, `released`, of the pools).
      lambda_path: lambda3, weight of L_path.
      start_temperature: tau at the start; it falls linearly. The paper has 10, the released code 1.
      end_temperature: tau at the end.
      distinct_inputs: derive at most one op per edge, as all published cells have it.
      drop: `released`: probability that a gate is pushed out of the running.
      threshold: `released`: a group's sparsity counts only above it.
    """

    form: Literal["paper", "released"] = "paper"
    space: SearchSpace = darts()
    lambda_skip: float = 0.01
    lambda_nonskip: float = 0.005
    lambda_path: float = 0.005
    start_temperature: float = 10.0
    end_temperature: float = 0.1
    distinct_inputs: bool = False
    drop: float = 0.4
    threshold: float = 0.2
    weights_first: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r} must be one of {', '.join(FORMS)}")

    def temperature(self, progress: jax.Array) -> jax.Array:
        """tau, linear in the progress: it falls a little with every step, in the originals with every epoch."""
        return self.start_temperature + (self.end_temperature - self.start_temperature) * progress

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """0.5 everywhere in the paper, 1e-3 N(0, 1) in the released code."""
        if self.form == "released":
            return normal_logits(key, logits)
        return {cell_type: jnp.full_like(beta, 0.5) for cell_type, beta in logits.items()}

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """One draw of the gates; all but two ops of every edge get the weight 0."""
        keys = jax.random.split(key, len(CELL_TYPES))
        return {t: self._draw(k, logits[t], self.temperature(progress)) for k, t in zip(keys, CELL_TYPES, strict=True)}

    def _draw(self, key, beta, temperature):
        key_gates, key_choice = jax.random.split(key)
        drawn = gates.hard_concrete(key_gates, beta, temperature)
        if self.form == "paper":
            return jnp.where(gates.choose_random(key_choice, beta.shape), drawn, 0.0)
        return gates.straight_through(gates.choose_largest(key_choice, drawn, self.drop), drawn)

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Equation 9: L_val + lambda1 L_skip + lambda2 L_nonskip - lambda3 L_path, each averaged over the cell
        types."""
        probability = self.activation(logits, progress)
        terms = self._paper_terms if self.form == "paper" else self._released_terms
        found = [terms(probability[t], op_weights[t]) for t in CELL_TYPES]
        metrics = {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}
        sparsity = {"l_skip": self.lambda_skip, "l_nonskip": self.lambda_nonskip, "l_pool": self.lambda_nonskip}
        floor = 0.0 if self.form == "paper" else self.threshold
        penalty = sum(
            weight * jnp.maximum(metrics[name] - floor, 0.0) for name, weight in sparsity.items() if name in metrics
        )
        total = val_loss + penalty - self.lambda_path * metrics["l_path"]
        return total, metrics | {"temperature": self.temperature(progress)}

    def _paper_terms(self, probability, op_weights):
        return {
            "l_skip": regularizers.skip_sparsity(self.space, probability),
            "l_nonskip": regularizers.nonskip_sparsity(self.space, probability),
            "l_path": regularizers.path_depth(self.space, probability),
        }

    def _released_terms(self, probability, op_weights):
        chosen = op_weights != 0

        def sparsity(*groups):
            return regularizers.chosen_sparsity(self.space, probability, chosen, *groups)

        return {
            "l_skip": sparsity("skip"),
            "l_nonskip": sparsity("none", "conv"),
            "l_pool": sparsity("pool"),
            "l_path": regularizers.chosen_path_depth(self.space, probability, chosen),
        }

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """P(g != 0), Theorem 3."""
        tau = self.temperature(progress)
        return {t: gates.activation_probability(beta, tau) for t, beta in logits.items()}

    def derive(self, space: SearchSpace, logits: Arch) -> genotypes.Genotype:
        """Per node the two ops other than none with the largest P(g != 0) (equivalently the largest logit).

        `released` ranks the softmax of the logits of each edge instead.
        """
        scores = gates.softmax(logits) if self.form == "released" else logits
        return genotypes.derive(space, scores, distinct_inputs=self.distinct_inputs)
