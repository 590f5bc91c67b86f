"""When a search turns, and what the rule of R-DARTS says."""

import pytest
import scripts

from prdarts_jax.run import settings
from prdarts_jax.search.curvature import EarlyStopping

turning_points = scripts.load("turning_points")


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [
        ([90, 93, 91.9, 91, 54], 2),
        ([90, 93, 91, 92.1, 54], 4),  # comes back to less than a point below the best
        ([54, 54, 90, 93], None),
        ([93, 92.5, 92.1], None),
        ([90, 93, 93, 91.9], 3),
        ([93], None),
    ],
)
def test_a_search_turns_where_no_later_cell_is_near_the_best(accuracies, epoch):
    assert turning_points.turn(accuracies) == epoch


def test_the_rule_stops_a_search_the_first_time_that_it_holds():
    """The means over two epochs: 1, 1, 1 and 2."""
    rule = EarlyStopping(window=2, ratio=0.75, start=0)
    assert turning_points.stop([1, -1, 1, 1, 1, 3, 9], rule) == (5, 3)
    assert turning_points.stop([1, -1, 1, 1, 1, 1], rule) is None


def test_a_row_for_each_search(tmp_path, capsys):
    def write(name, accuracies, eigenvalues):
        others = {"epoch": 0, "entropy": {"normal": 1.609438 / 2}, "alignment_val": 0.25}
        records = [
            {"benchmark": {"accuracy": a}, "eigenvalue": e} | others
            for a, e in zip(accuracies, eigenvalues, strict=True)
        ]
        config = settings.search()
        config.update({"space": "nas_bench_201", "hessian": True})
        scripts.load("kept").write_search(
            tmp_path / f"{name}.jsonl", config, scripts.load("kept").Search(records, None)
        )

    write("darts_seed_0", [90, 93, *range(60, 75)], [1] * 9 + [9] * 3 + [99] * 5)
    write("gdas_seed_1", [50, 60, 70], [1, 2, 3])
    write("random_search_seed_0", [50, 60], [0, 0])
    scripts.run("turning_points", f"--results={tmp_path}")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| `darts_seed_0` | 93.00 (2) | 3 | 74.00 | 62.00 (10) | 68.00 (16) | 50.0 | 0.250 |",
        "| `gdas_seed_1` | 70.00 (3) | never | 70.00 | never | never | 50.0 | 0.250 |",
        "",
    ]


def test_searches_without_what_is_needed_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="^error: --results must be a folder with files"):
        scripts.run("turning_points", f"--results={tmp_path}")
    (tmp_path / "a.jsonl").write_text("<<<\n")
    with pytest.raises(SystemExit, match="^error: .*a.jsonl is damaged"):
        scripts.run("turning_points", f"--results={tmp_path}")
    scripts.load("kept").write_search(
        tmp_path / "a.jsonl", settings.search(), scripts.load("kept").Search([{"epoch": 0}], None)
    )
    with pytest.raises(SystemExit, match="^error: .*a.jsonl must be of a search of one stage in nas_bench_201"):
        scripts.run("turning_points", f"--results={tmp_path}")
