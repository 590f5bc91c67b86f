"""Every block of Python code in docs/ runs: those of a page one after another, in one folder for all pages."""

import contextlib
import doctest
import functools
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
AFTER = {"how-to/pytorch.md": "how-to/own-data.md"}  # pages that use what another has left in the folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a page, once."""
    folder = tmp_path_factory.mktemp("docs")

    @functools.cache
    def run_page(name):
        scope = {"__name__": "page"}
        with contextlib.chdir(folder):
            for block in re.findall(r"^```python\n(.*?)^```", PAGES[name], re.DOTALL | re.MULTILINE):
                if ">>>" in block:
                    test = doctest.DocTestParser().get_doctest(block, scope, name, name, 0)
                    assert doctest.DocTestRunner().run(test).failed == 0
                else:
                    exec(compile(block, name, "exec"), scope)

    return run_page


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(name, run, compiled_quickly, own_registry):
    if name in AFTER:
        run(AFTER[name])
    run(name)
