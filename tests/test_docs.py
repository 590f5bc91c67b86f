"""README and the pages of docs/: their code runs, and what they say of methods and exit codes is so."""

import contextlib
import doctest
import functools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared import without_pictures

from prdarts_jax import command_line
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT / "docs")): path.read_text() for path in sorted(ROOT.glob("docs/**/*.md"))}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
AFTER = {"how-to/pytorch.md": "how-to/own-data.md"}  # pages that use what another has left in the folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs the code of a page, block after block, all pages in one folder and each once."""
    folder = tmp_path_factory.mktemp("docs")

    @functools.cache
    def run_page(name):
        scope = {"__name__": "page"}
        with contextlib.chdir(folder):
            for block in re.findall(r"^```python\n(.*?)^```", PAGES[name], re.DOTALL | re.MULTILINE):
                if ">>>" in block:
                    examples = doctest.DocTestParser().get_doctest(block, scope, name, name, 0)
                    assert doctest.DocTestRunner().run(examples).failed == 0
                else:
                    exec(compile(block, name, "exec"), scope)

    return run_page


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(name, run, own_registry):
    if name in AFTER:
        run(AFTER[name])
    run(name)


def test_the_code_of_the_readme_runs(tmp_path):
    as_it_is = '"channels": 8, "cells": 1, "epochs": 20'
    smaller = '"channels": 2, "cells": 1, "epochs": 1, "num_examples": 64'
    text = (ROOT / "README.md").read_text()
    assert as_it_is in text
    search, method = re.findall(r"^```python\n(.*?)^```", text.replace(as_it_is, smaller), re.DOTALL | re.MULTILINE)
    scope = {}
    with contextlib.chdir(tmp_path), without_pictures():
        exec(compile(search, "README.md", "exec"), scope)
    assert scope["rows"] == json.loads((tmp_path / "runs/cells/results.json").read_text())
    assert scope["genotype"] == genotypes.load(tmp_path / "runs/first/genotype.json")
    scope = {"__name__": "my_methods"}  # a file of its own
    exec(compile(method, "README.md", "exec"), scope)
    assert scope["sharp_darts"]().terms == (scope["entropy"],)
    value, metrics = scope["entropy"](None, {"normal": np.full((6, 5), 0.2)}, 0)  # a uniform edge has the entropy ln 5
    assert np.allclose([value, metrics["l_entropy"]], [0.01 * np.log(5), np.log(5)])


def test_every_method_has_its_settings_and_measurements():
    for insert in ("method", "measured"):
        shown = " ".join(re.findall(rf"^<!-- {insert}: (.+) -->$", "\n".join(PAGES.values()), re.MULTILINE))
        assert sorted(shown.split()) == sorted(methods.NAMED)
    rows = re.findall(r"^\| .* \| `(\w+)` \|", PAGES["methods/index.md"], re.MULTILINE)
    assert rows == list(methods.NAMED)


def test_the_files_that_the_table_of_libraries_names_are_there():
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", PAGES["methods/libraries.md"], re.MULTILINE)
    named = [re.findall(r"`([\w/.]+)`", row) for row in rows]
    assert len(rows) > 30 and all(names or row in ("–", "here", "---") for row, names in zip(rows, named, strict=True))
    for first, *others in filter(None, named):
        for name in (first, *(o if "/" in o else f"{Path(first).parent}/{o}" for o in others)):
            assert any((ROOT / room / name).exists() for room in ("", "prdarts_jax", "prdarts_jax/search")), name


def test_the_table_of_exit_codes_is_that_of_the_command():
    codes = re.findall(r"^\| (\d+) \| ", PAGES["how-to/resume.md"], re.MULTILINE)
    assert codes == ["0", "1", str(command_line.DIVERGED), str(128 + signal.SIGINT), str(128 + signal.SIGTERM)]


def test_the_documentation_is_built_without_warnings(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(module, reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
