"""The demonstration of DARTS's collapse, on the digits with a stand-in for the supernet."""

import pytest
import scripts
from table import make_table

from prdarts_jax.run import problems

collapse = scripts.load("collapse")


def test_both_searches_are_shown_and_run_once(tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr(problems, "make_supernet", make_table)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--set={scripts.TINY}"]
    scripts.run("collapse", *arguments)
    head, _, *rows = (tmp_path / "run/table.md").read_text().splitlines()
    assert [row.split()[1] for row in rows] == [f"`{name}`" for name in collapse.METHODS]
    assert (tmp_path / "run/skips.png").exists() and "accuracy" not in head
    monkeypatch.setattr(problems, "make_supernet", None)  # the searches are finished
    scripts.run("collapse", *arguments, f"--table={scripts.write_table(tmp_path / 'table.txt', 'digits')}")
    lines = (tmp_path / "run/table.md").read_text().splitlines()
    assert [line.rsplit("|", 2)[0] + "|" for line in lines] == [head, "|---|---|", *rows]


def test_what_cannot_be_searched_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="^error: config.speed is not a field"):
        scripts.run("collapse", f"--workdir={tmp_path}", "--set=speed=1")
    table = scripts.write_table(tmp_path / "table.txt", "cifar10")
    with pytest.raises(SystemExit, match="^error: accuracy table .* is of cifar10, but must be of the data set"):
        scripts.run("collapse", f"--workdir={tmp_path}", f"--set={scripts.TINY}", f"--table={table}")
