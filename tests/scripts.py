"""Runs the scripts of experiments/ in the process of a test."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "experiments"))


def run(name, *arguments):
    """As `python experiments/NAME.py ARGUMENTS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(name).main()
