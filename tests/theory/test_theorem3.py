"""Theorem 3's checks: closed forms against gates drawn in NumPy, and what wrong gates or forms do to the verdicts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from shared import LEVEL, logistic

from prdarts_jax.search import gates
from prdarts_jax.theory import theorem3
from prdarts_jax.theory.findings import fits

SIZE = 5000


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


def verdicts(found):
    """Of the four laws and of the one as printed, each at 1 %."""
    names = ("P(g != 0)", "P(g = 1)", "between", "E[g]", "as printed")
    return {name: fits(found[name], level=0.01).verdict for name in names}


def run(seed, size=SIZE):
    with jax.enable_x64(True):
        return theorem3.distribution(jax.random.key(seed), gate_samples=size)


@pytest.fixture(scope="module")
def distributed():
    """(p values, dtypes of the gates drawn)."""
    dtypes, original = [], gates.hard_concrete

    def spy(*arguments):
        g = original(*arguments)
        dtypes.append(g.dtype)
        return g

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "hard_concrete", spy)
        return run(0), dtypes


def test_the_gates_have_their_distribution_and_not_the_misread_one(distributed):
    found, dtypes = distributed
    assert verdicts(found) == dict.fromkeys(("P(g != 0)", "P(g = 1)", "between", "E[g]"), "holds") | {
        "as printed": "fails"
    }
    assert set(dtypes) == {np.dtype(np.float64)}
    assert len(found["P(g != 0)"]) == 75 and np.abs(found["difference"]).max() < 5 * math.sqrt(0.25 / SIZE)


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
        (gates, "hard_concrete", bent_gates, ["between", "E[g]"]),
        (gates, "activation_probability", off_activation, ["P(g != 0)"]),
        (gates, "saturation_probability", off_saturation, ["P(g = 1)"]),
        (theorem3, "expectation", lambda *point: 0.04 + closed_form(*point), ["E[g]"]),
    ],
    ids=["none", "gates", "activation", "saturation", "expectation"],
)
def test_the_distribution_fails_where_gates_or_a_closed_form_are_wrong_and_only_there(
    module, name, wrong, failing, fewer_points, monkeypatch
):
    monkeypatch.setattr(module, name, wrong)
    found = verdicts(run(2))
    found.pop("as printed")
    assert [name for name, verdict in found.items() if verdict == "fails"] == failing


def test_the_misread_law_is_that_of_thresholds_on_gtilde(fewer_points, monkeypatch):
    monkeypatch.setattr(gates, "hard_concrete", misread_gates)
    found = verdicts(run(2))
    assert found["as printed"] == "holds" and found["P(g != 0)"] == "fails"


def slopes(seed=0):
    with jax.enable_x64(True):
        return theorem3.gradient(jax.random.key(seed), gate_samples=2000)


def test_the_mean_gradient_is_the_derivative_of_the_mean_and_straight_through_is_not():
    found = slopes()
    assert fits(found["mean gradient"], level=0.01).verdict == "holds"
    straight = {name: np.median(found[f"straight-through, {name}"]) for name in ("g", "g^2", "exp(-2g)")}
    assert abs(straight["g"] - 1) < 0.05  # whose derivative does not depend on the gate
    assert straight["g^2"] > 1.1 and straight["exp(-2g)"] < 0.9
    spread = [np.median(found[f"spread, tau {tau}"]) for tau in (0.1, 0.5, 1.0, 3.0, 10.0)]
    assert spread[0] > 3 * spread[-1]


def test_a_gradient_scaled_by_a_tenth_fails(monkeypatch):
    original = gates.hard_concrete

    def scaled(*arguments):
        g = original(*arguments)
        return g + 0.1 * (g - jax.lax.stop_gradient(g))

    monkeypatch.setattr(gates, "hard_concrete", scaled)
    assert fits(slopes()["mean gradient"], level=0.05).verdict == "fails"


def test_the_key_is_the_only_source_of_randomness(distributed):
    again, other = run(0), run(1)
    for name, values in distributed[0].items():
        np.testing.assert_array_equal(again[name], values)
    assert (other["P(g != 0)"] != distributed[0]["P(g != 0)"]).any()
