"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (Xu et al., ICLR 2020)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.search import gates
from prdarts_jax.search.methods.base import Arch, Method
from prdarts_jax.spaces import SearchSpace, darts, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype


@dataclasses.dataclass(frozen=True)
class PCDarts(Method):
    """First order DARTS on a part of the channels, with weights of the edges beside those of the ops.

    Beside the logits of cell type t there are those of its edges, `t_edges` f32[edges].

    Attributes:
      partial: K, an op sees 1/K of the channels.
      logits_start: as `Method.logits_start`; the paper's first 15 of 50 epochs.
      space: says which edges enter a node.
    """

    partial: int = 4
    logits_start: float = 0.3
    space: SearchSpace = darts()

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """1e-3 N(0, 1), those of the edges too."""
        shapes = {f"{t}_edges": beta[:, 0] for t, beta in logits.items()}
        return super().init(key, logits | shapes)

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equation 3: the softmax over the ops of an edge, times that over the edges of a node."""
        return {
            t: jax.nn.softmax(logits[t]) * self._edge_weights(logits[f"{t}_edges"])[:, None]
            for t in self.space.cell_types
        }

    def _edge_weights(self, beta):
        targets = jnp.array([target for _, target in self.space.edges])
        same = targets[:, None] == targets[None, :]
        return jnp.diagonal(jax.nn.softmax(jnp.where(same, beta[None, :], -jnp.inf), axis=1))

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """The softmax over the ops: every op always runs."""
        return gates.softmax({t: logits[t] for t in self.space.cell_types})

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """As DARTS, by the product of both weights."""
        weights = self.weigh({t: jnp.asarray(a) for t, a in logits.items()}, jax.random.key(0), jnp.float32(1))
        return discretizations.strongest(distinct_inputs=True)(space, {t: jnp.log(w) for t, w in weights.items()})
