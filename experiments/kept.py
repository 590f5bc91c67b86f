"""Results in files that are small enough to be committed, and enough for every table and figure.

In a folder of results NAME.jsonl is of a search. The first line has its settings, the found cell (null if the search
diverged), its doubts and its logits; files of an earlier version lack these two. Each other line is the record of an
epoch. evaluation/NAME.json has the settings of a cell's trainings from scratch, the cell, and its accuracy. What is
there is not run again, even if the folder of its run is gone. Several processes may add different results to one
folder.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax.run import checkpoints, compare, reporting, settings
from prdarts_jax.run.evaluate import Row
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes, own

Records = list[dict[str, Any]]
Head = dict[str, Any]  # {'settings': ..., 'genotype': ..., 'doubts': ..., 'logits': ...}


class Search(NamedTuple):
    """What is kept of a search.

    Attributes:
      records: of the epochs of all its stages.
      genotype: the cell that it found; None if it diverged.
      doubts: the reasons that it gives not to trust this cell; None if they were not kept.
      logits: at the end of the last epoch, {cell type: [edges, ops]}; None if they were not kept.
    """

    records: Records
    genotype: genotypes.AnyGenotype | None
    doubts: list[str] | None = None
    logits: dict[str, list[list[float]]] | None = None


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """What decides the result of a search or training, by the fields of its config: neither where data and tables are,
    nor what follows a search, nor the settings of other methods; of a method or a space of one's own its text."""
    fields = config.to_dict()
    method = fields.get("method", "")
    network = fields.pop("evaluation", {})
    if fields.get("cost", {}).get("target"):  # it limits the cost of this network
        fields["evaluation"] = {name: network[name] for name in ("channels", "cells")}
    for name in ("data_dir", "table", "genotype", *methods.NAMED):
        if name != method:
            fields.pop(name, None)
    for name in ("method", "space"):
        if source := own.source_of(fields.get(name, "")):
            fields[name] = source.decode()
    return json.loads(reporting.json_bytes(flatten_dict(fields, sep=".")))


def _check(path: Path, there: Mapping[str, Any], config: ConfigDict, **more: Any) -> None:
    """Refuses results of other settings; what is newer than they are counts as having had its default.

    Raises:
      ValueError: naming each setting that differs with both values.
    """
    default = settings.search() if "method" in config else settings.training()
    if "method" in config:
        default.method = config.method
    if differing := checkpoints.differences(settings_of(default) | there, settings_of(config) | more):
        raise ValueError(f"{path} is of other settings: {differing}; use another --results or the old values")


def read(path: Path) -> tuple[Head, Records]:
    """The first line of the file of a search, and the records.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        head, *records = map(json.loads, path.read_text().splitlines())
        if not head.keys() >= {"settings", "genotype"} or not all("epoch" in record for record in records):
            raise ValueError("not the lines of a search")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return head, records


def read_search(path: Path, config: ConfigDict) -> Search | None:
    """What is kept of a search; None if there is no such file.

    Raises:
      ValueError: the file is of other settings, or damaged.
    """
    if not path.exists():
        return None
    head, records = read(path)
    _check(path, head["settings"], config)
    genotype = head["genotype"] and genotypes.from_json(json.dumps(head["genotype"]))
    return Search(records, genotype, head.get("doubts"), head.get("logits"))


def write_search(path: Path, config: ConfigDict, search: Search) -> None:
    """Writes what `read_search` reads."""
    head = {"settings": settings_of(config), "genotype": search.genotype and dataclasses.asdict(search.genotype)}
    head |= {"doubts": search.doubts, "logits": search.logits}
    reporting.write_bytes(path, b"".join(map(reporting.json_bytes, [head, *search.records])))


def evaluate(
    cells: Mapping[str, genotypes.AnyGenotype],
    config: ConfigDict,
    workdir: Path,
    results: Path,
) -> dict[str, Row]:
    """Trains cells as the config of a search says in its section `evaluation`.

    Returns:
      The rows of `pdx.evaluate`, in the order of the cells and without ranks; what `results` has is taken from there.

    Raises:
      ValueError, OSError, loop.Stopped: as `pdx.evaluate`; ValueError also if a file in `results` is of other settings
        or of another cell.
    """
    space, trainings, training = settings.space_of(config), config.evaluation.trainings, compare.training_config(config)
    more = {"trainings": trainings, "ops": list(space.ops)}
    rows: dict[str, Row] = {}
    paths = {name: results / "evaluation" / f"{name}.json" for name in cells}
    for name, cell in cells.items():
        if paths[name].exists():
            there = reporting.read_json(paths[name])
            _check(paths[name], there["settings"], training, **more)
            if there["genotype"] != json.loads(genotypes.to_json(cell)):
                raise ValueError(f"{paths[name]} is of another cell: use another --results")
            rows[name] = there["row"]
    if left := {name: cell for name, cell in cells.items() if name not in rows}:
        for name, row in pdx.evaluate(left, training, workdir, space=space, trainings=trainings).items():
            rows[name] = {field: value for field, value in row.items() if field != "rank"}  # among the cells left
            value = {"settings": settings_of(training) | more, "genotype": dataclasses.asdict(left[name])}
            reporting.write_json(paths[name], value | {"row": rows[name]})
    return {name: rows[name] for name in cells}
