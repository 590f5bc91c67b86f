"""PR-DARTS: Theory-Inspired Path-Regularized Differentiable NAS (Zhou, Xiong, Socher, Hoi, NeurIPS 2020)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from prdarts_jax.search import gates, regularizers
from prdarts_jax.search.methods.base import Arch, Method, keys
from prdarts_jax.spaces import SearchSpace, darts, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype

FORMS = ("paper", "released")
PARTS = ("both", "gates", "path")


@dataclasses.dataclass(frozen=True)
class PRDarts(Method):
    """Independent hard-concrete gates, group-structured sparsity and a reward for depth.

    Two ops of every edge run in a forward pass. `paper`: two drawn uniformly, weighted by their gates. `released`, as
    in the authors' code: the two with the largest gates after some were dropped at random, of weight exactly 1, with
    the gradient of the gates (straight-through); the regularisers look only at the ops chosen in the draw.

    Attributes:
      form: 'paper' or 'released'.
      parts: 'both'; or of the two ideas one alone, as in the paper's ablation (Fig. 1): 'gates' has no L_path; 'path'
        has DARTS's softmax over all ops in place of gates, and no sparsity.
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
    parts: Literal["both", "gates", "path"] = "both"
    space: SearchSpace = darts()
    lambda_skip: float = 0.01
    lambda_nonskip: float = 0.005
    lambda_path: float = 0.005
    start_temperature: float = 10.0
    end_temperature: float = 0.1
    distinct_inputs: bool = False
    drop: float = 0.4
    threshold: float = 0.2

    def __post_init__(self) -> None:
        for name, value, allowed in (("form", self.form, FORMS), ("parts", self.parts, PARTS)):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")

    @property
    def weights_first(self) -> bool:
        """Yes."""
        return True

    @property
    def _gated(self) -> bool:
        return self.parts != "path"

    def temperature(self, progress: jax.Array) -> jax.Array:
        """tau, linear in the progress: it falls a little with every step, in the originals with every epoch."""
        return self.start_temperature + (self.end_temperature - self.start_temperature) * progress

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """0.5 everywhere in the paper, 1e-3 N(0, 1) in the released code."""
        if self.form == "released":
            return super().init(key, logits)
        return {cell_type: jnp.full_like(beta, 0.5) for cell_type, beta in logits.items()}

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """One draw of the gates; all but two ops of every edge get the weight 0."""
        if not self._gated:
            return gates.softmax(logits)
        tau = self.temperature(progress)
        return {t: self._draw(k, logits[t], tau) for t, k in keys(key, logits).items()}

    def _draw(self, key, beta, temperature):
        key_gates, key_choice = jax.random.split(key)
        drawn = gates.hard_concrete(key_gates, beta, temperature)
        candidates = jnp.isfinite(beta)
        if self.form == "paper":
            return jnp.where(gates.choose_random(key_choice, candidates), drawn, 0.0)
        return gates.straight_through(gates.choose_largest(key_choice, drawn, candidates, self.drop), drawn)

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Equation 9: L_val + lambda1 L_skip + lambda2 L_nonskip - lambda3 L_path, each averaged over the cell
        types."""
        probability = self.activation(logits, progress)
        terms = self._released_terms if self.form == "released" and self._gated else self._paper_terms
        found = [terms(probability[t], op_weights[t], jnp.isfinite(beta)) for t, beta in logits.items()]
        metrics = {name: sum(values[name] for values in found) / len(found) for name in found[0]}
        sparsity = {"l_skip": self.lambda_skip, "l_nonskip": self.lambda_nonskip, "l_pool": self.lambda_nonskip}
        floor = 0.0 if self.form == "paper" else self.threshold
        total, metrics = val_loss, metrics | {"temperature": self.temperature(progress)}
        if self.parts != "path":
            total += sum(
                weight * jnp.maximum(metrics[name] - floor, 0.0) for name, weight in sparsity.items() if name in metrics
            )
        if self.parts != "gates":
            total -= self.lambda_path * metrics["l_path"]
        return total, metrics

    def _paper_terms(self, probability, op_weights, candidates):
        return {
            "l_skip": regularizers.skip_sparsity(self.space, probability, candidates),
            "l_nonskip": regularizers.nonskip_sparsity(self.space, probability, candidates),
            "l_path": regularizers.path_depth(self.space, probability),
        }

    def _released_terms(self, probability, op_weights, candidates):
        chosen = op_weights != 0

        def sparsity(*groups):
            return regularizers.chosen_sparsity(self.space, probability, chosen, *groups)

        return {
            "l_skip": sparsity("skip"),
            "l_nonskip": sparsity("none", "noise", "conv"),
            "l_pool": sparsity("pool"),
            "l_path": regularizers.chosen_path_depth(self.space, probability, chosen),
        }

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """P(g != 0), Theorem 3; without gates the softmax."""
        if not self._gated:
            return gates.softmax(logits)
        tau = self.temperature(progress)
        return {t: gates.activation_probability(beta, tau) for t, beta in logits.items()}

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """Per node the two ops other than none with the largest P(g != 0) (equivalently the largest logit).

        `released` ranks the softmax of the logits of each edge instead, as does `path`.
        """
        scores = gates.log_softmax(logits) if self.form == "released" or not self._gated else logits
        return discretizations.strongest(self.distinct_inputs)(space, scores)
