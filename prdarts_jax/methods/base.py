"""What the search step asks of a method."""

from typing import Protocol

import jax

from prdarts_jax.genotypes import Genotype
from prdarts_jax.spaces import SearchSpace

Arch = dict[str, jax.Array]


class Method(Protocol):
    """A search method: a frozen, hashable value. Logits and op weights are {cell type: f32[edges, ops]}.

    `progress` is the fraction of the search done, f32[] in [0, 1]; schedules are functions of it.

    Attributes:
      weights_first: whether a step updates the weights before the logits.
    """

    @property
    def weights_first(self) -> bool: ...  # noqa: D102

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """The logits a search starts from, in the shapes of those given."""
        ...

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass; an op of weight 0 is not executed."""
        ...

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(what the logits minimise, scalars to report): the validation loss plus what the method adds."""
        ...

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """How likely, or how strongly, each op takes part: P(g != 0), or the weight where ops always run."""
        ...

    def derive(self, space: SearchSpace, logits: Arch) -> Genotype:
        """The cell that the search has found; not for use inside compiled code."""
        ...
