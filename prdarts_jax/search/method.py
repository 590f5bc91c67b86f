"""A search method as a composition of parts, each a frozen, hashable dataclass or function."""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import jax
from flax.core import FrozenDict

from prdarts_jax.fields import at_least, checked, from_to
from prdarts_jax.refusals import shown
from prdarts_jax.search.alignment import Alignment
from prdarts_jax.search.freezing import OperationEarlyStopping
from prdarts_jax.search.hypergradients import FirstOrder, Hypergradient
from prdarts_jax.search.relaxations import Arch, Relaxation, Softmax
from prdarts_jax.search.smoothing import Smoothing
from prdarts_jax.search.terms import Term
from prdarts_jax.spaces import SearchSpace, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype

# With what the functions of a method are called.
_ARGUMENTS = MappingProxyType(
    {
        "terms": ("view", "op_weights", "progress"),
        "smoothing": ("op_weights", "gradient", "key", "progress"),
        "freezing": ("optimizer",),
        "discretization": ("space", "scores"),
        "hypergradient": ("problem",),
        "after_epoch": ("problem", "state", "val_batches"),
        "after_search": ("problem", "state", "train_batch", "val_batches"),
        "dropout_rate": ("progress",),
        "relaxation.init": ("space", "key", "logits"),
        "relaxation.weigh": ("space", "logits", "key", "progress"),
        "relaxation.activation": ("space", "logits", "progress"),
        "relaxation.scores": ("space", "logits"),
        "relaxation.metrics": ("progress",),
    }
)


@checked
@dataclasses.dataclass(frozen=True)
class Method:
    """A search method; with the defaults it is first order DARTS. The search space comes from the supernet.

    >>> from prdarts_jax.search import terms
    >>> method = Method(terms=(terms.path_depth(0.005),))  # DARTS with the reward for depth of PR-DARTS
    >>> dataclasses.replace(method, weights_first=True).terms == method.terms
    True

    Attributes:
      relaxation: how logits become op weights; see the folder `relaxations`.
      terms: what is added to the validation loss that the logits minimise; see the folder `terms`.
      inner: what is added to the training loss that the weights minimise; see `alignment.py`.
      smoothing: how op weights are perturbed when the weights of the network are updated; see `smoothing.py`.
      freezing: when the weights of single ops are no longer trained; see `freezing.py`.
      discretization: `(space, scores) -> genotype`; see `spaces/discretizations.py`.
      weights_first: whether a step updates the weights before the logits.
      hypergradient: how the gradient in the logits takes account of the weights, which follow the logits; see
        `hypergradients.py`.
      logits_start: the fraction of the search, in [0, 1], after which the logits are updated.
      early_stopping: the rule by which a search ends before its last epoch, such as `curvature.EarlyStopping`.
      after_epoch: `(problem, state, val_batches) -> state`, called after each epoch; see `selection.py` and
        `pruning.py`.
      after_search: `(problem, state, train_batch, val_batches) -> chosen`, which replaces the discretization; `chosen`
        are the ops of the cell, bool[edges, ops] for each cell type. `train_batch(number)`, i32[] from 0, is a training
        batch; see `perturbation.py` and `selection.py`.
      supernet: fields with which the method needs the supernet to be made, for instance {'partial': 4}.
      dropout_rate: a schedule (progress -> f32[]) of the argument `dropout_rate` of the supernet; None: no dropout.
      stages: if not empty, searches that are run one after another in place of a search with this method.

    `val_batches` are validation batches, {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.

    Raises:
      ValueError: a field is of another type, a class in place of a value, or a function with other arguments,
        `logits_start` is out of range, or a stage after the first has no number of ops.
    """

    relaxation: Relaxation = Softmax()
    terms: tuple[Term, ...] = ()
    inner: Alignment | None = None
    smoothing: Smoothing | None = None
    freezing: OperationEarlyStopping | None = None
    discretization: discretizations.Discretization = discretizations.strongest()
    weights_first: bool = False
    hypergradient: Hypergradient = FirstOrder()
    logits_start: Annotated[float, from_to(0, 1)] = 0.0
    early_stopping: Any = None
    after_epoch: Callable | None = None
    after_search: Callable | None = None
    supernet: Mapping[str, Any] = FrozenDict()
    dropout_rate: Callable[[jax.Array], jax.Array] | None = None
    stages: "tuple[Stage, ...]" = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "supernet", FrozenDict(self.supernet))  # hashable
        rules = ("early_stopping", "stops", "EarlyStopping()"), ("freezing", "metrics", "OperationEarlyStopping()")
        for field, attribute, example in rules:
            if (value := getattr(self, field)) is not None and not hasattr(type(value), attribute):
                raise ValueError(f"{field}={shown(value)} must be a value such as {example}")
        if not all(isinstance(stage, Stage) for stage in self.stages):
            raise ValueError(f"stages={shown(self.stages)} must be Stages, such as Stage(method, ops=4)")
        if any(stage.ops < 1 for stage in self.stages[1:]):
            raise ValueError(f"stages={shown(self.stages)}: each stage but the first must have ops of at least 1")
        for field in (field.name for field in dataclasses.fields(self)):
            for part in self.terms if field == "terms" else (getattr(self, field),):
                _check_part(field, part)
        for field, arguments in _ARGUMENTS.items():
            value = operator.attrgetter(field)(self)
            for function in value if field == "terms" else (value,):
                if function is not None and (why := _unfit(function, arguments)):
                    name = getattr(function, "__name__", type(function).__name__)
                    chooses = not _unfit(function, _ARGUMENTS["after_search"])
                    raise ValueError(
                        f"{field}={shown(value)} must be called with ({', '.join(arguments)}), but {name} cannot be: "
                        f"{why}{'; did you mean after_search?' if chooses else ''}"
                    )

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The probability or strength with which each op takes part, f32[edges, ops] in [0, 1] for each cell type."""
        return self.relaxation.activation(space, logits, progress)

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """The cell that a search with these logits has found; do not call it in compiled code.

        Raises:
          ValueError: the discretization refuses the scores, or returns no cell with the nodes and ops of the space. A
            space whose cells no class of genotypes describes (`SearchSpace.genotype_class`) may have any result.
        """
        found = self.discretization(space, self.relaxation.scores(space, logits))
        if not space.has_genotypes:
            return found
        try:
            space.encode(found)
        except ValueError as error:
            raise ValueError(f"discretization={shown(self.discretization)} must return a cell: {error}") from error
        return found


def _check_part(name, part):
    """Refuses a part, or a part of it, that is equal to a different one, since compiled functions are found by it."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return
    kind = type(part)
    compares = next(of for of in kind.__mro__ if "__eq__" in vars(of))
    if compares is not kind and dataclasses.is_dataclass(compares):
        compared = {of.name for of in dataclasses.fields(compares)}
        found = [of for of in getattr(part, "__dict__", {}) if of not in compared]
        cached = functools.cached_property
        if hidden := [of for of in found if not isinstance(inspect.getattr_static(kind, of, None), cached)]:
            raise ValueError(
                f"{name}={shown(part)} must have {', '.join(hidden)} as fields, or parts that differ in them count as "
                f"equal: put @dataclasses.dataclass(frozen=True) before the class {kind.__name__}"
            )
    for of in dataclasses.fields(part):
        _check_part(f"{name}.{of.name}", getattr(part, of.name))


@checked
@dataclasses.dataclass(frozen=True)
class Stage:
    """One of the searches of a method that has several.

    Attributes:
      method: of this search.
      ops: number of candidates on each edge: those with the largest logits after the search before. The first search
        ignores it, and has all candidates of the space.
    """

    method: Method
    ops: Annotated[int, at_least(0)] = 0


def _unfit(function, arguments):
    """Why a value cannot be called with these arguments; '' if it can."""
    if not callable(function) or isinstance(function, type):
        return "it is not a function"
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # some functions that are not written in Python do not tell
        pass
    return ""
