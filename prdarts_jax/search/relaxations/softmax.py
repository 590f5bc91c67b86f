"""Softmaxes over the ops of an edge (DARTS) and over the edges into a node as well (PC-DARTS)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations.base import Arch, Relaxation
from prdarts_jax.spaces import SearchSpace


@checked
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


@checked
@dataclasses.dataclass(frozen=True)
class EdgeSoftmax(Softmax):
    """The softmax over the ops of an edge, times a softmax over the edges into its node (PC-DARTS; Xu et al., 2020,
    equation 3).

    Beside the logits of its ops each cell type has logits of its edges, `normal_edges` and `reduce_edges` f32[edges].
    These decide with the others which cell is derived, but are no part of the activation: a term that is a function of
    the activation, such as `expected_cost`, does not move them.
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
