"""The claims of the theory lab: what they compare is computed again in plain NumPy, and each can fail.

Where a claim draws, a spy records what it drew. LEVEL is how often a right law would fail a test with other seeds.
"""

import contextlib
import functools
import itertools
import math

import chain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import theory_reference as reference

from prdarts_jax import gates, methods, networks, spaces
from prdarts_jax.bilevel import SearchProblem, init_search, search_step
from prdarts_jax.nas_bench_201 import Supernet201
from prdarts_jax.supernet import init_logits
from prdarts_jax.theory import alignment, claims, gram, rates, report, theorem1, theorem2, theorem3, theorem4
from prdarts_jax.theory import network as net
from prdarts_jax.theory.network import Network
from prdarts_jax.theory.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LEVEL = 1e-3
TINY = Settings(
    samples=3, channels=2, positions=3, nodes=3, width=4, widths=(2, 4), draws=5, runs=3, steps=5, depths=(4,)
)


@contextlib.contextmanager
def recorded(module, name, keep):
    """Within it a list of what each `report.over_draws` has let a function of a module keep, drawn by drawn.

    Args:
      keep: (arguments, result) of a call -> arrays.
    """
    original, calls, everything = getattr(module, name), [], []

    def spy(*arguments):
        result = original(*arguments)
        calls.append(keep(arguments, result))
        return result

    def over_draws(function, keys, floats):
        def both(key):
            calls.clear()
            return function(key), tuple(calls)

        found, kept = jax.device_get(jax.jit(lambda keys: jax.lax.map(both, keys))(keys))
        everything.append([jax.tree.map(lambda a, i=i: a[i], kept) for i in range(len(keys))])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, spy)
        patch.setattr(report, "over_draws", over_draws)
        patch.setattr(report, "bootstrap", functools.partial(report.bootstrap, times=30))  # what it costs
        yield everything


def draw_quickly(key, shape):
    """Op weights whose law compiles faster than Dirichlet's."""
    drawn = jax.random.uniform(key, (3, len(shape.edges)), minval=0.1)
    return dict(zip(("skip", "conv", "zero"), drawn / drawn.sum(0), strict=True))


@contextlib.contextmanager
def of_descents():
    """(weights, alpha, inputs, targets, step size) of each descent."""
    with recorded(net, "descend", lambda arguments, _: arguments[1:6]) as draws, pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "draw_alpha", draw_quickly)
        yield draws


@jax.jit
def kernel_eigenvalue(inputs):
    return gram.smallest_eigenvalue(gram.input_kernel(inputs))


def smallest_of_kernel(inputs):
    with jax.enable_x64(True):
        return float(kernel_eigenvalue(inputs))


def check_interval(found, values, tests, threshold=0.0, rtol=1e-7):
    """A finding is Student's test of the values, one of so many."""
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / tests)
    np.testing.assert_allclose(found[1:4], (np.mean(values), *interval), rtol=rtol)
    expected = "holds" if interval[0] > threshold else "fails" if interval[1] < threshold else "inconclusive"
    assert found.verdict == expected


# Theorem 1 ------------------------------------------------------------------------------------------------------------


def smaller(nodes, width):
    """Compiles faster than the network of four nodes that is asked for."""
    assert nodes == 4
    return Network(2, width)


@pytest.fixture(scope="module")
def descents():
    """(report, what each width's draws were)."""
    with of_descents() as draws, pytest.MonkeyPatch.context() as patch:
        patch.setattr(theorem1, "Network", smaller)
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
    shape = Network(TINY.nodes, TINY.width)
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
    x = draws[0][0][2].reshape(TINY.samples, -1)
    k, n = x @ x.T, TINY.samples
    full = np.zeros((2 * n, 2 * n))
    for i, j in itertools.product(range(n), range(n)):
        full[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = [[k[i, j], k[i, j]], [k[j, i], k[j, j]]]
    smallest = np.linalg.eigvalsh((full + full.T) / 2)[0]
    found = checked.findings[-1]
    assert found.measured == found.margin == pytest.approx(smallest, rel=1e-9)
    assert found.verdict == ("holds" if smallest > 0 else "fails")


def test_elasticities_are_compared_on_the_edges_that_theorem_1_speaks_of(monkeypatch):
    """Of an eigenvalue that is a product of powers of the op weights, whose exponents are then known."""
    settings = Settings(nodes=5, width=2, draws=6, samples=2, channels=1, positions=2)
    edges = reference.edges(Network(5, 2))
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


# Theorem 2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_the_kinds_of_gates_are_a_partition(nodes):
    shape = Network(nodes, 2)
    kinds = theorem2._kinds(shape)
    named = [(op, *edge) for op in ("skip", "conv") for edge in reference.edges(shape)]
    np.testing.assert_array_equal(sum(np.asarray(where, int) for where in kinds.values()), np.ones(len(named)))
    for kind, where in kinds.items():
        of_kind = [name for name, chosen in zip(named, where, strict=True) if chosen]
        op, _, rest = kind.partition(" ")
        into_last = rest.lstrip(", ").startswith("into")
        assert of_kind == [(o, s, t) for o, s, t in named if o == op.strip(",") and (t == nodes - 1) == into_last]


def test_theorem_2_raises_each_gate_alone_and_averages_over_its_kind(monkeypatch):
    """With a loss of exp(-w g), which a raise by epsilon multiplies by exp(-w epsilon), whatever the draw."""
    shape = theorem2._SHAPE
    edges = reference.edges(shape)
    falls = {"skip": np.linspace(0.5, 2, len(edges)) ** 2, "conv": -(np.linspace(0.4, 2, len(edges)) ** 2)}

    def loss(shape, params, given, inputs, targets):
        assert set(given) == {"skip", "conv"} and len(inputs) == len(targets) == 128
        return jnp.exp(-sum(jnp.sum(w * given[op]) for op, w in falls.items())) + 0 * jnp.sum(params["stem"])

    def descend(shape, params, given, inputs, targets, step_size, steps):
        assert steps == 4
        return params, jnp.array([1.0, 2.0, loss(shape, params, given, inputs, targets)])

    monkeypatch.setattr(net, "loss", loss)
    monkeypatch.setattr(net, "descend", descend)
    monkeypatch.setattr(gram, "blocks", lambda *_: {"all": jnp.ones((1, 1, 1))})
    checked = claims.check("theorem2_gates", 0, Settings(gate_draws=3, gate_steps=2, steps=4))
    into_last = np.array([t == shape.nodes - 1 for _, t in edges])
    kinds = [("skip", ~into_last), ("conv", into_last), ("skip", into_last), ("conv", ~into_last)]
    assert len(checked.findings) == 12 and checked.verdict == "fails"
    assert all("one of 12 tests (Bonferroni)" in found.test for found in checked.findings)
    for found, (op, where) in zip(checked.findings[8:], kinds, strict=True):  # - d ln F / d gate
        assert found.measured == pytest.approx(falls[op][where].mean(), rel=1e-9)
        assert found.predicted.startswith("converged: -d ln F / d gate") and f"({op}" in found.predicted
    for number, (found, (op, where)) in enumerate(zip(checked.findings[:8], 2 * kinds, strict=True)):
        expected = {eps: np.mean(1 - np.exp(-eps * falls[op][where])) for eps in (0.05, 0.1)}
        assert found.measured == pytest.approx(expected[0.1], rel=1e-9)
        assert found.verdict == ("holds" if op == "skip" else "fails")
        name = "converged" if number < 4 else "after 4 steps"
        assert found.predicted.startswith(name)
        kind = found.predicted.partition("(")[2].partition(")")[0]
        assert kind.startswith(op)
        assert list(checked.details[name][kind]["mean fall of the loss for 0.05 and 0.1"]) == pytest.approx(
            list(expected.values())
        )


# Theorem 3 ------------------------------------------------------------------------------------------------------------


GATES = Settings(gate_samples=5000)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def draw_gates(rng, size, beta, tau, a, b):
    """Equation 7 of the paper."""
    u = rng.uniform(size=size)
    return np.clip(a + (b - a) * logistic((np.log(u) - np.log(1 - u) + beta) / tau), 0, 1)


POINTS = [(-1.0, 0.5, -0.1, 1.1), (0.5, 3.0, -0.5, 1.2), (2.0, 1.0, -0.05, 2.0), (0.3, 0.1, -0.1, 1.1)]


def test_the_expectation_is_that_of_gates_drawn_in_numpy():
    """z tests."""
    rng, size, p_values = np.random.default_rng(5), 40_000, []
    for point in POINTS:
        g = draw_gates(rng, size, *point)
        for function in (lambda g: g, lambda g: g**2, lambda g: np.exp(-2 * g)):
            values = function(g)
            z = (values.mean() - theorem3.expectation(function, *point)) / (values.std() / math.sqrt(size))
            p_values.append(2 * scipy.stats.norm.sf(abs(z)))
    assert min(p_values) > LEVEL / len(p_values)


@pytest.mark.parametrize("beta, tau, a, b", POINTS)
def test_the_expectation_is_the_integral_of_the_survival_function(beta, tau, a, b):
    x = np.linspace(0, 1, 200_001)
    survival = logistic(beta - tau * np.log((x - a) / (b - x)))
    assert theorem3.expectation(lambda g: g, beta, tau, a, b) == pytest.approx(np.trapezoid(survival, x), rel=1e-6)
    square = np.trapezoid(2 * x * survival, x)
    assert theorem3.expectation(lambda g: g * g, beta, tau, a, b) == pytest.approx(square, rel=1e-6)


@pytest.mark.parametrize("a, b", [(-0.5, 1.2), (-0.05, 2.0)])
def test_gates_of_other_intervals_follow_the_closed_forms(a, b):
    """Binomial tests of both ends, and Kolmogorov's of what is between."""
    beta, tau, size = 0.5, 1.5, 20_000
    g = np.asarray(gates.hard_concrete(jax.random.key(6), jnp.full(size, beta), tau, a, b), np.float64)

    def at_most(x):
        return logistic(tau * np.log((x - a) / (b - x)) - beta)

    between = g[(g > 0) & (g < 1)]
    assert len(between) > 1000
    law = scipy.stats.kstest(between, lambda x: (at_most(x) - at_most(0.0)) / (at_most(1.0) - at_most(0.0)))
    assert law.pvalue > LEVEL / 6
    for count, probability in (((g == 0).sum(), at_most(0.0)), ((g == 1).sum(), 1 - at_most(1.0))):
        assert scipy.stats.binomtest(int(count), size, probability).pvalue > LEVEL / 6
    for closed, found in (
        (1 - at_most(0.0), gates.activation_probability),
        (1 - at_most(1.0), gates.saturation_probability),
    ):
        assert float(found(jnp.array(beta), jnp.array(tau), a, b)) == pytest.approx(closed, rel=1e-5)


@pytest.fixture(scope="module")
def distributed():
    """(report, dtypes of the gates drawn)."""
    dtypes, original = [], gates.hard_concrete

    def spy(*arguments):
        g = original(*arguments)
        dtypes.append(g.dtype)
        return g

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "hard_concrete", spy)
        return claims.check("theorem3_distribution", 0, GATES), dtypes


def test_the_gates_have_their_distribution_and_not_the_misread_one(distributed):
    checked, dtypes = distributed
    assert [found.verdict for found in checked.findings] == ["holds"] * 4
    assert checked.details["verdict on gtilde as printed"] == "fails"
    assert set(dtypes) == {np.dtype(np.float64)}


def gates_by_inversion(key, logits, tau, a, b):
    """Drawn as by `draw_gates`."""
    u = jax.random.uniform(key, logits.shape)
    stretched = a + (b - a) / (1 + jnp.exp(-(jnp.log(u) - jnp.log1p(-u) + logits) / tau))
    return jnp.clip(stretched, 0, 1)


def misread_gates(key, logits, tau, a, b):
    """Theorem 3's thresholds on gtilde, as printed, instead of on gbar."""
    u = jax.random.uniform(key, logits.shape)
    stretched = a + (b - a) / (1 + jnp.exp(-(jnp.log(u) - jnp.log1p(-u) + logits) / tau))
    inside = (stretched > -a / (b - a)) & (stretched < (1 - a) / (b - a))
    return jnp.where(stretched <= -a / (b - a), 0.0, jnp.where(inside, stretched, 1.0))


def bent_gates(key, logits, tau, a, b):
    """As often 0 and 1 as they should be, and otherwise too large."""
    return gates_by_inversion(key, logits, tau, a, b) ** 0.7


def off_activation(logits, tau, a, b):
    return jax.nn.sigmoid(logits - 1.1 * tau * math.log(-a / b))


def off_saturation(logits, tau, a, b):
    return jax.nn.sigmoid(logits - 0.9 * tau * math.log((1 - a) / (b - 1)))


closed_form = theorem3.expectation


@pytest.fixture
def fewer_points(monkeypatch):
    """Nineteen, with every interval, temperature and logit."""
    points = theorem3._GRID[::4]
    assert [set(values) for values in zip(*points, strict=True)] == [
        set(values) for values in zip(*theorem3._GRID, strict=True)
    ]
    monkeypatch.setattr(theorem3, "_GRID", points)


@pytest.mark.parametrize(
    "module, name, wrong, failing",
    [
        (gates, "hard_concrete", gates_by_inversion, []),
        (gates, "hard_concrete", bent_gates, [2, 3]),
        (gates, "activation_probability", off_activation, [0]),
        (gates, "saturation_probability", off_saturation, [1]),
        (theorem3, "expectation", lambda *point: 0.04 + closed_form(*point), [3]),
    ],
    ids=["none", "gates", "activation", "saturation", "expectation"],
)
def test_the_distribution_fails_where_gates_or_a_closed_form_are_wrong_and_only_there(
    module, name, wrong, failing, fewer_points, monkeypatch
):
    monkeypatch.setattr(module, name, wrong)
    checked = claims.check("theorem3_distribution", 2, GATES)
    assert [i for i, found in enumerate(checked.findings) if found.verdict == "fails"] == failing
    assert checked.verdict == ("fails" if failing else "holds")


def test_the_misread_law_is_that_of_thresholds_on_gtilde(fewer_points, monkeypatch):
    monkeypatch.setattr(gates, "hard_concrete", misread_gates)
    checked = claims.check("theorem3_distribution", 2, GATES)
    assert checked.details["verdict on gtilde as printed"] == "holds"
    assert checked.findings[0].verdict == "fails"


SLOPES = Settings(gate_samples=2000)


def test_the_mean_gradient_is_the_derivative_of_the_mean_and_straight_through_is_not():
    checked = claims.check("theorem3_gradient", 0, SLOPES)
    (found,) = checked.findings
    assert found.verdict == "holds"
    ratio = checked.details[
        "straight-through gradient (forward 1) over the derivative, median over the grid, by function"
    ]
    assert abs(ratio["g"] - 1) < 0.05  # whose derivative does not depend on the gate
    assert ratio["g^2"] > 1.1 and ratio["exp(-2g)"] < 0.9
    spread = checked.details["median of the standard deviation over the derivative, by temperature"]
    assert list(spread) == ["0.1", "0.5", "1.0", "3.0", "10.0"] and spread["0.1"] > 3 * spread["10.0"]


def test_a_gradient_scaled_by_a_tenth_fails(monkeypatch):
    original = gates.hard_concrete

    def scaled(*arguments):
        g = original(*arguments)
        return g + 0.1 * (g - jax.lax.stop_gradient(g))

    monkeypatch.setattr(gates, "hard_concrete", scaled)
    assert claims.check("theorem3_gradient", 0, SLOPES).verdict == "fails"


# Theorem 4 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [4, 6, 8])
def test_the_shallow_cell_has_the_edges_of_the_deep_one_that_do_not_cross_the_middle(nodes):
    deep = Network(nodes, 3, activation="tanh")
    shallow = theorem4.shallow(deep)
    assert (shallow.nodes, shallow.width, shallow.branches, shallow.activation) == (nodes, 3, 2, "tanh")
    pairs = [(s, t) for t in range(nodes) for s in range(t)]
    codes = jnp.array([10 * s + t for s, t in pairs])
    kept = theorem4.restrict(deep, {"skip": codes, "conv": jnp.stack([codes, -codes], axis=1)})
    inside = [10 * s + t for s, t in pairs if (s < nodes // 2) == (t < nodes // 2)]
    assert kept["skip"].tolist() == inside == [10 * s + t for s, t in shallow.edges]
    assert kept["conv"].tolist() == [[code, -code] for code in inside]


@pytest.fixture(scope="module")
def depths():
    with of_descents() as draws:
        return claims.check("theorem4_depth", 0, TINY), draws[0]


DEEP, SHALLOW = Network(4, 4), Network(4, 4, branches=2)


def test_the_cells_share_data_weights_and_gates_where_both_have_them(depths):
    _, draws = depths
    assert len(draws) == TINY.draws
    for (deep, *data), (shallow, *same) in draws:
        (deep_gates, *rest), (shallow_gates, *rest_of_shallow) = data, same
        assert all(map(np.array_equal, rest, rest_of_shallow))  # inputs, targets, step size
        np.testing.assert_array_equal(deep["stem"][0], shallow["stem"][0])
        assert len(deep["stem"]) == 1 and (shallow["stem"][1] != shallow["stem"][0]).all()
        np.testing.assert_array_equal(deep["readout"], shallow["readout"])
        at = {edge: e for e, edge in enumerate(reference.edges(DEEP))}
        for e, edge in enumerate(reference.edges(SHALLOW)):
            np.testing.assert_array_equal(shallow["conv"][e], deep["conv"][at[edge]])
            for op in ("skip", "conv"):
                assert shallow_gates[op][e] == deep_gates[op][at[edge]]


def test_eigenvalues_and_losses_of_both_cells_are_compared(depths):
    checked, draws = depths
    quotients, advantages, surplus, increments = [], [], [], []
    for cells in draws:
        matrices = [reference.gram(shape, *cell[:3]) for shape, cell in zip((DEEP, SHALLOW), cells, strict=True)]
        low, high = (np.array([np.linalg.eigvalsh(matrix)[end] for matrix in matrices]) for end in (0, -1))
        assert cells[0][4] == pytest.approx(TINY.samples / (2 * max(high)), rel=1e-9)
        quotients.append(math.log(low[1] / low[0]))
        ends = []
        for shape, cell in zip((DEEP, SHALLOW), cells, strict=True):
            _, losses = reference.descend(shape, *cell, TINY.steps)
            ends.append(math.log10(losses[-1] / losses[0]))
        advantages.append(ends[0] - ends[1])
        kernel = smallest_of_kernel(cells[0][2])
        increments.append(0.75 * kernel * reference.path_strength(SHALLOW, cells[1][1], "printed", branch=1))
        surplus.append(low[1] - low[0])
    quotients = np.array(quotients)
    always, mean, loss = checked.findings
    assert always.measured == (quotients >= 0).mean() and always.margin == pytest.approx(quotients.min(), rel=1e-6)
    check_interval(mean, quotients, 2, rtol=1e-6)
    check_interval(loss, advantages, 2, rtol=1e-6)
    np.testing.assert_allclose(checked.panels[0].series[0].y, quotients, rtol=1e-6)
    details = checked.details["h = 4"]
    fitted = details["c_sigma, the largest that keeps the bound (below 0: none does)"]
    assert fitted == pytest.approx(min(np.divide(surplus, increments)), rel=1e-6)
    correlation = details["Spearman of lambda_B - lambda_A with the bound's increment"]
    assert correlation == pytest.approx(scipy.stats.spearmanr(increments, surplus).statistic)


# Lambda-DARTS ---------------------------------------------------------------------------------------------------------


SPACE = spaces.SearchSpace(
    "small", ("none", "skip_connect", "nor_conv_1x1"), nodes=2, inputs=1, cell_types=("normal",), entries_per_node=0
)


def make_problem(supernet):
    return SearchProblem(
        supernet=supernet,
        method=methods.Darts(),
        weight_optimizer=optax.sgd(0.1, momentum=0.9),
        arch_optimizer=optax.adam(0.03),
        total_steps=5,
    )


PROBLEM = make_problem(chain.Chain())
start = jax.jit(init_search, static_argnums=0)


def state_of(**variables):
    """What `layer_gradients` reads of a state."""
    state = start(PROBLEM, jax.random.key(0), chain.make_batch(0)["image"])
    return state.replace(**variables)


def shifted_loss(predict, weights, labels):
    """A function of a shift of the op weights of each layer: the mean cross entropy."""

    def loss(shift):
        return -jnp.mean(jax.nn.log_softmax(predict(weights + shift))[jnp.arange(len(labels)), labels])

    return loss


def test_layer_gradients_are_central_differences_in_each_layers_weights():
    """In float64, of a network without kinks."""
    with jax.enable_x64(True):
        params, logits, batch = chain.make_params(1), chain.make_logits(2), chain.make_batch(3)
        state = state_of(params=params, arch={"normal": logits})
        found = jax.jit(alignment.layer_gradients, static_argnums=0)(PROBLEM, state, batch)
        weights = jnp.broadcast_to(jax.nn.softmax(logits), (chain.LAYERS, *chain.SHAPE))
        loss = shifted_loss(lambda w: chain.predict(params, w, batch["image"]), weights, batch["label"])
        expected = chain.slopes(loss, jnp.zeros_like(weights))
    assert found.dtype == np.float64 and np.abs(found).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_layer_gradients_of_a_supernet_are_central_differences():
    """In float32, through ReLUs: within a hundredth of the largest, where no ReLU turns within a step."""
    supernet = Supernet201(space=SPACE, channels=2, cells=1, num_classes=3, executor="plain")
    images, labels = jax.random.normal(jax.random.key(3), (4, 5, 4, 1)), jnp.array([0, 1, 2, 0])
    variables = networks.init_variables(supernet, jax.random.key(0), images.shape)
    logits = 3 * init_logits(jax.random.key(4), SPACE, "normal")
    logits = logits + jnp.arange(3.0) / 4
    state = state_of(**variables | {"arch": {"normal": logits}})
    batch = {"image": images, "label": labels}
    found = jax.jit(alignment.layer_gradients, static_argnums=0)(make_problem(supernet), state, batch)
    weights = jnp.broadcast_to(jax.nn.softmax(logits), (3, *SPACE.shape))

    def predict(weights):
        given = variables | {"arch": {"normal": logits}}
        return supernet.apply(given, images, {"normal": weights}, train=True, mutable=["batch_stats"])[0]

    expected = chain.slopes(shifted_loss(predict, weights, labels), jnp.zeros_like(weights), step=3e-4)
    largest = np.abs(expected).max()
    assert found.shape == (3, *SPACE.shape) and largest > 0.01
    assert np.abs(expected).max(axis=(1, 2)).min() > 0.1 * largest  # no layer is negligible
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * largest)


def test_alignment_compares_the_ends_of_the_searches_that_it_makes_in_float32(monkeypatch):
    rng, dtypes = np.random.default_rng(7), []
    made = {
        name: {
            "alignment": rng.uniform(size=(4, 7)),
            "entropy": rng.uniform(size=(4, 7)),
            "shares": rng.dirichlet(np.ones(6), (4, 7)),
        }
        for name in ("DARTS", "Lambda-DARTS")
    }

    def searches(key, settings):
        dtypes.append(jax.random.normal(key).dtype)
        return made

    monkeypatch.setattr(alignment, "searches", searches)
    found = claims.check("lambda_alignment", 0, Settings(searches=4, epochs=7)).findings
    assert dtypes == [np.dtype(np.float32)]
    early, late = ({name: made[name]["alignment"][:, part].mean(1) for name in made} for part in ([0, 1], [5, 6]))
    check_interval(found[0], early["DARTS"] - late["DARTS"], 5)
    check_interval(found[1], late["Lambda-DARTS"] - late["DARTS"], 5)
    check_interval(found[2], late["Lambda-DARTS"] - early["Lambda-DARTS"], 5)
    check_interval(found[3], made["DARTS"]["entropy"][:, 0] - made["DARTS"]["entropy"][:, 6], 5)
    check_interval(found[4], made["DARTS"]["shares"][:, 6, 5], 5, threshold=1 / 6)


# Precision ------------------------------------------------------------------------------------------------------------


def test_a_check_is_in_float64_and_leaves_a_search_in_float32(monkeypatch):
    train_batch, val_batch = chain.make_batch(4), chain.make_batch(5)
    state = start(PROBLEM, jax.random.key(1), train_batch["image"])
    step = jax.jit(search_step, static_argnums=0)
    before = step(PROBLEM, state, train_batch, val_batch)
    inside = []

    def probe(key, settings):
        inside.append((jax.random.normal(key).dtype, jnp.zeros(()).dtype, settings))
        if settings.draws == 0:
            raise RuntimeError("in the middle")
        return theorem3.distribution(key, settings)

    monkeypatch.setitem(claims.NAMED, "probe", probe)
    settings = Settings(gate_samples=300)
    claims.check("probe", 0, settings)
    assert inside == [(np.dtype(np.float64), np.dtype(np.float64), settings)]
    with pytest.raises(RuntimeError, match="in the middle"):
        claims.check("probe", 0, Settings(draws=0))
    assert jnp.zeros(()).dtype == np.float32 and not jax.config.jax_enable_x64

    again = step(PROBLEM, state, train_batch, val_batch)
    anew = jax.jit(lambda *given: search_step(PROBLEM, *given))(state, train_batch, val_batch)  # traced only now
    for after in (again, anew):
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = map(jax.random.key_data, (a, b))
            assert a.dtype == b.dtype and b.dtype in (np.float32, np.int32, np.uint32)
            np.testing.assert_array_equal(a, b)
    assert {leaf.dtype for leaf in jax.tree.leaves((anew[0].params, anew[0].arch, anew[1]))} == {np.dtype(np.float32)}


def test_the_seed_is_the_only_source_of_randomness(distributed):
    assert claims.check("theorem3_distribution", 0, GATES) == distributed[0]
    assert claims.check("theorem3_distribution", 1, GATES).findings != distributed[0].findings
