"""Reports as JSON, as a table and as a figure."""

import json
import math

import numpy as np
import pytest

from prdarts_jax.theory import report
from prdarts_jax.theory.findings import Result
from prdarts_jax.theory.verdicts import ClaimReport, Finding


def made_up(name="made_up"):
    """A report of two replicates and two predictions, one of them in two cases."""
    results = (Result(1.0, 0.5, 1.5, "holds"), Result(3.0, math.nan, math.inf, "inconclusive"))
    findings = (
        Finding("first", "|u| is large", "claim", "tanh", "mean_above", results),
        Finding("first", "|u| is large", "claim", "softplus", "mean_above", results[:1] * 2),
        Finding("second", "so", "context", "", "fits", results),
    )
    return ClaimReport(name, "large | small", "m 3", ("seed 1", "seed 2"), findings)


def test_json_has_the_range_over_the_replicates_and_every_replicate():
    found = json.loads(json.dumps(report.as_json(made_up()), allow_nan=False))
    assert (found["claim"], found["verdict"], found["replicates"]) == ("made_up", "inconclusive", ["seed 1", "seed 2"])
    assert list(found["findings"]) == ["first", "second"]
    assert list(found["findings"]["first"]["cases"]) == ["tanh", "softplus"]
    (of_all,) = found["findings"]["second"]["cases"].items()
    assert of_all == (
        "all",
        {
            "role": "context",
            "test": "fits",
            "verdict": "inconclusive",
            "share": "inconclusive (1 holds, 0 fails, of 2)",
            "median": 2.0,
            "lowest": 1.0,
            "highest": 3.0,
            "replicates": [[1.0, 0.5, 1.5, "holds"], [3.0, None, None, "inconclusive"]],
        },
    )


def test_a_replicate_without_a_number_leaves_the_range_of_the_others():
    results = tuple(Result(value, 0.0, 0.0, "holds") for value in (math.nan, 1.0, math.inf, 4.0))
    for order in (results, results[::-1], results[:1]):
        found = report._of_finding(Finding("first", "so", "claim", "", "fits", order))
        expected = (2.5, 1.0, 4.0) if len(order) > 1 else (None, None, None)
        assert (found["median"], found["lowest"], found["highest"]) == expected


def test_the_table_has_a_row_for_each_case_under_the_verdict_of_its_claim():
    *_, claim, tanh, softplus, second = report.table([report.as_json(made_up())]).splitlines()
    share = "inconclusive (1 holds, 0 fails, of 2)"
    assert claim == rf"| **made_up** | | large \| small | | | | **{share}** |"
    assert tanh == rf"| made_up.first | claim | \|u\| is large | tanh | 2 (1 to 3) | mean_above | {share} |"
    assert softplus.endswith("| softplus | 1 (1 to 1) | mean_above | holds 2/2 |")
    assert second.startswith("| made_up.second | context | so | all |")


def test_the_figure_has_a_panel_for_each_prediction_with_the_intervals_of_the_replicates():
    figure = report.figure(report.as_json(made_up("name")))
    assert figure.get_suptitle().startswith("name: inconclusive")
    first, second = figure.axes
    assert [label.get_text().partition(":")[0] for label in first.get_yticklabels()] == ["tanh", "softplus"]
    places = np.array([line.get_xydata()[0] for line in first.lines])
    np.testing.assert_array_equal(places[:, 0], [1, 3, 1, 1])
    assert (np.abs(places[:, 1] - [0, 0, 1, 1]) < 0.5).all()
    intervals = [collection.get_segments()[0][:, 0].tolist() for collection in second.collections]
    assert intervals == [[0.5, 1.5]]  # the other replicate has none
    assert len({line.get_color() for line in second.lines}) == 2


@pytest.mark.parametrize("count", [1, 4])
def test_panels_that_are_not_needed_are_not_seen(count):
    of_json = report.as_json(made_up())
    (finding,) = (of_json["findings"]["second"],)
    of_json["findings"] = {f"p{i}": finding for i in range(count)}
    assert sum(ax.get_visible() for ax in report.figure(of_json).axes) == count
