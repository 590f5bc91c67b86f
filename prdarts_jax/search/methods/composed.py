"""A method composed of parts in a TOML file:

    [relaxation]
    part = "HardConcrete"
    temperature = {part = "Linear", start = 5.0, end = 0.1}

    [[terms]]
    part = "beta_decay"
    weight = 0.1

    [paper]
    "logits.learning_rate" = 1e-3

The fields are those of `Method`, without `stages` and `after_search`. A table with `part` is a call: of the class or
function of that name in the modules of parts (see `PARTS`), with the other entries as its arguments. `paper` has fields
of a config, which the method sets.
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_origin, get_type_hints

from flax.traverse_util import flatten_dict

from prdarts_jax import fields, ops, refusals
from prdarts_jax.fields import at_least, below
from prdarts_jax.refusals import cut, listed, shown
from prdarts_jax.search import (
    alignment,
    curvature,
    freezing,
    hypergradients,
    pruning,
    relaxations,
    schedules,
    selection,
    smoothing,
    terms,
)
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.named import Named, constant
from prdarts_jax.spaces import discretizations


def _public(module, *names):
    return {name: getattr(module, name) for name in names}


# For each field, the parts that it may have.
PARTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "relaxation": {
            name: part
            for name, part in vars(relaxations).items()
            if isinstance(part, type)
            and issubclass(part, relaxations.Relaxation)
            and part is not relaxations.Relaxation
        },
        "terms": {
            name: getattr(terms, name)
            for name in terms.__all__
            if name.islower() and name not in ("expected_cost", "group_sparsity", "total")
        }
        | {"score_function": lambda: terms.score_function},
        "inner": _public(alignment, "Alignment"),
        "hypergradient": _public(hypergradients, "ConjugateGradient", "FirstOrder", "Neumann", "Unrolled"),
        "smoothing": _public(smoothing, "AdversarialSmoothing", "RandomSmoothing"),
        "freezing": _public(freezing, "OperationEarlyStopping"),
        "discretization": _public(discretizations, "above", "limited_skips", "strongest"),
        "early_stopping": _public(curvature, "EarlyStopping"),
        "after_epoch": _public(selection, "BestOf") | _public(pruning, "Pruning"),
        "dropout_rate": _public(schedules, "Linear", "LinearThenExponential"),
    }
)
# The parts that an argument of a part may be; those of all others are schedules.
_ARGUMENTS = {
    "relaxation": PARTS["relaxation"],
    "term": PARTS["terms"],
    "measure": {"cosine": lambda: alignment.cosine, "sign_correlation": lambda: alignment.sign_correlation},
}
_PLAIN = ("weights_first", "logits_start", "supernet", "paper")
_SUPERNET = {"partial": fields.field_of(Annotated[int, at_least(1)]), "dropout": fields.field_of(ops.Dropout)}


def read(name: str) -> Named:
    """The method that a TOML file describes.

    Raises:
      ValueError, OSError: the file does not exist or describes no method; the message says which entry is wrong.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "deep.toml")
    >>> _ = file.write_text('[relaxation]\\npart = "Sigmoid"\\n[[terms]]\\npart = "path_depth"\\nweight = 0.005')
    >>> read(str(file))().relaxation
    Sigmoid(initial=0.0, noise=0.001)
    """
    file = refusals.file("method", name, most=10**5)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # tomllib.TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"method={shown(name)} is not a TOML file: {cut(str(error), 200)}") from error
    try:
        made, paper = _method(table), flatten_dict(table.get("paper", {}), sep=".")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"method={shown(name)}: {cut(str(error), 400)}") from error
    return constant(file.stem, made, paper)


def _method(table):
    names = [*PARTS, *_PLAIN]
    for field in table:
        if field not in names:
            raise ValueError(f"{field} is not a field of a method; the fields are {listed(field, names, len(names))}")
    for field in ("supernet", "paper"):
        fields.check(fields.field_of(dict), field, table.get(field, {}))
    for field, value in table.get("supernet", {}).items():
        if field not in _SUPERNET:
            raise ValueError(f"supernet.{field} is not a field that a method sets; the fields are partial, dropout")
        fields.check(_SUPERNET[field], f"supernet.{field}", value)
    if ("dropout_rate" in table) != ("dropout" in table.get("supernet", {})):
        raise ValueError("supernet.dropout and dropout_rate must be given together")
    of_terms = table.get("terms", [])
    if not isinstance(of_terms, list):
        raise ValueError(f"terms={shown(of_terms)} must be a list of parts, written as [[terms]]")
    parts: dict[str, Any] = {
        field: _made(field, table[field], of_field)
        for field, of_field in PARTS.items()
        if field in table and field != "terms"
    }
    if "dropout_rate" in parts:
        fields.check_range(below(1), "dropout_rate", parts["dropout_rate"])
    parts["terms"] = tuple(_made(f"terms[{i}]", part, PARTS["terms"]) for i, part in enumerate(of_terms))
    names = [_innermost(part) for part in of_terms]
    if len({*names}) < len(names):
        raise ValueError(f"terms must be different parts, not {', '.join(names)}")
    if terms.score_function in parts["terms"] and not isinstance(parts.get("relaxation"), relaxations.Policy):
        raise ValueError("terms: score_function must be with relaxation.part='Policy', whose baseline it trains")
    one_op = relaxations.Gumbel | relaxations.Policy | relaxations.Uniform
    if "smoothing" in parts and isinstance(parts.get("relaxation"), one_op):
        name = table["relaxation"]["part"]
        raise ValueError(
            f"smoothing has no effect with relaxation.part={name!r}: only one op runs on each edge, with weight 1"
        )
    return Method(**parts, **{field: table[field] for field in _PLAIN if field in table and field != "paper"})


def _innermost(table):
    """The name of a term's part, or of the part that is scheduled."""
    return _innermost(table["term"]) if table["part"] == "scheduled" else table["part"]


def _made(what, table, parts):
    """The part that a table describes; `what` names the table in messages."""
    if not isinstance(table, dict) or not isinstance(table.get("part"), str):
        raise ValueError(
            f"{what}={shown(table)} must be a table with an entry part, one of {', '.join(parts)}, such as "
            f"{_example(*next(iter(parts.items())))}"
        )
    name = table["part"]
    if name not in parts:
        cost = "; set config.cost.target instead" if name == "expected_cost" else ""
        allowed = f"one of {', '.join(parts)}{refusals.near(name, parts)}{cost}"
        raise ValueError(f"{what}.part={shown(name)} must be {allowed}")
    part, arguments = parts[name], {key: value for key, value in table.items() if key != "part"}
    try:
        inspect.signature(part).bind(**arguments)
    except TypeError as error:
        allowed = ", ".join(inspect.signature(part).parameters) or "none"
        raise ValueError(f"{what}: {error}; the arguments of {name} are {allowed}") from error
    hints = get_type_hints(vars(part)["__init__"] if isinstance(part, type) else part, include_extras=True)
    return part(**{key: _argument(f"{what}.{key}", key, hints[key], value) for key, value in arguments.items()})


def _example(name, part):
    """How a part is written in TOML."""
    arguments = inspect.signature(part).parameters.values()
    needed = [f", {argument.name} = ..." for argument in arguments if argument.default is argument.empty]
    return f'{{part = "{name}"{"".join(needed)}}}'


def _argument(what, name, hint, value):
    """The value of an argument with this name and annotation: as it is, or the part that it describes."""
    field = fields.field_of(hint)
    parts = _ARGUMENTS.get(name, PARTS["dropout_rate"])
    if get_origin(field.kind) is not Callable:
        parts = {
            of: part for of, part in parts.items() if isinstance(field.kind, type) and issubclass(part, field.kind)
        }
    if parts:
        value = _made(what, value, parts)
    elif isinstance(value, dict) and name == "weight":
        scheduled = '{part = "scheduled", term = ..., schedule = ...}'
        raise ValueError(f"{what}={shown(value)} must be of type float; over time: {scheduled}")
    fields.check(field, what, value)
    return value
