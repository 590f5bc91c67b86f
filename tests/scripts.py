"""Runs the scripts of experiments/ in the process of a test."""

import importlib
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from prdarts_jax.run import architecture, reporting, run_log

ROOT = Path(__file__).parents[1]

# Where a script that a test starts finds what it imports: this copy of the package, and modules beside this one.
SCRIPT_PATH = {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}

# `--set` of a comparison: a search that takes a moment.
TINY = "dataset=digits,image_size=4,num_examples=64,epochs=2,batch_size=16,steps_per_call=2,random_search.samples=5"


def load(name):
    """The module of a script, which imports others beside it."""
    if str(ROOT / "experiments") not in sys.path:
        sys.path.insert(0, str(ROOT / "experiments"))
    return importlib.import_module(name)


def run(name, *arguments):
    """As `python experiments/NAME.py ARGUMENTS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        load(name).main()


def rows(workdir):
    """Of table.md, cell by cell."""
    return [line.strip("| ").split(" | ") for line in (workdir / "table.md").read_text().splitlines()[2:]]


def write_run(folder, *records):
    """What a search leaves in its folder."""
    folder.mkdir(parents=True)
    reporting.write_bytes(folder / run_log.METRICS, b"".join(map(reporting.json_bytes, records)))
    reporting.write_json(folder / "doubts.json", ["too short"])
    (folder / "architecture").mkdir()
    for record in records:
        architecture.save(folder, record["epoch"], {"normal": np.full((6, 5), record["epoch"] / 2)}, {})


def write_table(path, dataset):
    """A table of NAS-Bench-201's cells, made up, for a data set."""
    cells = (f"[{', '.join(map(str, cell))}],{sum(cell)}" for cell in itertools.product(range(5), repeat=6))
    path.write_text("\n".join([f"dataset {dataset}", *cells]))
    return path
