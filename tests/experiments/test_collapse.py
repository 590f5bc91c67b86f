"""The demonstration of DARTS's collapse, on the digits with a stand-in for the supernet."""

import itertools

import pytest
import scripts
from table import make_table

from prdarts_jax.run import problems

collapse = scripts.load("collapse")

TINY = "dataset=digits,image_size=4,num_examples=64,epochs=2,batch_size=16,steps_per_call=2"


def test_both_searches_are_shown_and_run_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(problems, "make_supernet", make_table)
    accuracies = tmp_path / "accuracies.txt"
    cells = (f"[{', '.join(map(str, cell))}],{sum(cell)}" for cell in itertools.product(range(5), repeat=6))
    accuracies.write_text("\n".join(["dataset digits", *cells]))
    arguments = [f"--workdir={tmp_path / 'run'}", f"--set={TINY}"]
    scripts.run("collapse", *arguments)
    head, _, *rows = (tmp_path / "run/table.md").read_text().splitlines()
    assert [row.split()[1] for row in rows] == [f"`{name}`" for name in collapse.METHODS]
    assert (tmp_path / "run/skips.png").exists() and "accuracy" not in head
    monkeypatch.setattr(problems, "make_supernet", None)  # the searches are finished
    scripts.run("collapse", *arguments, f"--table={accuracies}")
    lines = (tmp_path / "run/table.md").read_text().splitlines()
    assert [line.rpartition("|")[0].rpartition("|")[0] + "|" for line in lines] == [head, "|---|---|", *rows]


def test_what_cannot_be_searched_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="^error: config.speed is not a field"):
        scripts.run("collapse", f"--workdir={tmp_path}", "--set=speed=1")
