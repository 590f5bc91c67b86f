"""How a claim is measured and judged: float64, replicates, roles, the share of false verdicts."""

import dataclasses

import chain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from shared import LEVEL
from trees import arrays, assert_identical

from prdarts_jax.search.step import search_step
from prdarts_jax.theory import claims, verdicts
from prdarts_jax.theory.claims import Claim, Prediction

PREDICTIONS = {
    "above": Prediction("above", "claim", ("x",), "mean_above", {}),
    "not_below": Prediction("not below", "claim", ("y",), "mean_above", {"threshold": -0.5}),
    "beside": Prediction("beside", "context", ("y",), "mean_above", {"threshold": 9.0}),
}


def make_claim(measure=None, **fields):
    """Two cases, two replicates."""
    given = {
        "for_all": {"activation": ("softplus", "tanh")},
        "replicates": {"seed": (1, 2)},
        "sizes": {"draws": 4},
        "predictions": PREDICTIONS,
    }
    return Claim("made_up", "so", measure, **given | fields)


# Measuring ------------------------------------------------------------------------------------------------------------


def test_a_measurement_is_in_float64_and_leaves_a_search_in_float32():
    problem, train_batch, val_batch = chain.make_problem(), chain.make_batch(4), chain.make_batch(5)
    state = chain.start(problem, jax.random.key(1), train_batch["image"])
    step = jax.jit(search_step, static_argnums=0)
    before = step(problem, state, train_batch, val_batch)

    def measure(key, *, activation, draws):
        if draws == 5:
            raise RuntimeError("in the middle")
        return {"x": jax.random.normal(key, (draws,))}

    claim = make_claim(measure)
    assert all(found["x"].dtype == np.float64 and found["x"].shape == (4,) for found in verdicts.measure(claim))
    with pytest.raises(RuntimeError, match="in the middle"):
        verdicts.measure(claim.with_sizes({"draws": 5}))
    assert jnp.zeros(()).dtype == np.float32 and not jax.config.jax_enable_x64

    again = step(problem, state, train_batch, val_batch)
    anew = jax.jit(lambda *given: search_step(problem, *given))(state, train_batch, val_batch)  # traced only now
    for after in (again, anew):
        assert_identical(after, before)
        assert {a.dtype for a in arrays(after)} == {np.dtype(kind) for kind in ("float32", "int32", "uint32")}


def test_replicates_have_different_random_numbers_and_cases_the_same():
    claim = make_claim(
        lambda key, **_: {"x": jax.random.uniform(key, (2,))}, replicates={"width": (8, 16), "seed": (1, 2)}
    )
    steps = list(verdicts.steps(claim))
    assert [(step["activation"], step["width"], step["seed"]) for step in steps[1:5]] == [
        ("softplus", 8, 2),
        ("softplus", 16, 1),
        ("softplus", 16, 2),
        ("tanh", 8, 1),
    ]
    found = np.array([draws["x"][0] for draws in verdicts.measure(claim)]).reshape(2, 4)
    np.testing.assert_array_equal(*found)
    assert len(set(found[0])) == 4


# Judging --------------------------------------------------------------------------------------------------------------


def of_verdict(verdict):
    """Draws on which `above` gives this verdict and `not_below` holds."""
    centre = {"holds": 5.0, "fails": -5.0, "inconclusive": 0.0}[verdict]
    return {"x": np.array([-0.1, -0.05, 0.05, 0.1]) + centre, "y": np.array([-0.1, -0.05, 0.05, 0.1])}


@pytest.mark.parametrize(
    "of_cases, expected",
    [
        (("holds", "holds"), "holds"),
        (("holds", "inconclusive"), "inconclusive"),
        (("inconclusive", "fails"), "fails"),
        (("fails", "holds"), "fails"),
    ],
)
def test_a_claim_holds_in_a_replicate_if_it_does_in_all_cases_and_fails_if_it_does_in_one(of_cases, expected):
    claim = make_claim(replicates={"seed": (1,)})
    report = verdicts.judge(claim, [of_verdict(verdict) for verdict in of_cases])
    assert report.verdicts == [expected]
    assert [(f.name, f.case, f.verdicts[0]) for f in report.findings if f.name == "above"] == [
        ("above", "softplus", of_cases[0]),
        ("above", "tanh", of_cases[1]),
    ]
    assert [f.verdicts for f in report.findings if f.name == "beside"] == [["fails"]] * 2


@pytest.mark.parametrize(
    "found, expected",
    [
        ("h" * 10, "holds 10/10"),
        ("h" * 8 + "if", "holds 8/10"),
        ("h" * 7 + "iif", "inconclusive (7 holds, 1 fails, of 10)"),
        ("f" * 4 + "h", "fails 4/5"),
        ("hf", "inconclusive (1 holds, 1 fails, of 2)"),
        ("f", "fails 1/1"),
    ],
)
def test_a_verdict_is_that_of_four_in_five_replicates(found, expected):
    words = {"h": "holds", "f": "fails", "i": "inconclusive"}
    assert verdicts.share([words[letter] for letter in found]) == expected
    assert verdicts.overall([words[letter] for letter in found]) == expected.split(" ")[0]


def test_the_level_is_divided_among_the_deciding_predictions_and_cases():
    draws = [of_verdict("holds")] * 4
    report = verdicts.judge(make_claim(), draws)
    for finding in report.findings:
        values = draws[0]["x" if finding.name == "above" else "y"]
        level = 0.05 / 4 if finding.role == "claim" else 0.05
        interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - level)
        np.testing.assert_allclose(finding.results[0][1:3], interval)


def without_context(claim):
    deciding = {name: of for name, of in claim.predictions.items() if of.role == "claim"}
    return dataclasses.replace(claim, predictions=deciding)


@pytest.mark.parametrize("name", [name for name, claim in claims.read().items() if without_context(claim) != claim])
def test_no_verdict_changes_without_the_context(name):
    """Of each claim of the papers, on draws at random near the point where the verdict changes."""
    claim = claims.read()[name]
    rng, before, after = np.random.default_rng(0), [], []
    names = {of for prediction in claim.predictions.values() for of in prediction.of}
    for scale in (0.01, 0.1, 1.0):
        draws = [{of: rng.uniform(size=30) * scale - 0.2 * scale for of in names} for _ in verdicts.steps(claim)]
        before.append(verdicts.judge(claim, draws))
        after.append(verdicts.judge(without_context(claim), draws))
    assert [report.verdicts for report in before] == [report.verdicts for report in after]
    for full, less in zip(before, after, strict=True):
        assert tuple(f for f in full.findings if f.role == "claim") == less.findings


def false_verdicts(claim, draw, times):
    """How many of so many judgements of draws without an effect say more than 'inconclusive': (of replicates, of
    claims)."""
    rng, of_replicates, of_claims = np.random.default_rng(3), [], []
    for _ in range(times):
        report = verdicts.judge(claim, [draw(rng) for _ in verdicts.steps(claim)])
        of_replicates += [verdict != "inconclusive" for verdict in report.verdicts]
        of_claims.append(verdicts.overall(report.verdicts) != "inconclusive")
    return of_replicates, of_claims


@pytest.mark.parametrize(
    "test, arguments",
    [
        ("mean_above", {}),
        ("mean_above", {"threshold": -0.1}),
        ("correlation_above", {}),
        ("share_above", {"share": 0.5}),
        ("slope_within", {"above": 0.0, "below": 2.0}),
        ("mean_within", {"above": 0.0, "below": 2.0}),
    ],
)
def test_without_an_effect_at_most_one_verdict_in_twenty_is_false(test, arguments):
    """With three deciding predictions, in two cases: the true value is where the verdict changes. One-sided binomial
    tests that the share of false verdicts is at most 5 %, of a replicate and of the claim."""
    names = ("x", "y") if test in ("correlation_above", "slope_within") else ("x",)
    predictions = {
        f"p{i}": Prediction("so", "claim", tuple(f"{name}{i}" for name in names), test, arguments) for i in range(3)
    }
    predictions["beside"] = Prediction("so", "context", tuple(f"{name}0" for name in names), test, arguments)
    claim = make_claim(predictions=predictions, replicates={"seed": (1, 2, 3, 4, 5)})
    centre = arguments.get("threshold", 0.0)

    def draw(rng):
        return {f"{name}{i}": centre + rng.normal(size=25) for name in "xy" for i in range(3)}

    of_replicates, of_claims = false_verdicts(claim, draw, 60)
    for found in (of_replicates, of_claims):
        assert scipy.stats.binomtest(sum(found), len(found), 0.05, "greater").pvalue > LEVEL
    assert sum(of_claims) <= 0.05 * len(of_claims)


def test_right_laws_are_rejected_in_one_of_twenty_replicates():
    """A fit is never inconclusive: a false verdict is 'fails'."""
    predictions = {name: Prediction("so", "claim", (name,), "fits", {}) for name in ("x", "y")}
    claim = make_claim(predictions=predictions, replicates={"seed": (1, 2, 3, 4, 5)})
    rng, failed = np.random.default_rng(4), []
    for _ in range(200):
        report = verdicts.judge(claim, [{name: rng.uniform(size=10) for name in "xy"} for _ in range(10)])
        failed += [verdict == "fails" for verdict in report.verdicts]
    assert 0 < sum(failed) and scipy.stats.binomtest(sum(failed), len(failed), 0.05, "greater").pvalue > LEVEL


def test_a_prediction_of_what_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="prediction above of claim made_up is of 'x', but what is measured is y$"):
        verdicts.judge(make_claim(), [{"y": np.zeros(3)}] * 4)
