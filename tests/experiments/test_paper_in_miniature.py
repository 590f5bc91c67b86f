"""Fig. 1 in miniature: its table, its verdicts, and what is missing."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import scripts

from prdarts_jax import spaces
from prdarts_jax.run import problems
from prdarts_jax.spaces import reference_cells

family, paper = scripts.load("family"), scripts.load("paper_in_miniature")


@pytest.mark.usefixtures("no_pictures")
def test_the_paper_in_miniature(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies, which grow with the number of weights."""
    evaluated = {}

    def evaluate(cells, config, workdir, *, space, trainings):
        evaluated.update(cells)
        assert trainings == 3
        params = {name: sum(op.startswith("sep") for op, _ in cell.normal) for name, cell in cells.items()}
        return {name: {"accuracy": number / 8, "params": number, "rank": 1} for name, number in params.items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    chosen = ["--methods", "darts", "pr_darts", "--seeds", 0, 1, f"--workdir={tmp_path}", f"--set={scripts.TINY}"]
    scripts.run("paper_in_miniature", *chosen)
    table, verdicts, _, of_darts_rule, doubted = (tmp_path / "table.md").read_text().split("\n\n")
    kinds = [line.split(" | ")[0].strip("| `") for line in table.splitlines()[2:]]
    assert kinds == ["darts", "pr_darts", "random", "darts_v2", "all_skip", "pr_darts by DARTS's rule"]
    assert len(evaluated) == 2 * 2 + 10 + 2 + 2 and all(
        len({source for _, source in evaluated["pr_darts_seed_1_distinct"].normal[i : i + 2]}) == 2
        for i in range(0, 8, 2)
    )
    judged = [line.split(" | ")[0].strip("| ") for line in verdicts.splitlines()[2:]]
    assert judged == [
        "skips: darts > pr_darts",
        "depth: pr_darts > darts",
        "accuracy: pr_darts > darts",
        "accuracy: pr_darts > random",
        "accuracy: pr_darts by DARTS's rule > pr_darts",
        "accuracy: pr_darts by DARTS's rule > random",
    ]
    own, other = ([line.split(" | ") for line in of.splitlines()[2:4]] for of in (table, of_darts_rule))
    assert own[0][2:4] == [cell.strip(" |") for cell in other[0][1:]]  # DARTS's cells are derived by its own rule
    assert doubted == "Reasons not to trust the cell were given by 0 of 4 searches.\n"
    assert (tmp_path / "cells.png").exists()


def verdicts(numbers):
    rows = [line.strip("| ").split(" | ") for line in paper.judge(numbers).splitlines()[2:]]
    return {row[0]: row[-1] for row in rows}


def test_a_prediction_is_confirmed_refuted_or_not_decided():
    better, worse, near = [93.0, 94.0, 95.0], [90.0, 91.0, 92.5], [92.0, 95.5, 94.0]
    numbers = {"pr_darts": {"accuracy": better}, "darts": {"accuracy": worse}, "pr_darts_gates": {"accuracy": near}}
    numbers |= {"random": {"accuracy": [96.0, 97.0, 96.5]}}
    for kind in numbers.values():
        kind |= {"skips": [1.0, 2.0, 4.0], "depth": [1.0, 1.0, 1.0]}
    found = verdicts(numbers)
    assert found["accuracy: pr_darts > darts"] == "confirmed"
    assert found["accuracy: pr_darts > random"] == "refuted"
    assert found["accuracy: pr_darts > pr_darts_gates"] == found["skips: darts > pr_darts"] == "not decided"
    numbers["random"]["accuracy"].append(np.nan)
    assert verdicts(numbers) == found
    numbers["darts"]["accuracy"][1] = np.nan
    missing = dict.fromkeys(["accuracy: pr_darts > darts"], "not decided: a number is missing")
    assert verdicts(numbers) == found | missing
    numbers["darts"]["accuracy"] = [90.0]
    assert verdicts(numbers)["accuracy: pr_darts > darts"] == "not decided: too few numbers"


@pytest.mark.parametrize("paired", [True, False])
def test_the_intervals_of_differences_are_those_of_scipy(paired):
    larger, smaller = [93.0, 94.0, 95.0], [90.0, 91.0, 92.5, *([] if paired else [89.0])]
    mean, error, half = paper.difference(larger, smaller, paired)
    test = scipy.stats.ttest_rel(larger, smaller) if paired else scipy.stats.ttest_ind(larger, smaller, equal_var=False)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], [interval.low, interval.high])
    assert mean / error == pytest.approx(test.statistic)
    assert paper.difference([2.0, 2.0], [1.0, 1.0], paired) == (1.0, 0.0, 0.0)


def test_searches_without_a_cell_and_trainings_that_diverged_are_named():
    skips, rows = reference_cells.all_skip(spaces.darts()), {"darts_seed_1": {"accuracy": None, "params": 8}}
    kind_of = paper.kinds(Path("runs"), [("darts", 0), ("darts", 1)], ["random_3"])
    rows |= {"random_3": {"accuracy": 0.5, "params": 8}}
    numbers = paper.collect(rows, {"darts_seed_1": skips, "random_3": skips}, kind_of)
    np.testing.assert_array_equal(numbers["darts"]["accuracy"], [np.nan, np.nan])
    np.testing.assert_array_equal(numbers["darts"]["skips"], [np.nan, 100])
    assert paper.make_table(numbers).splitlines()[2:] == [
        "| `darts` | diverged, diverged | diverged, 100 | diverged, 1.0 | 8 |",
        "| random | 50.00 | 100 | 1.0 | 8 |",
    ]


def test_darts_rule_does_not_keep_two_ops_of_an_edge():
    space, config = spaces.darts(), paper.make_config("")
    logits = np.zeros(space.shape)
    for edge, (source, target) in enumerate(space.edges):
        if source == target - 1:  # the two strongest ops of each node are on the edge from the node before
            logits[edge, [space.ops.index(op) for op in ("sep_conv_3x3", "dil_conv_3x3")]] = 5, 4
        if source == 0:
            logits[edge, space.ops.index("skip_connect")] = 3
    logits = dict.fromkeys(space.cell_types, logits.tolist())
    cell = problems.make_method(family.variant(config, "pr_darts")).derive(
        space, {t: np.float32(of_type) for t, of_type in logits.items()}
    )
    search = family.kept.Search([], cell, [], logits)
    assert paper.shape(cell) == {"skips": 0, "depth": 4}
    (found,) = paper.by_the_rule_of_darts({("pr_darts", 0): search}, config, Path("runs")).values()
    assert paper.shape(found) == {"skips": 50, "depth": 4}
    with pytest.raises(ValueError, match="^pr_darts_seed_0.jsonl has no logits: remove it"):
        paper.by_the_rule_of_darts({("pr_darts", 0): search._replace(logits=None)}, config, Path("runs"))
