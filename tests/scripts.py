"""Runs the scripts of experiments/ in the process of a test."""

import importlib
import os
import sys
from pathlib import Path

import pytest

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
