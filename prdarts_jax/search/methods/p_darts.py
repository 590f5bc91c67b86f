"""P-DARTS: Progressive Differentiable Architecture Search (Chen, Xie, Wu, Tian, ICCV 2019)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.ops import Dropout
from prdarts_jax.search import gates
from prdarts_jax.search.methods.base import Arch, Method, Stage
from prdarts_jax.spaces import SearchSpace, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype


@dataclasses.dataclass(frozen=True)
class PDarts(Method):
    """First order DARTS in stages of growing depth and falling numbers of ops, with dropout after skip connections.

    Attributes:
      cells: of the supernet, a stage each; in NAS-Bench-201 those of each of its three stages.
      ops: candidates an edge, a stage each; the first searches all that the space has, whatever stands here.
      skip_dropout: at the start of each stage; it falls in the stage.
      most_skips: in the normal cell that is derived.
      logits_start: as `Method.logits_start`; the paper's first 10 of 25 epochs.
      stage: which of the stages this is the method of.
    """

    cells: tuple[int, ...] = (5, 11, 17)
    ops: tuple[int, ...] = (8, 5, 3)
    skip_dropout: tuple[float, ...] = (0.0, 0.4, 0.7)
    most_skips: int = 2
    logits_start: float = 0.4
    stage: int = 0

    def __post_init__(self) -> None:
        if not len(self.cells) == len(self.ops) == len(self.skip_dropout):
            raise ValueError(
                f"cells={self.cells}, ops={self.ops} and skip_dropout={self.skip_dropout} must be of one length, a "
                "stage each"
            )

    def stages(self) -> tuple[Stage, ...]:
        """More cells and fewer ops each."""
        methods = (dataclasses.replace(self, stage=i) for i in range(len(self.cells)))
        return tuple(map(Stage, methods, self.cells, self.ops))

    @property
    def dropout(self) -> Dropout:
        """After skip connections, where the stage has it."""
        return "skip" if self.skip_dropout[self.stage] else ""

    def dropout_rate(self, progress: jax.Array) -> jax.Array:
        """As the authors' code, in epochs of 25: linear towards 0 while the logits rest, then by exp(-0.2) each."""
        rate, moving = self.skip_dropout[self.stage], progress >= self.logits_start
        return rate * jnp.where(moving, jnp.exp(-0.2 * 25 * (progress - self.logits_start)), 1 - progress)

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """As DARTS, but of more skip connections than `most_skips` in the normal cell the weakest go."""
        return discretizations.limited_skips(self.most_skips)(space, gates.log_softmax(logits))
