"""Results in files that are small enough to be committed, and enough for every table and figure.

In a folder of results NAME.jsonl is of a search: the first line has its settings and the found cell, each other line is
the record of an epoch. evaluation.json has the settings of trainings from scratch, and of each cell what `pdx.evaluate`
returns. What is there is not run again, though the folder of its run be gone.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax.run import reporting
from prdarts_jax.run.evaluate import Row
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes

Records = list[dict[str, Any]]
Settings = Mapping[str, Any]


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """What decides the result of a search or training: not where its data are, nor what follows it, nor the settings of
    other methods; of a method in a file its text."""
    fields = config.to_dict()
    method = fields.get("method", "")
    for name in ("data_dir", "table", "evaluation", "genotype", *methods.NAMED):
        if name != method:
            fields.pop(name, None)
    if file := methods.file_of(method):
        fields["method"] = file.read_text()
    return json.loads(reporting.json_bytes(flatten_dict(fields, sep=".")))


def _check(path: Path, there: Settings, settings: Settings) -> None:
    """Refuses results of other settings; a setting that only one of both has is newer or older than the other.

    Raises:
      ValueError: naming each setting that differs with both values.
    """
    both = {name: (there[name], value) for name, value in settings.items() if name in there}
    differing = [f"{name}={old!r} there and {new!r} here" for name, (old, new) in both.items() if old != new]
    if differing:
        raise ValueError(
            f"{path} is of other settings: {', '.join(differing)}; use another --results or the old values"
        )


def read_search(path: Path, settings: Settings) -> tuple[Records, genotypes.AnyGenotype] | None:
    """The records and the cell of a search, or None if there is no such file.

    Raises:
      ValueError: they are of other settings.
    """
    if not path.exists():
        return None
    head, *records = map(json.loads, path.read_text().splitlines())
    _check(path, head["settings"], settings)
    return records, genotypes.from_json(json.dumps(head["genotype"]))


def write_search(path: Path, settings: Settings, records: Records, genotype: genotypes.AnyGenotype) -> None:
    """Writes what `read_search` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"settings": settings, "genotype": dataclasses.asdict(genotype)}
    reporting.write_bytes(path, b"".join(map(reporting.json_bytes, [head, *records])))


def evaluate(
    cells: Mapping[str, genotypes.AnyGenotype],
    config: ConfigDict,
    workdir: Path,
    results: Path,
    *,
    space: pdx.SearchSpace,
    trainings: int = 1,
) -> dict[str, Row]:
    """What `pdx.evaluate` returns, in the order of the cells and without ranks; what `results` has is taken from there.

    Raises:
      ValueError, OSError, loop.Stopped: as `pdx.evaluate`; ValueError also if the file in `results` is of other
        settings, or has another cell of the same name.
    """
    path = results / "evaluation.json"
    settings = settings_of(config) | {"trainings": trainings, "ops": list(space.ops)}
    there = reporting.read_json(path) if path.exists() else {"settings": settings, "cells": {}}
    _check(path, there["settings"], settings)
    known, left = there["cells"], {}
    for name, cell in cells.items():
        if name not in known:
            left[name] = cell
        elif known[name]["genotype"] != json.loads(genotypes.to_json(cell)):
            raise ValueError(f"{path} has another cell {name}: use another --results")
    if left:
        for name, row in pdx.evaluate(left, config, workdir, space=space, trainings=trainings).items():
            del row["rank"]  # among these cells only
            known[name] = {"genotype": dataclasses.asdict(left[name])} | row
        path.parent.mkdir(parents=True, exist_ok=True)
        reporting.write_json(path, there)
    return {name: known[name] for name in cells}
