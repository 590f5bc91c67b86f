"""The demonstration of DARTS's collapse, on the digits with a stand-in for the supernet."""

import itertools

import pytest
import scripts
from table import make_table

from prdarts_jax.run import problems

collapse = scripts.load("collapse")


@pytest.fixture
def accuracies(tmp_path):
    """Writes a table of NAS-Bench-201's cells, made up, for a data set."""

    def write(dataset):
        path = tmp_path / f"{dataset}.txt"
        cells = (f"[{', '.join(map(str, cell))}],{sum(cell)}" for cell in itertools.product(range(5), repeat=6))
        path.write_text("\n".join([f"dataset {dataset}", *cells]))
        return path

    return write


def test_both_searches_are_shown_and_run_once(accuracies, tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr(problems, "make_supernet", make_table)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--set={scripts.TINY}"]
    scripts.run("collapse", *arguments)
    head, _, *rows = (tmp_path / "run/table.md").read_text().splitlines()
    assert [row.split()[1] for row in rows] == [f"`{name}`" for name in collapse.METHODS]
    assert (tmp_path / "run/skips.png").exists() and "accuracy" not in head
    monkeypatch.setattr(problems, "make_supernet", None)  # the searches are finished
    scripts.run("collapse", *arguments, f"--table={accuracies('digits')}")
    lines = (tmp_path / "run/table.md").read_text().splitlines()
    assert [line.rsplit("|", 2)[0] + "|" for line in lines] == [head, "|---|---|", *rows]


def test_what_cannot_be_searched_is_refused_in_one_sentence(accuracies, tmp_path):
    with pytest.raises(SystemExit, match="^error: config.speed is not a field"):
        scripts.run("collapse", f"--workdir={tmp_path}", "--set=speed=1")
    with pytest.raises(SystemExit, match="^error: config.table=.* is of cifar10, but must be of the data set"):
        scripts.run("collapse", f"--workdir={tmp_path}", f"--set={scripts.TINY}", f"--table={accuracies('cifar10')}")
