"""A skip connection beside the ops of every edge (DARTS-)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.relaxations.base import Arch, Metrics, Relaxation
from prdarts_jax.search.relaxations.policy import Policy
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.search.relaxations.uniform import Uniform
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class AuxiliarySkip(Relaxation):
    """Another relaxation, and on every edge a skip connection beside its ops, whose weight does not depend on the
    logits (DARTS-; Chu et al., ICLR 2021).

    It is added to the weight of the candidate op, so on an edge with stride 2 both have the same convolutions; in the
    authors' code each has its own. It does not fit `Policy` and `Uniform`, which take every op with a weight for a
    drawn one.

    Attributes:
      relaxation: of the ops; it also sets the initial logits.
      weight: beta, a schedule that falls from 1 to 0 by default.
    """

    initial: float = dataclasses.field(default=0.0, init=False, repr=False)
    noise: float = dataclasses.field(default=0.0, init=False, repr=False)
    relaxation: Relaxation = Softmax()
    weight: Annotated[Linear, at_least(0)] = Linear(1.0, 0.0)

    def __post_init__(self) -> None:
        if isinstance(self.relaxation, Policy | Uniform):
            name = type(self.relaxation).__name__
            raise ValueError(
                f"relaxation={name}() must be another one in AuxiliarySkip: the ops that {name} draws could not be "
                "told from the skip connection that is added"
            )

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """Those of the relaxation.

        Raises:
          ValueError: the space has no skip connection.
        """
        if not space.op_indices("skip"):
            raise ValueError(f"space={space.name} must have a skip connection for AuxiliarySkip")
        return self.relaxation.init(space, key, logits)

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """The op weights of the relaxation, with beta added to those of the skip connection."""
        weights = self.relaxation.weigh(space, logits, key, progress)
        skip = jnp.arange(len(space.ops)) == space.op_indices("skip")[0]
        return {t: w + self.weight(progress) * skip for t, w in weights.items()}

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """That of the relaxation."""
        return self.relaxation.activation(space, logits, progress)

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """Those of the relaxation."""
        return self.relaxation.scores(space, logits)

    def metrics(self, progress: jax.Array) -> Metrics:
        """Those of the relaxation, and `auxiliary_skip`, the weight."""
        return self.relaxation.metrics(progress) | {"auxiliary_skip": self.weight(progress)}
