"""Settings: the default, the range and the meaning of each are written together, and one generic check reads them.

A setting is a parameter of a function or a field of a dataclass:

    epochs: Annotated[int, at_least(1), "of the search"] = 50

A nested dataclass is a section of settings. The decorator `checked` applies the same check to the arguments of a call.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from prdarts_jax import refusals

LARGEST = 3.4e38  # float32 holds no larger number


class Range(NamedTuple):
    """The values that a setting may have.

    Attributes:
      allows: whether a value is one of them.
      text: gives the end of the sentence "epochs=0 must be ...".
      names: all allowed values if they are names, so that a message can suggest the one that was meant.
    """

    allows: Callable[[Any], bool]
    text: Callable[[], str]
    names: Collection[str] = ()


def at_least(low: float) -> Range:
    """Numbers of at least `low` that float32 can hold: up to 3.4e38."""
    return from_to(low, LARGEST)


def above(low: float, most: float = LARGEST) -> Range:
    """Numbers above `low` and at most `most`; by default that is 3.4e38, the limit of float32."""
    return Range(lambda value: low < value <= most, lambda: f"above {low} and at most {most}")


def from_to(low: float, high: float) -> Range:
    """Numbers from `low` to `high`, both included."""
    return Range(lambda value: low <= value <= high, lambda: f"from {low} to {high}")


def whole(low: int, high: int) -> Range:
    """Integers from `low` to `high`, both included; for a tuple, of whose numbers no type says that they are whole."""
    return Range(
        lambda value: type(value) is int and low <= value <= high, lambda: f"a whole number from {low} to {high}"
    )


def below(high: float) -> Range:
    """Numbers of at least 0 and below `high`."""
    return Range(lambda value: 0 <= value < high, lambda: f"at least 0 and below {high}")


def one_of(values: Collection[str]) -> Range:
    """The members of a collection; members that are added later, for instance to a registry, are allowed too."""
    return Range(
        lambda value: value in values, lambda: f"one of {', '.join(value or repr('') for value in values)}", values
    )


def each(of: Range) -> Range:
    """Tuples of 1 to 100 numbers, all in the range."""
    return Range(
        lambda values: (
            0 < len(values) <= 100 and all(type(value) in (int, float) and of.allows(value) for value in values)
        ),
        lambda: f"a tuple of 1 to 100 numbers, each {of.text()}",
    )


SEED = from_to(0, 2**32 - 1)


class Field(NamedTuple):
    """One setting.

    Attributes:
      kind: its type, for instance int, or float | None. A type whose values are called, such as a schedule, stands for
        all functions.
      default: its default value; `inspect.Parameter.empty` if it has none.
      ranges: a value must be in all of them.
      meaning: what the setting decides, in a phrase; '' if a docstring says it.
    """

    kind: Any
    default: Any
    ranges: tuple[Range, ...] = ()
    meaning: str = ""


Schema = Mapping[str, Any]  # name -> Field, or a section: Schema


def schema_of(owner: Any) -> dict[str, Any]:
    """The settings of a function or a dataclass: {name: `Field`}, or {name: schema} for a section (a nested dataclass).

    Raises:
      ValueError: a parameter has no default.
    """
    hints = typing.get_type_hints(owner, include_extras=True)
    schema: dict[str, Any] = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        field = field_of(hints.get(name, Any), parameter.default)
        if dataclasses.is_dataclass(field.kind):
            schema[name] = schema_of(field.kind)
            continue
        if parameter.default is parameter.empty:
            raise ValueError(f"setting {name} of {owner.__name__} has no default: give it one")
        schema[name] = field
    return schema


def field_of(hint: Any, default: Any = inspect.Parameter.empty) -> Field:
    """The setting with this annotation."""
    kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    ranges = tuple(extra for extra in extras if isinstance(extra, Range))
    literals = [member for member in _members(kind) if typing.get_origin(member) is typing.Literal]
    ranges += tuple(one_of(typing.get_args(literal)) for literal in literals)
    meaning = next((extra for extra in extras if isinstance(extra, str)), "")
    return Field(kind, default, ranges, meaning)


def defaults(schema: Schema) -> ConfigDict:
    """A config with the defaults of a schema.

    A setting whose default is None is a placeholder of its other type. A setting that may have several types accepts a
    value of any type here, and `check` then refuses a wrong one.
    """
    values: dict[str, Any] = {}
    for name, field in schema.items():
        if not isinstance(field, Field):
            values[name] = defaults(field)
        elif field.default is None:
            values[name] = placeholder(next((of for of in _classes(field.kind) if of is not type(None)), object))
        elif len(_classes(field.kind)) > 1:
            values[name] = FieldReference(field.default, field_type=object)
        else:
            values[name] = field.default
    return ConfigDict(values)


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type alone."""
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes that a value of this type may have: str for a literal, tuple for tuple[int, ...], object for Any."""
    special = {Any: object, typing.Literal: str}
    origins = [typing.get_origin(member) or member for member in _members(kind)]
    return tuple(special.get(origin, origin) for origin in origins)


def _is(value: Any, of: Any) -> bool:
    if issubclass(of, Callable):  # type: ignore[arg-type]
        return callable(value) and not isinstance(value, type)
    if of in (bool, int, float, str):  # True is an instance of int, but no integer
        return type(value) is of or (of is float and type(value) is int)
    return isinstance(value, of)


def check(field: Field, name: str, value: Any) -> None:
    """Refuses a value of another type or out of range; a number without a range must be finite in float32.

    Raises:
      ValueError: naming the setting, its value and what is allowed.
    """
    classes = _classes(field.kind)
    if not any(_is(value, of) for of in classes):
        special: dict[Any, str] = {type(None): "None", Callable: "function"}
        names = " or ".join(special.get(of, of.__name__) for of in classes)
        example = "" if field.default is inspect.Parameter.empty else f", as {field.default!r} is"
        made = f"; did you mean {value.__name__}(...)?" if isinstance(value, type) else ""
        raise ValueError(f"{name}={refusals.shown(value)} must be of type {names}{example}{made}")
    if not field.ranges and isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError(f"{name}={refusals.shown(value)} must be finite and at most {LARGEST}")
    for allowed in field.ranges if value is not None else ():
        check_range(allowed, name, value)


def check_range(allowed: Range, name: str, value: Any) -> None:
    """Refuses a value, or the start or the end of a schedule, that is out of range.

    Raises:
      ValueError: naming the setting, its value and what is allowed.
    """
    ends = {f"{name}.{end}": getattr(value, end) for end in ("start", "end") if hasattr(value, end)}
    for of, number in ends.items() if callable(value) else ((name, value),):
        if not isinstance(number, jax.Array) and not allowed.allows(number):
            near = refusals.near(number, allowed.names)
            raise ValueError(f"{of}={refusals.shown(number)} must be {allowed.text()}{near}")


_Called = TypeVar("_Called", bound=Callable[..., Any])


def checked(function: _Called) -> _Called:
    """A decorator: a function, or a class when a value is made, checks its arguments against its annotations and raises
    the ValueError of `check`.

    A subclass that is a dataclass has another constructor, and needs the decorator too. Arrays of JAX, which may be
    traced, are not checked.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{function.__qualname__}() {error}") from None
        hints = typing.get_type_hints(function, include_extras=True)
        for name, given in arguments.items():
            parameter = signature.parameters[name]
            for value in given if parameter.kind is parameter.VAR_POSITIONAL else (given,):
                value = value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
                if not isinstance(value, jax.Array):
                    check(field_of(hints.get(name, Any), parameter.default), name, value)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def check_names(found: Collection[str], expected: Collection[str], owner: str) -> None:
    """Refuses a field of a config that is not among those expected; `owner` says in the message whose fields they are.

    Raises:
      ValueError: naming the field and those with similar names.
    """
    for name in found:
        if name not in expected:
            fields = refusals.listed(name, expected, most=5)
            raise ValueError(f"config.{refusals.cut(name, 100)} is not a field of {owner}; the fields are {fields}")


def check_config(schema: Schema, config: ConfigDict) -> None:
    """Refuses a config with an unknown or missing field, or one of another type or out of range.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    expected = flatten_dict(schema, sep=".")
    found = {".".join(map(str, path)): value for path, value in flatten_dict(config.to_dict()).items()}
    for name, value in found.items():
        if fields := [field.removeprefix(f"{name}.") for field in expected if field.startswith(f"{name}.")]:
            text = refusals.listed(None, fields, most=5)
            raise ValueError(f"config.{name}={refusals.shown(value)} must be a section with the fields {text}")
    check_names(found, expected, "this config")
    for name, field in expected.items():
        if name not in found:
            raise ValueError(f"config.{name} is missing; its default is {field.default!r}")
        check(field, f"config.{name}", found[name])
