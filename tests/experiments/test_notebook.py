"""The notebook runs from top to bottom on the CPU, at a tiny size; the supernet of its first search is a stand-in."""

import html
import json
import re
from pathlib import Path

import jax
import pytest
from scripts import SCRIPT_PATH

PATH = Path(__file__).parents[2] / "experiments/colab_tpu.ipynb"
ROOT = PATH.parents[1]
TINY = """
from prdarts_jax.run import problems
from table import make_table
problems.make_supernet = make_table
CHANGED = {"epochs": 1, "seeds": 2, "num_examples": 128, "evaluation.epochs": 1, "evaluation.random_cells": 2}
CHANGED |= {"evaluation.channels": 2, "evaluation.test_on_rest": False}
TRAINING = {"epochs": 1, "channels": 2, "cells": 1}
WORKDIR = Path("run")
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    tags = {cell.metadata.get("tags", [""])[0]: cell for cell in notebook.cells if cell.cell_type == "code"}
    install, count = re.subn("^%pip install --quiet", "!echo", tags["install"].source, flags=re.MULTILINE)
    assert count == 1
    tags["install"].source = install.replace('PLATFORM = ""', 'PLATFORM = "cpu"')
    tags["parameters"].source = TINY
    (step,) = (cell for cell in notebook.cells if "pdx.Supernet(" in cell.source)
    small = 'pdx.SearchSpace("small", ("skip_connect", "dil_conv_3x3"), nodes=3)'
    step.source = step.source.replace("pdx.Supernet(", f"pdx.Supernet({small}, ")
    (tmp_path / "prdarts_jax").symlink_to(ROOT)
    monkeypatch.setenv("PYTHONPATH", SCRIPT_PATH["PYTHONPATH"])
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert tags["install"].outputs[-1].text.strip() == str(ROOT)
    results = [cell.outputs[-1].get("data", {}) for cell in notebook.cells if cell.get("outputs")]
    (table,) = (data["text/markdown"] for data in results if "text/markdown" in data)
    assert table == (tmp_path / "run/digits/comparison.md").read_text()
    (page,) = (data["text/html"] for data in results if "text/html" in data)
    assert html.escape((tmp_path / "run/digits/report.html").read_text()) in page
    assert any("image/png" in data for data in results)
    assert json.loads((tmp_path / "run/own_method/config.json").read_text())["method"] == "own_method.py:annealed"
    assert json.loads((tmp_path / "run/stripes/classifier.json").read_text())["classes"] == ["across", "down"]
    assert "val_loss" in results[-1]["text/plain"]


def test_the_notebook_says_what_to_do_without_a_checkout(tmp_path, monkeypatch):
    cells = json.loads(PATH.read_text())["cells"]
    (install,) = ("".join(cell["source"]) for cell in cells if cell["metadata"].get("tags") == ["install"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="set REPOSITORY above, or put a checkout named prdarts_jax beside"):
        exec(install.replace("%pip", "#"), {})
