"""Relaxations: from logits to the op weights of a forward pass.

A relaxation is a frozen, hashable dataclass. Logits, op weights and probabilities are {cell type: f32[edges, ops]}; a
relaxation may keep further arrays beside the logits, which the optimizer of the logits then trains too. An op whose
logit is -inf is no candidate: its weight is 0. `progress` is the fraction of the search done, f32[] in [0, 1].
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from prdarts_jax.search import gates
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import SearchSpace

Arch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def keys(key: jax.Array, logits: Arch) -> dict[str, jax.Array]:
    """A separate key for each entry of the logits; consumes `key`."""
    return dict(zip(sorted(logits), jax.random.split(key, len(logits)), strict=True))


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """The base of all relaxations: logits start at `initial` + `noise` N(0, 1), and ops are ranked by their logits.

    A subclass defines `activation`. It also defines `weigh` if the activation is not the weight with which ops run, and
    `scores` if the ops of different edges should not be compared by their logits.
    """

    initial: float = 0.0
    noise: float = 1e-3

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """The initial logits, with the shapes and dtypes of `logits`, whose values do not matter: `init_search` sets
        the logits of ops that are no candidates to -inf afterwards."""
        return {
            t: self.initial + self.noise * jax.random.normal(k, logits[t].shape, logits[t].dtype)
            for t, k in keys(key, logits).items()
        }

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass, by default the activation; an op of weight 0 is not executed."""
        return self.activation(space, logits, progress)

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The probability or strength with which each op takes part, in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define activation, how strongly each op takes part")

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The scores by which a discretization ranks the ops of a node: here the logits."""
        return logits

    def metrics(self, progress: jax.Array) -> Metrics:
        """Scalars to report at each step; here there are none."""
        return {}


@dataclasses.dataclass(frozen=True)
class Softmax(Relaxation):
    """The softmax over the ops of each edge (DARTS; Liu et al., 2019, equation 2). Every op runs.

    >>> import jax, jax.numpy as jnp
    >>> from prdarts_jax import spaces
    >>> logits = {"normal": jnp.zeros((14, 8)), "reduce": jnp.zeros((14, 8))}
    >>> weights = Softmax().weigh(spaces.darts(), logits, jax.random.key(0), jnp.float32(0))
    >>> float(weights["normal"][0, 0])
    0.125
    """

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The softmax."""
        return {t: jax.nn.softmax(logits[t]) for t in space.cell_types}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The logarithm of the softmax."""
        return {t: jax.nn.log_softmax(logits[t]) for t in space.cell_types}


@dataclasses.dataclass(frozen=True)
class EdgeSoftmax(Softmax):
    """The softmax over the ops of an edge, times a softmax over the edges into its node (PC-DARTS; Xu et al., 2020,
    equation 3).

    Beside the logits of its ops each cell type has logits of its edges, `normal_edges` and `reduce_edges` f32[edges].
    """

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """The logits of ops and of edges, drawn alike."""
        return super().init(space, key, logits | {f"{t}_edges": beta[:, 0] for t, beta in logits.items()})

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """The product of both softmaxes."""
        targets = jnp.array([target for _, target in space.edges])
        same_node = targets[:, None] == targets[None, :]

        def edge_weights(beta):
            return jnp.diagonal(jax.nn.softmax(jnp.where(same_node, beta[None, :], -jnp.inf), axis=1))

        return {t: jax.nn.softmax(logits[t]) * edge_weights(logits[f"{t}_edges"])[:, None] for t in space.cell_types}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The logarithm of the product."""
        logits = {t: jnp.asarray(beta) for t, beta in logits.items()}
        return {t: jnp.log(w) for t, w in self.weigh(space, logits, jax.random.key(0), jnp.float32(1)).items()}


@dataclasses.dataclass(frozen=True)
class Sigmoid(Relaxation):
    """The sigmoid of each logit: ops do not compete (Fair DARTS; Chu et al., 2020, equation 5). Every op runs."""

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The sigmoids."""
        return {t: jax.nn.sigmoid(logits[t]) for t in space.cell_types}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The sigmoids."""
        return self.activation(space, logits, jnp.float32(1))


@dataclasses.dataclass(frozen=True)
class HardConcrete(Relaxation):
    """Independent hard-concrete gates, of which two run on each edge (PR-DARTS; Zhou et al., 2020, equation 7).

    Attributes:
      temperature: tau, a schedule that falls from 10 to 0.1 by default.
      draw: which two ops of an edge run. 'uniform', as in the paper: two that are drawn uniformly; their weights are
        their gates. 'largest', as in the authors' code: those with the largest gates after some gates have been dropped
        at random; their weights are exactly 1 with the gradient of the gates (straight-through).
      drop: for 'largest', the probability that a gate is dropped; see `gates.choose_largest`.
    """

    temperature: Linear = Linear(10.0, 0.1)
    draw: Literal["uniform", "largest"] = "uniform"
    drop: float = 0.4

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """One draw of the gates; all but two candidates of every edge get the weight 0."""
        tau = self.temperature(progress)
        return {t: self._draw(k, logits[t], tau) for t, k in keys(key, logits).items()}

    def _draw(self, key, beta, temperature):
        key_gates, key_choice = jax.random.split(key)
        drawn = gates.hard_concrete(key_gates, beta, temperature)
        candidates = jnp.isfinite(beta)
        if self.draw == "uniform":
            return jnp.where(gates.choose_random(key_choice, candidates), drawn, 0.0)
        return gates.straight_through(gates.choose_largest(key_choice, drawn, candidates, self.drop), drawn)

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """P(g != 0), Theorem 3 of the paper."""
        tau = self.temperature(progress)
        return {t: gates.activation_probability(beta, tau) for t, beta in logits.items()}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The logits, which have the order of P(g != 0); with `draw='largest'` their log-softmax on each edge."""
        return logits if self.draw == "uniform" else Softmax().scores(space, logits)

    def metrics(self, progress: jax.Array) -> Metrics:
        """`temperature`."""
        return {"temperature": self.temperature(progress)}


@dataclasses.dataclass(frozen=True)
class Gumbel(Softmax):
    """One op of every edge, drawn by the softmax, with the gradient of the Gumbel softmax at `temperature` (GDAS; Dong,
    Yang, 2019)."""

    temperature: Linear = Linear(10.0, 0.1)

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equations 3 to 5: exactly 1 for the drawn op of each edge (straight-through)."""
        tau = self.temperature(progress)

        def draw(key, beta):
            soft = jax.nn.softmax((beta + jax.random.gumbel(key, beta.shape)) / tau)
            return gates.straight_through(gates.largest(soft, 1), soft)

        return {t: draw(k, logits[t]) for t, k in keys(key, logits).items()}

    def metrics(self, progress: jax.Array) -> Metrics:
        """`temperature`."""
        return {"temperature": self.temperature(progress)}


@dataclasses.dataclass(frozen=True)
class Policy(Softmax):
    """One op of every edge, drawn by the softmax, without a gradient (REINFORCE; Zoph, Le, 2017).

    Beside the logits `baseline` f32[] is trained, with which the loss is compared (see `terms.score_function`).

    Attributes:
      baseline: its initial value, the loss to be expected at the start of a search.
    """

    baseline: float = 2.3

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """The logits and the baseline."""
        return super().init(space, key, logits) | {"baseline": jnp.float32(self.baseline)}

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Exactly 1 for one op of each edge."""
        policy = {t: logits[t] for t in space.cell_types}
        return {
            t: jax.nn.one_hot(jax.random.categorical(k, policy[t]), policy[t].shape[-1])
            for t, k in keys(key, policy).items()
        }


@dataclasses.dataclass(frozen=True)
class Uniform(Relaxation):
    """A cell drawn uniformly, whose ops have the weight 1 (Li, Talwalkar, 2019).

    `selection.BestOf` sets the logits: 1 for the ops of the best cell so far, 0 for the others.
    """

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """A uniformly drawn cell of each type."""
        return {
            t: gates.choose_cell(k, space, jnp.isfinite(logits[t])).astype(jnp.float32)
            for t, k in keys(key, logits).items()
        }

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """1 for each op of the best cell so far, 0 for the others; all are 0 before there is one."""
        return {t: (beta > 0.5).astype(jnp.float32) for t, beta in logits.items()}
