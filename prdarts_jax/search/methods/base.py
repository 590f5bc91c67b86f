"""What the search step asks of a method, and what DARTS answers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from prdarts_jax.ops import Dropout
from prdarts_jax.search import gates, regularizers
from prdarts_jax.spaces import SearchSpace, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype

Arch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """A search method: a frozen, hashable value. As it stands it is first order DARTS; others override what they do
    differently.

    Logits and op weights are {cell type: f32[edges, ops]}. An op whose logit is -inf is no candidate: its weight must
    be 0, and the search step leaves its logit as it is. A method may keep further arrays beside the logits, which the
    optimizer of the logits then trains too. `progress` is the fraction of the search done, f32[] in [0, 1]; schedules
    are functions of it.
    """

    @property
    def weights_first(self) -> bool:
        """Whether a step updates the weights before the logits."""
        return False

    @property
    def second_order(self) -> bool:
        """Whether the logits' gradient goes through the step of the weights that follows."""
        return False

    @property
    def aligns(self) -> bool:
        """Whether the weights' gradient has `alignment_weight` times that of -`alignment` added."""
        return False

    @property
    def dropout(self) -> Dropout:
        """What the supernet drops with the probability `dropout_rate`; see `ops.candidate`."""
        return ""

    @property
    def partial(self) -> int:
        """An op of the supernet sees so small a part of the channels; see `ops.partially`."""
        return 1

    @property
    def logits_start(self) -> float:
        """The progress from which the logits move."""
        return 0.0

    @property
    def samples(self) -> int:
        """So many drawn cells are compared after an epoch, and the best becomes the logits; see `bilevel.select`."""
        return 0

    @property
    def tracks_eigenvalue(self) -> bool:
        """Whether `stops` needs the dominant eigenvalue of the Hessian of each epoch."""
        return False

    def stages(self) -> "Sequence[Stage]":
        """The searches this one is made of, one after another; see `Stage`."""
        return (Stage(self),)

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """The logits a search starts from, in the shapes of those given: 1e-3 N(0, 1)."""
        return {t: 1e-3 * jax.random.normal(k, logits[t].shape, logits[t].dtype) for t, k in keys(key, logits).items()}

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass; an op of weight 0 is not executed.

        Here the softmax over the ops of each edge (Liu et al., 2019, equation 2).
        """
        return gates.softmax(logits)

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(what the logits minimise, scalars to report): the validation loss plus what the method adds."""
        return val_loss, {}

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """How likely, or how strongly, each op takes part: P(g != 0), or the weight where ops always run."""
        return gates.softmax(logits)

    def dropout_rate(self, progress: jax.Array) -> jax.Array:
        """The probability with which `dropout` drops."""
        raise TypeError(f"{type(self).__name__} has no dropout")

    def alignment(self, gradients: jax.Array) -> jax.Array:
        """How well layers agree; of the gradients in the op weights of each normal cell, f32[layers, edges, ops]."""
        return regularizers.layer_alignment(gradients)

    def alignment_weight(self, progress: jax.Array) -> jax.Array:
        """lambda of `aligns`."""
        raise TypeError(f"{type(self).__name__} does not align")

    def stops(self, eigenvalues: Sequence[float]) -> int | None:
        """The epoch whose logits count, if the search is to end after these epochs; otherwise None."""
        return None

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """The cell that the search has found; not for use inside compiled code.

        Here per node the two edges with the largest best softmax of an op other than none (Liu et al., 2019, section
        2.4); in NAS-Bench-201 per edge the best op.
        """
        return discretizations.strongest(distinct_inputs=True)(space, gates.log_softmax(logits))


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of the searches that a method is made of.

    Attributes:
      method: of this search.
      cells: of its supernet; 0: as many as the config says.
      ops: how many candidates an edge keeps of those of the search before, the ones of the largest logits. Without
        meaning for the first.
    """

    method: Method
    cells: int = 0
    ops: int = 0


def keys(key: jax.Array, logits: Arch) -> dict[str, jax.Array]:
    """A key of its own for each of the logits; consumes `key`."""
    return dict(zip(sorted(logits), jax.random.split(key, len(logits)), strict=True))


def fields_of(method: type[Method]) -> dict[str, Any]:
    """The settings of a method and their defaults; `space` and `stage` are not set but known."""
    return {field.name: field.default for field in dataclasses.fields(method) if field.name not in ("space", "stage")}
