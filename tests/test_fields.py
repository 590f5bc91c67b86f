"""Settings: what each range allows at its limits, types, sections, and the sentences that refuse a value."""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from shared import refused

from prdarts_jax import fields
from prdarts_jax.fields import SEED, Field, above, at_least, below, each, from_to, one_of

TINY = 1e-9  # beyond a limit
RANGES = {
    "from 1 to 3.4e+38": (at_least(1), [1, 1.0, 3e38], [1 - TINY, -math.inf, 10**400, math.inf, math.nan]),
    "above 0 and at most 3.4e+38": (above(0), [TINY, 3e38], [0, 0.0, -1, -math.inf, 1e39, 10**400, math.inf, math.nan]),
    "above 0 and at most 1": (above(0, 1), [TINY, 1], [0, 1 + TINY, math.inf, math.nan]),
    "from 0 to 1": (from_to(0, 1), [0, 0.5, 1], [-TINY, 1 + TINY, math.inf, math.nan]),
    "at least 0 and below 1": (below(1), [0, 1 - TINY], [-TINY, 1, math.inf, math.nan]),
    "from 0 to 4294967295": (SEED, [0, 2**32 - 1], [-1, 2**32]),
    "one of a, b": (one_of(("a", "b")), ["a", "b"], ["", "c", "a, b"]),
    "a tuple of 1 to 100 numbers, each at least 0 and below 1": (
        each(below(1)),
        [(0,), (0.0, 0.9)],
        [(), (0.5, 1.0), (-TINY,), (math.nan,), ("a", 0.4), (False, 0.0), (None,), (0.5,) * 101],
    ),
}


@pytest.mark.parametrize("text", RANGES)
def test_a_range_allows_what_lies_within_its_limits_and_says_which_they_are(text):
    allowed, within, beyond = RANGES[text]
    assert allowed.text() == text
    assert [value for value in within if not allowed.allows(value)] == []
    assert [value for value in beyond if allowed.allows(value)] == []


def test_what_is_registered_later_is_allowed_from_then_on():
    registry = {"a": 1}
    allowed = one_of(registry)
    registry["b"] = 2
    assert allowed.allows("b") and allowed.text() == "one of a, b"


@pytest.mark.parametrize(
    "kind, accepted, others, names",
    [
        (int, [0, -3], [1.0, True, "1", None], "int"),
        (float, [0.5, 2, -1e38], [True, "0.5", None, (0.5,)], "float"),
        (bool, [True, False], [0, 1, "true", None], "bool"),
        (str, ["", "a"], [1, None, b"a"], "str"),
        (tuple[int, ...], [(), (1, 2)], [1, [1, 2], None], "tuple"),
        (float | None, [None, 0.5, 2], ["0.5", True], "float or None"),
        (typing.Optional[int], [None, 2], [0.5, "2"], "int or None"),  # noqa: UP045
        (tuple[int, ...] | None, [None, (1,)], [1, [1]], "tuple or None"),
        (int | str, [1, "a"], [0.5, None], "int or str"),
        (Any, [None, 1, "a", [1]], [], ""),
    ],
    ids=str,
)
def test_a_value_must_be_of_the_type_of_its_field(kind, accepted, others, names):
    field = Field(kind, default := accepted[0])
    for value in accepted:
        fields.check(field, "it", value)
    for value in others:
        with refused(f"it={value!r} must be of type {names}, as {default!r} is"):
            fields.check(field, "it", value)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 10**39], ids=repr)
def test_a_number_without_a_range_must_be_finite_in_float32(number):
    with refused(f"it={number!r} must be finite and at most 3.4e+38"):
        fields.check(Field(float, 0.0), "it", number)


def test_a_value_must_lie_in_every_range_and_none_in_no_range():
    field = Field(float | None, None, (at_least(1), below(3)))
    for value in (None, 1, 2.9):
        fields.check(field, "it", value)
    for value, allowed in ((0.5, "from 1 to 3.4e+38"), (3, "at least 0 and below 3"), (math.nan, "from 1 to 3.4e+38")):
        with refused(f"it={value!r} must be {allowed}"):
            fields.check(field, "it", value)


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: Annotated[float, above(0), "of learning"] = 0.1


@dataclasses.dataclass(frozen=True)
class Outer:
    epochs: Annotated[int, at_least(1)] = 5
    form: Literal["round", "square"] = "round"
    start: Annotated[float | None, below(1), "the beginning"] = None
    inner: Inner = Inner()


@dataclasses.dataclass(frozen=True)
class Schedule:
    start: float
    end: float

    def __call__(self, progress):
        return self.start + (self.end - self.start) * progress


def function(rate: Annotated[float, above(0), "of learning"] = 0.1, shape: Literal["a", "b"] | None = None, *, free=7):
    return rate, shape, free


def test_the_schema_of_a_dataclass_has_its_defaults_ranges_meanings_and_sections():
    schema = fields.schema_of(Outer)
    assert list(schema) == ["epochs", "form", "start", "inner"]
    assert schema["inner"].keys() == {"rate"} and schema["inner"]["rate"].meaning == "of learning"
    assert schema["epochs"][:2] == (int, 5) and [r.text() for r in schema["epochs"].ranges] == ["from 1 to 3.4e+38"]
    assert schema["start"].default is None and schema["start"].meaning == "the beginning"
    assert schema["epochs"].meaning == ""


def test_the_schema_of_a_function_has_its_parameters():
    schema = fields.schema_of(function)
    assert {name: field.default for name, field in schema.items()} == {"rate": 0.1, "shape": None, "free": 7}
    assert [r.text() for r in schema["rate"].ranges] == ["above 0 and at most 3.4e+38"] and schema[
        "rate"
    ].meaning == "of learning"
    assert schema["free"].kind is Any


def test_a_setting_without_a_default_is_refused():
    def needs(much, more=1):
        return much, more

    with pytest.raises(ValueError, match="^setting much of needs has no default: give it one$"):
        fields.schema_of(needs)


def test_defaults_are_a_config_of_their_own_each_time_in_which_none_keeps_its_type():
    schema = fields.schema_of(Outer)
    config = fields.defaults(schema)
    assert config.to_dict() == {"epochs": 5, "form": "round", "start": None, "inner": {"rate": 0.1}}
    fields.check_config(schema, config)
    config.start, config.inner.rate = 0.5, 0.2
    assert fields.defaults(schema).start is None and fields.defaults(schema).inner.rate == 0.1
    with pytest.raises(TypeError):
        fields.defaults(schema).start = "late"
    assert fields.defaults(fields.schema_of(lambda anything=None: anything)).to_dict() == {"anything": None}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "config.epochs=0 must be from 1 to 3.4e+38"),
        ({"epochs": 2.5}, "config.epochs=2.5 must be of type int, as 5 is"),
        ({"form": "oval"}, "config.form='oval' must be one of round, square"),
        ({"start": 1.0}, "config.start=1.0 must be at least 0 and below 1"),
        ({"start": "late"}, "config.start='late' must be of type float or None, as None is"),
        ({"inner": {"rate": 0.0}}, "config.inner.rate=0.0 must be above 0 and at most 3.4e+38"),
        ({"inner": {}}, "config.inner.rate is missing; its default is 0.1"),
        (
            {"inner": {"rate": 0.1, "momentum": 0.9}},
            "config.inner.momentum is not a field of this config; the fields are epochs, form, start, inner.rate",
        ),
        ({"inner": 3}, "config.inner=3 must be a section with the fields rate"),
    ],
)
def test_a_config_is_refused_in_one_sentence_with_the_field_its_value_and_what_is_allowed(change, message):
    schema = fields.schema_of(Outer)
    config = ConfigDict(fields.defaults(schema).to_dict() | change)
    with refused(message):
        fields.check_config(schema, config)


def test_a_checked_function_refuses_arguments_that_its_annotations_do_not_allow():
    checked = fields.checked(function)
    assert checked() == (0.1, None, 7) and checked(1, "b", free=[]) == (1, "b", [])
    assert checked.__name__ == "function"
    for arguments, message in (
        ({"rate": 0}, "rate=0 must be above 0 and at most 3.4e+38"),
        ({"rate": "fast"}, "rate='fast' must be of type float, as 0.1 is"),
        ({"shape": "c"}, "shape='c' must be one of a, b"),
    ):
        with refused(message):
            checked(**arguments)
    with pytest.raises(TypeError, match=r"^function\(\) got an unexpected keyword argument 'speed'$"):
        checked(speed=1)


@fields.checked
@dataclasses.dataclass(frozen=True)
class Part:
    much: Annotated[float, above(0)]
    inner: Inner = Inner()
    rate: Annotated[Schedule, above(0)] = Schedule(1.0, 0.5)
    after: Callable | None = None


def test_a_checked_class_refuses_arguments_when_a_value_is_made():
    assert Part(1) == Part(1) and hash(Part(1)) and dataclasses.replace(Part(1), much=0.5).much == 0.5
    assert Part(np.float32(0.5), rate=math.exp, after=print).rate is math.exp
    assert jax.vmap(lambda much: Part(much, rate=Schedule(much, 1.0)).much)(jnp.zeros(2)).tolist() == [0.0, 0.0]
    for arguments, message in (
        ({"much": 0}, "much=0 must be above 0 and at most 3.4e+38"),
        ({"much": np.float32(0)}, "much=0.0 must be above 0 and at most 3.4e+38"),
        ({"much": "a"}, "much='a' must be of type float"),
        ({"inner": 0.1}, "inner=0.1 must be of type Inner, as Inner(rate=0.1) is"),
        ({"rate": 0.1}, "rate=0.1 must be of type Schedule, as Schedule(start=1.0, end=0.5) is"),
        ({"rate": Schedule(1.0, 0.0)}, "rate.end=0.0 must be above 0 and at most 3.4e+38"),
        ({"after": 1}, "after=1 must be of type function or None, as None is"),
        ({"after": int}, "after=<class 'int'> must be of type function or None, as None is; did you mean int(...)?"),
    ):
        with refused(message):
            Part(**{"much": 1} | arguments)
    with pytest.raises(TypeError, match=r"^Part.__init__\(\) missing a required argument: 'much'$"):
        Part()


def test_each_of_several_arguments_is_checked():
    @fields.checked
    def several(*names: Literal["a", "b"]):
        return names

    assert several("a", "b") == ("a", "b")
    with refused("names='c' must be one of a, b"):
        several("a", "c")
