"""The notebook runs from top to bottom, on the CPU and at a tiny size."""

from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "experiments/colab_tpu.ipynb"
TINY = """
SEARCH = {"epochs": 1, "channels": 2, "cells": 1, "num_examples": 256}
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
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert any("image/png" in data for data in results)
    assert "val_loss" in results[-1]["text/plain"]
    assert (tmp_path / "run/training/result.json").exists()
