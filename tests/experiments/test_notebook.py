"""The notebook runs from top to bottom on the CPU, at a tiny size; the supernet of its first search is a stand-in."""

from pathlib import Path

import jax
import pytest
from conftest import SCRIPT_PATH

PATH = Path(__file__).parents[2] / "experiments/colab_tpu.ipynb"
TINY = """
from prdarts_jax.run import problems
from table import make_table
problems.make_supernet = make_table
SEARCH = {"space": "s2", "epochs": 1, "channels": 2, "cells": 1, "num_examples": 256}
TRAINING = {"epochs": 1, "channels": 2, "cells": 1}
WORKDIR = "run"
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    tags = {cell.metadata.get("tags", [""])[0]: cell for cell in notebook.cells if cell.cell_type == "code"}
    tags["install"].source = ""  # it is installed here
    tags["parameters"].source = TINY
    monkeypatch.setenv("PYTHONPATH", SCRIPT_PATH["PYTHONPATH"])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # half of the compiler's time
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert any("image/png" in data for data in results)
    assert "val_loss" in results[-1]["text/plain"]
    assert (tmp_path / "run/training/result.json").exists()
