"""Claims and their predictions, read from a file.

A file of claims is a TOML file with a table for each claim; `claims.toml` beside this module has those of the papers:

    [my_claim]
    statement = "Wider networks have larger Gram matrices."
    measure = "my_measures.py:trace"        # (key, sizes as keyword arguments) -> {name: f[draws]}
    for_all = {activation = ["softplus"]}   # a prediction must hold in each of these cases
    replicates = {width = [16, 32], seed = [1, 2, 3, 4, 5]}
    sizes = {draws = 20}
    quick = {draws = 5}                     # what a quick check has instead

With `like = "other_claim"` in place of these five, they are those of another claim, and so are the draws. Predictions:

    [my_claim.predictions.large]
    says = "the trace is above 1 on average"
    role = "claim"                          # "context" decides nothing
    of = ["trace"]                          # names of what is measured: the arguments of the test
    test = "mean_above"                     # of `findings.TESTS`; its keyword arguments follow
    threshold = 1.0
"""

import dataclasses
import inspect
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.fields import SEED, from_to
from prdarts_jax.spaces.own import object_of
from prdarts_jax.theory.findings import LEVEL, TESTS

PAPERS = Path(__file__).with_name("claims.toml")

Role = Literal["claim", "context"]
Draws = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A sentence that is either true or false, and how it is tested.

    Attributes:
      says: the sentence.
      role: the predictions of the role 'claim' decide the claim's verdict; those of the role 'context' do not.
      of: names of the measured arrays that are given to the test.
      test: a key of `findings.TESTS`.
      arguments: keyword arguments of the test.
    """

    says: str
    role: Role
    of: tuple[str, ...]
    test: str
    arguments: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement, the measurement, and the predictions.

    Attributes:
      name: of its table.
      statement: with its place in the paper.
      measure: (key, sizes as keyword arguments) -> {name: f[draws]}.
      for_all: {size: values}: the predictions must hold for each combination, a case.
      replicates: {size or 'seed': values}: the check is repeated with each combination.
      sizes: the other sizes.
      predictions: by name; at least one has the role 'claim'.
    """

    name: str
    statement: str
    measure: Callable[..., Draws]
    for_all: Mapping[str, tuple]
    replicates: Mapping[str, tuple]
    sizes: Mapping[str, Any]
    predictions: Mapping[str, Prediction]

    def with_sizes(self, given: Mapping[str, Any]) -> "Claim":
        """The claim with other values of sizes: a list where there are several, else one value.

        Raises:
          ValueError: there is no such size, its value is of another type, or it is a whole number below 1 although the
            claim's own values are positive.
        """
        known = {**self.for_all, **self.replicates, **self.sizes}
        for name, value in given.items():
            if name not in known:
                sizes = refusals.listed(name, known)
                raise ValueError(f"size {refusals.shown(name)} of claim {self.name} must be one of {sizes}")
            several = isinstance(known[name], tuple)
            defaults, values = (known[name], _listed(value)) if several else ((known[name],), (value,))
            wanted, allowed = type(defaults[0]), SEED if name == "seed" else from_to(1, 10**9)
            if {type(_frozen(one)) for one in values} != {wanted}:
                what = f"a list of {wanted.__name__}" if several else f"of type {wanted.__name__}"
            elif wanted is int and all(map(allowed.allows, defaults)) and not all(map(allowed.allows, values)):
                what = allowed.text()
            else:
                continue
            raise ValueError(f"{name}={refusals.shown(value)} of claim {self.name} must be {what}")
        fields: dict[str, Any] = {
            field: {name: _frozen(given.get(name, value)) for name, value in getattr(self, field).items()}
            for field in ("for_all", "replicates", "sizes")
        }
        return dataclasses.replace(self, **fields)


def _listed(value):
    return value if isinstance(value, list | tuple) else ()


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def read(path: str | Path = PAPERS, thorough: bool = False) -> dict[str, Claim]:
    """The claims of a file by name, with the sizes of a thorough or a quick check.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no TOML file, or the message names the claim and its field that is wrong.
    """
    file = refusals.file("file of claims", path, most=2**20)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML file: {error}") from None
    tables.pop("date", None)  # for readers
    if not tables:
        raise ValueError(f"{file} must have a table for each claim")
    return {name: _claim(name, table, tables, file, thorough) for name, table in tables.items()}


def _claim(name, table, tables, file, thorough):
    where = f"claim {refusals.shown(name)} of {file}"
    if isinstance(table, dict) and "like" in table:
        other = tables.get(table["like"]) if isinstance(table["like"], str) else None
        if not isinstance(other, dict):
            raise ValueError(f"like={refusals.shown(table['like'])} of {where} must be the name of another claim")
        setup = {field: other[field] for field in ("measure", "replicates", *_SIZES) if field in other}
        table = setup | {field: value for field, value in table.items() if field != "like"}
    _check(table, where, {"statement": str, "measure": str, "replicates": dict, "predictions": dict}, _SIZES)
    place, _, function = table["measure"].rpartition(":")
    beside = file.parent / place if place.endswith(".py") else place
    measure = object_of("measure", f"{beside}:{function}")
    if not callable(measure):
        raise ValueError(f"measure={refusals.shown(table['measure'])} must be a function")
    fields = {
        field: {size: _frozen(value) for size, value in table.get(field, {}).items()}
        for field in ("for_all", "replicates", "sizes")
    }
    for size, values in {**fields["for_all"], **fields["replicates"]}.items():
        if not isinstance(values, tuple) or not values or len({type(value) for value in values}) > 1:
            raise ValueError(f"{size}={refusals.shown(values)} of {where} must be a list of values of one type")
    if type(fields["replicates"].get("seed", [None])[0]) is not int:
        raise ValueError(f"replicates of {where} must have seed, a list of whole numbers")
    takes = {size for size, of in inspect.signature(measure).parameters.items() if of.kind is of.KEYWORD_ONLY}
    gives = {size for field in fields.values() for size in field} - {"seed"}
    if takes != gives:
        differ = ", ".join(sorted(takes ^ gives))
        raise ValueError(f"{where} must give the sizes that {table['measure']} takes, but {differ} differ")
    found = {
        key: _prediction(f"prediction {refusals.shown(key)} of {where}", of) for key, of in table["predictions"].items()
    }
    if not any(prediction.role == "claim" for prediction in found.values()):
        raise ValueError(f"predictions of {where} must have one whose role is 'claim'")
    claim = Claim(name=name, statement=table["statement"], measure=measure, predictions=found, **fields)
    return claim if thorough else claim.with_sizes(table.get("quick", {}))


_SIZES = {"for_all": dict, "sizes": dict, "quick": dict}
_KINDS = {str: "a text", list: "a list", dict: "a table", (int, float): "a number"}


def _check(table, where, needed, optional):
    """Refuses a table without one of the needed fields, or with one that is unknown or of another type."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table")
    known = needed | optional
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{refusals.shown(name)} of {where} must be one of {refusals.listed(name, known)}")
        if not isinstance(value, known[name]):
            raise ValueError(f"{name}={refusals.shown(value)} of {where} must be {_KINDS[known[name]]}")
    for name in needed:
        if name not in table:
            raise ValueError(f"{where} must have {name}, {_KINDS[needed[name]]}")


def _prediction(where, table):
    fields = {"says": str, "role": str, "of": list, "test": str}
    given = table if isinstance(table, dict) else {}
    arguments = {name: value for name, value in given.items() if name not in fields}
    _check(table, where, fields, dict.fromkeys(arguments, (int, float)))
    for name, allowed in (("role", get_args(Role)), ("test", TESTS)):
        if table[name] not in allowed:
            raise ValueError(f"{name}={refusals.shown(table[name])} of {where} must be one of {', '.join(allowed)}")
    try:
        inspect.signature(TESTS[table["test"]]).bind(*table["of"], level=LEVEL, **arguments)
    except TypeError as error:
        raise ValueError(f"{where} does not fit its test {table['test']}: {error}") from None
    return Prediction(table["says"], table["role"], tuple(table["of"]), table["test"], arguments)
