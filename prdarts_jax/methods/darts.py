"""DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang, ICLR 2019), first order."""

import dataclasses

import jax

from prdarts_jax import gates, genotypes
from prdarts_jax.methods.base import Arch
from prdarts_jax.spaces import SearchSpace


@dataclasses.dataclass(frozen=True)
class Darts:
    """Softmax weights over all ops of an edge; the logits follow the plain gradient of the validation loss."""

    weights_first: bool = False

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """1e-3 N(0, 1)."""
        return normal_logits(key, logits)

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equation 2: the softmax over the ops of each edge. The key is not used."""
        return gates.softmax(logits)

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Equation 3: the validation loss."""
        return val_loss, {}

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """The softmax weights: every op always runs."""
        return gates.softmax(logits)

    def derive(self, space: SearchSpace, logits: Arch) -> genotypes.Genotype:
        """Section 2.4: per node the two edges with the largest best weight of an op other than none."""
        return genotypes.derive(space, gates.softmax(logits), distinct_inputs=True)


def normal_logits(key: jax.Array, logits: Arch) -> Arch:
    """1e-3 N(0, 1) in the shapes of `logits`."""
    keys = jax.random.split(key, len(logits))
    return {
        cell_type: 1e-3 * jax.random.normal(k, logits[cell_type].shape, logits[cell_type].dtype)
        for k, cell_type in zip(keys, sorted(logits), strict=True)
    }
