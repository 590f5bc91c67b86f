"""Theorem 1's checks: what they compare is computed again in plain NumPy from what they drew, and each can fail."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import theory_reference as reference
from theory_spies import TINY, check_interval, of_descents, recorded, smallest_of_kernel

from prdarts_jax.theory import claims, gram, rates, report, theorem1
from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def smaller(nodes, width):
    """Compiles faster than the model of four nodes that is asked for."""
    assert nodes == 4
    return Model(2, width)


@pytest.fixture(scope="module")
def descents():
    """(report, what each width's draws were)."""
    with of_descents() as draws, pytest.MonkeyPatch.context() as patch:
        patch.setattr(theorem1, "Model", smaller)
        return claims.check("theorem1_descent", 0, TINY), draws


@pytest.fixture(scope="module")
def recomputed(descents):
    """{width: [(log falls, bound, printed bound, drift) of each run]}, in plain NumPy."""
    n, steps, result = TINY.samples, TINY.steps, {}
    for width, runs in zip(TINY.widths, descents[1], strict=True):
        shape, result[width] = smaller(4, width), []
        for ((params, alpha, inputs, targets, step_size),) in runs:
            before = reference.gram(shape, params, alpha, inputs)
            smallest, *_, largest = np.linalg.eigvalsh(before)
            assert step_size == pytest.approx(n / (2 * largest), rel=1e-9)
            params, losses = reference.descend(shape, params, alpha, inputs, targets, step_size, steps)
            drift = np.linalg.norm(reference.gram(shape, params, alpha, inputs) - before) / np.linalg.norm(before)
            bounds = [[k * math.log(1 - step_size * smallest / d) for k in range(steps + 1)] for d in (4 * n, 4)]
            result[width].append((np.log(np.array(losses) / losses[0]), *map(np.array, bounds), drift))
    return result


def test_the_widths_have_the_same_data_and_op_weights_and_the_runs_others(descents):
    _, draws = descents
    assert len(draws) == 2 and all(len(runs) == TINY.runs for runs in draws)
    for ((_, *narrow, _),), ((_, *wide, _),) in zip(*draws, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, narrow, wide))
    inputs = [run[0][2] for run in draws[0]]
    assert all((a != b).all() for a, b in itertools.combinations(inputs, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(draws)} == {np.dtype(np.float64)}


def test_the_bound_of_theorem_1_is_compared_at_every_step_of_every_run(descents, recomputed):
    checked = descents[0]
    for found, which in zip(checked.findings[:2], (1, 2), strict=True):
        margins = np.concatenate([(run[which] - run[0])[1:] for runs in recomputed.values() for run in runs])
        assert len(margins) == TINY.runs * len(TINY.widths) * TINY.steps == 30
        assert "share of 30 steps" in found.test
        assert found.measured == (margins >= 0).mean()
        assert found.margin == pytest.approx(margins.min(), rel=1e-6, abs=1e-9)
        assert found.verdict == ("holds" if margins.min() >= 0 else "fails")


def test_the_drift_is_that_of_the_gram_matrix_and_its_slope_that_over_the_width(descents, recomputed):
    checked = descents[0]
    drift = np.array([[run[3] for run in runs] for runs in recomputed.values()])
    slopes = np.diff(np.log(drift), axis=0)[0] / math.log(4 / 2)
    check_interval(checked.findings[2], -slopes, 1)
    assert checked.details["drift"] == pytest.approx({"2": drift[0].mean(), "4": drift[1].mean()})
    slack = checked.details["measured fall over that of the bound (logarithms)"]
    for width, runs in recomputed.items():
        assert slack[str(width)] == pytest.approx(np.mean([run[0][-1] / run[1][-1] for run in runs]))


def test_the_curves_of_theorem_1_are_those_of_the_widest_network(descents, recomputed):
    curves, drifts = descents[0].panels
    falls, bound, _, drift = (np.array(part) for part in zip(*recomputed[4], strict=True))
    np.testing.assert_allclose(curves.series[0].y, falls.mean(0) / math.log(10), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(curves.series[1].y, bound.mean(0) / math.log(10), rtol=1e-7, atol=1e-12)
    cloud = drifts.series[0]
    np.testing.assert_allclose(np.asarray(cloud.y)[np.asarray(cloud.x) == 4], drift, rtol=1e-7)


def test_a_loss_above_the_bound_at_single_steps_fails_it(monkeypatch):
    """Of two runs of four steps at each of two widths: one step above the bound, two more above the printed one."""
    speed, n = 0.4, 2
    bound, printed = ((1 - speed / d) ** np.arange(5) for d in (4 * n, 4))
    losses = np.tile(0.9 * printed, (2, 1))
    losses[:, 0] = 1
    losses[1, 3], losses[0, 2], losses[0, 4] = 1.01 * bound[3], 0.99 * bound[2], 0.99 * bound[4]
    answers = [(3 * losses, np.full(2, speed), np.ones(2)), (5 * 0.9 * losses, np.full(2, speed), np.full(2, 0.5))]
    answers[1][0][:, 0] = 5
    answers[1][0][:, 1:] = 5 * 0.9 * printed[1:]
    monkeypatch.setattr(report, "over_draws", lambda *_: answers.pop(0))
    settings = Settings(samples=n, widths=(8, 16), runs=2, steps=4)
    with_n, as_printed, drift = theorem1.descent(jax.random.key(0), settings).findings
    assert (with_n.measured, with_n.verdict) == (15 / 16, "fails")
    assert with_n.margin == pytest.approx(-math.log(1.01), rel=1e-9)
    assert (as_printed.measured, as_printed.verdict) == (13 / 16, "fails")
    assert drift.measured == pytest.approx(1.0) and drift.verdict == "holds"


@pytest.fixture(scope="module")
def bounded():
    """(report, draws) of the claim about S(alpha)."""
    with of_descents() as draws, pytest.MonkeyPatch.context() as patch:
        compiled = jax.jit(gram.input_kernel, static_argnames=("reading", "activation"))
        patch.setattr(
            gram,
            "input_kernel",
            lambda inputs, reading="activations", **options: compiled(inputs, reading=reading, **options),
        )
        return claims.check("theorem1_gram", 1, TINY), draws


def test_the_smallest_eigenvalues_and_rates_are_those_of_the_networks_drawn(bounded):
    checked, (_, draws) = bounded
    shape = Model(TINY.nodes, TINY.width)
    into_last = [e for e, (_, t) in enumerate(reference.edges(shape)) if t == shape.nodes - 1]
    whole, last, rate, steps, strengths = [], [], [], [], {reading: [] for reading in rates.READINGS}
    for ((params, alpha, inputs, targets, step_size),) in draws:
        blocks = reference.gram_blocks(shape, params, alpha, inputs)
        eigenvalues = np.linalg.eigvalsh(sum(part.sum(0) for part in blocks.values()))
        whole.append(eigenvalues[0])
        steps.append(TINY.samples / (2 * eigenvalues[-1]))
        last.append(np.linalg.eigvalsh(blocks["conv"][into_last].sum(0))[0])
        _, losses = reference.descend(shape, params, alpha, inputs, targets, step_size, TINY.steps)
        rate.append(-math.log(losses[-1] / losses[0]) / TINY.steps)
        for reading, values in strengths.items():
            values.append(reference.path_strength(shape, alpha, reading))
    np.testing.assert_allclose([draw[0][4] for draw in draws], min(steps), rtol=1e-9)  # one, stable for all

    details = checked.details["softplus"]
    kernel = details["lambda_min(K), activations"]
    assert kernel == pytest.approx(smallest_of_kernel(draws[0][0][2]), rel=1e-9)
    for reading, row in details["readings"].items():
        fitted = row["c_sigma, the largest that keeps the bound"]
        slack = np.array(whole) - 0.75 * fitted * kernel * np.array(strengths[reading])
        assert slack.min() == pytest.approx(0, abs=1e-9 * max(whole)) and slack.max() > 0
        for values, name in (
            (whole, "lambda_min(G(0))"),
            (last, "lambda_min of the convolutions into the last node"),
            (rate, "the rate"),
        ):
            expected = scipy.stats.spearmanr(strengths[reading], values).statistic
            assert row[f"Spearman with {name}"] == pytest.approx(expected)
    for found, values in zip(checked.findings[:3], (whole, last, rate), strict=True):
        assert found.measured == pytest.approx(scipy.stats.spearmanr(strengths["printed"], values).statistic)
    cloud = checked.panels[0].series[0]
    np.testing.assert_allclose(cloud.x, strengths["printed"], rtol=1e-9)
    np.testing.assert_allclose(cloud.y, whole, rtol=1e-7)
    shares = details["how often a reading correlates best with lambda_min(G(0)), of 2,000 resamples"]
    assert sum(shares.values()) == pytest.approx(1) and set(shares) == set(rates.READINGS)


def test_the_kernel_as_printed_is_that_of_the_inputs_drawn(bounded):
    checked, (_, draws) = bounded
    full = reference.printed_kernel(draws[0][0][2])
    smallest = np.linalg.eigvalsh((full + full.T) / 2)[0]
    found = checked.findings[-1]
    assert found.measured == found.margin == pytest.approx(smallest, rel=1e-9)
    assert found.verdict == ("holds" if smallest > 0 else "fails")


def test_elasticities_are_compared_on_the_edges_that_theorem_1_speaks_of(monkeypatch):
    """Of an eigenvalue that is a product of powers of the op weights, whose exponents are then known."""
    settings = Settings(nodes=5, width=2, draws=6, samples=2, channels=1, positions=2)
    edges = reference.edges(Model(5, 2))
    rng = np.random.default_rng(4)
    power = {op: rng.normal(size=len(edges)) for op in ("skip", "conv")} | {"zero": np.zeros(len(edges))}
    power["conv"] = 3 - power["skip"]  # so that each edge has 3 in all
    monkeypatch.setattr(gram, "blocks", lambda shape, params, alpha, inputs: alpha)
    monkeypatch.setattr(gram, "whole", lambda alpha: alpha)
    monkeypatch.setattr(
        gram, "smallest_eigenvalue", lambda alpha: jnp.exp(sum(jnp.sum(power[op] * jnp.log(alpha[op])) for op in alpha))
    )
    with recorded(net, "draw_alpha", lambda _, alpha: alpha) as draws:
        checked = claims.check("theorem1_weights", 0, settings)
    heavier = power["skip"] - power["conv"]
    shared = [e for e, (_, t) in enumerate(edges) if t < 4]
    chained = [edges.index(edge) for edge in ((0, 1), (1, 2), (2, 3))]
    last = [e for e in range(len(edges)) if e not in shared]
    expected = [heavier[shared].mean(), heavier[chained].mean(), -heavier[last].mean()]
    assert min(map(abs, np.subtract.outer(expected, expected)[np.triu_indices(3, 1)])) > 0.01
    for found, value in zip(checked.findings[:3], expected, strict=True):
        assert found.measured == pytest.approx(value, rel=1e-9)
        assert found.verdict == ("holds" if value > 0 else "fails")
    zero = np.array([draw[0]["zero"].mean() for draw in draws[0]])
    assert len(zero) == 6
    check_interval(checked.findings[3], 3 * zero, 4)  # by a softmax: alpha times all of the edge
    raw = checked.details["mean elasticity"]
    assert raw["skip"] == pytest.approx({f"{s},{t}": p for (s, t), p in zip(edges, power["skip"], strict=True)})
