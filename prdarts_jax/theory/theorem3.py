"""Theorem 3: the distribution of the hard-concrete gate, and what its gradient estimates."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from prdarts_jax.search import gates
from prdarts_jax.theory import report
from prdarts_jax.theory.report import ClaimReport, Panel, Series
from prdarts_jax.theory.settings import Settings

_LOGITS = (-3.0, -1.0, 0.0, 0.5, 2.0)
_TEMPERATURES = (0.1, 0.5, 1.0, 3.0, 10.0)
_INTERVALS = ((-0.1, 1.1), (-0.5, 1.2), (-0.05, 2.0))
_GRID = tuple(itertools.product(_LOGITS, _TEMPERATURES, _INTERVALS))

# Functions of a gate, as a loss may have them.
_FUNCTIONS: dict[str, Callable] = {
    "g": lambda g: g,
    "g^2": lambda g: g**2,
    "exp(-2g)": lambda g: jnp.exp(-2 * g) if isinstance(g, jax.Array) else np.exp(-2 * g),
}


def _below(g, beta, tau, a, b):
    """P(a + (b - a) gbar <= g), for the gate before it is clipped; g = 0 gives P(gate = 0), g = 1 gives P(gate < 1)."""
    return scipy.special.expit(tau * scipy.special.logit((g - a) / (b - a)) - beta)


def expectation(function: Callable, beta: float, tau: float, a: float, b: float) -> float:
    """E[function(g)]: by quadrature between 0 and 1, and in closed form at these two ends."""

    # Integration by parts: E[f(g)] = f(1) - integral of f'(g) P(gate <= g).
    def integrand(g, h=1e-5):
        return (function(g + h) - function(g - h)) / (2 * h) * _below(g, beta, tau, a, b)

    return float(function(1.0)) - scipy.integrate.quad(integrand, 0, 1, epsabs=1e-10, epsrel=1e-10, limit=500)[0]


def _distribution_function(g, beta, tau, a, b):
    """P(gate <= g | 0 < gate < 1)."""
    low, high = (_below(end, beta, tau, a, b) for end in (0.0, 1.0))
    return (_below(g, beta, tau, a, b) - low) / (high - low)


def _binomial(count, size, probability):
    return scipy.stats.binomtest(int(count), size, probability).pvalue


def distribution(key: jax.Array, settings: Settings) -> ClaimReport:
    """Draws gates over a grid of beta, tau, a and b, and compares them with the closed forms."""
    size = settings.gate_samples
    draw = jax.jit(lambda key, beta, tau, a, b: gates.hard_concrete(key, jnp.full(size, beta), tau, a, b))
    p_values: dict[str, list[float]] = {"P(g != 0)": [], "P(g = 1)": [], "between": [], "E[g]": [], "misread": []}
    predicted, measured = [], []
    for number, (beta, tau, (a, b)) in enumerate(_GRID):
        g = np.asarray(draw(jax.random.fold_in(key, number), beta, tau, a, b))
        active, full = (
            float(probability(jnp.asarray(beta), jnp.asarray(tau), a, b))
            for probability in (gates.activation_probability, gates.saturation_probability)
        )
        p_values["P(g != 0)"].append(_binomial((g > 0).sum(), size, active))
        p_values["P(g = 1)"].append(_binomial((g == 1).sum(), size, full))
        between = g[(g > 0) & (g < 1)]
        if len(between) >= 100:
            cdf = functools.partial(_distribution_function, beta=beta, tau=tau, a=a, b=b)
            p_values["between"].append(scipy.stats.kstest(between, cdf).pvalue)
        if g.std() > 0:
            mean = expectation(_FUNCTIONS["g"], beta, tau, a, b)
            z = (g.mean() - mean) / (g.std() / math.sqrt(size))
            p_values["E[g]"].append(2 * scipy.stats.norm.sf(abs(z)))
        # As printed, with gtilde = a + (b - a) gbar where gbar is meant: gbar > (-a / (b - a) - a) / (b - a).
        edge = (-a / (b - a) - a) / (b - a)
        p_values["misread"].append(
            _binomial((g > 0).sum(), size, scipy.special.expit(beta - tau * scipy.special.logit(edge)))
        )
        predicted.append(active)
        measured.append(float((g > 0).mean()))
    exact = "tests by the exact binomial distribution"
    misread = report.fits("", np.array(p_values.pop("misread")), exact)
    predictions = (
        ("P(g != 0) = sigmoid(beta - tau ln(-a / b))", exact),
        ("P(g = 1) = sigmoid(beta - tau ln((1 - a) / (b - 1)))", exact),
        (
            "between 0 and 1 gates follow the linear piece of sigmoid((logistic + beta) / tau)",
            "Kolmogorov-Smirnov tests where at least 100 gates are there",
        ),
        ("E[g] is that of the closed form", "z tests against quadrature"),
    )
    deviation = np.abs(np.subtract(measured, predicted))
    return ClaimReport(
        claim="theorem3_distribution",
        statement=(
            "g = 0 where gbar <= -a / (b - a), linear up to (1 - a) / (b - a), 1 above; P(g != 0) = sigmoid(beta - tau "
            "ln(-a / b)) (Theorem 3)."
        ),
        setting=(
            f"{size:,} gates at each of {len(_GRID)} points: beta in {_LOGITS}, tau in {_TEMPERATURES}, (a, b) in "
            f"{_INTERVALS}"
        ),
        findings=tuple(
            report.fits(predicted, np.array(found), tests, len(predictions))
            for (predicted, tests), found in zip(predictions, p_values.values(), strict=True)
        ),
        panels=(
            Panel(
                "activation probability",
                "sigmoid(beta - tau ln(-a / b))",
                "share of gates that are not 0",
                (Series("grid", predicted, measured, points=True), Series("equal", (0, 1), (0, 1))),
            ),
        ),
        details={
            "largest difference of P(g != 0)": float(deviation.max()),
            "smallest p times their number, were gtilde meant as printed": misread.measured,
            "verdict on gtilde as printed": misread.verdict,
        },
    )


def gradient(key: jax.Array, settings: Settings) -> ClaimReport:
    """Compares the mean gradient of a function of a gate with the derivative of its mean, for three functions."""
    size, (a, b) = settings.gate_samples, (gates.A, gates.B)
    p_values, biases, deviations, straight = [], {}, {}, {}
    for name, function in _FUNCTIONS.items():

        def estimate(key, beta, tau, function=function):
            def value(beta):
                return function(gates.hard_concrete(key, beta, tau))

            def straight_through(beta):  # forward 1, as PR-DARTS's released code
                return function(gates.straight_through(jnp.array(True), gates.hard_concrete(key, beta, tau)))

            return jax.grad(value)(beta), jax.grad(straight_through)(beta)

        estimates = jax.jit(jax.vmap(estimate, (0, None, None)))
        for number, (beta, tau) in enumerate(itertools.product(_LOGITS, _TEMPERATURES)):
            keys = jax.random.split(jax.random.fold_in(key, number), size)
            found, through = map(np.asarray, estimates(keys, beta, tau))
            h = 1e-4
            exact = (expectation(function, beta + h, tau, a, b) - expectation(function, beta - h, tau, a, b)) / (2 * h)
            error = found.std() / math.sqrt(size)
            point = f"{name}, beta {beta}, tau {tau}"
            if (found != 0).sum() >= 100:
                p_values.append(2 * scipy.stats.norm.sf(abs(found.mean() - exact) / error))
                biases[point] = float(found.mean() - exact)
                deviations[point] = float(found.std() / abs(exact))
                straight[point] = float(through.mean() / exact)
    by_temperature = {
        tau: [deviation for point, deviation in deviations.items() if point.endswith(f"tau {tau}")]
        for tau in _TEMPERATURES
    }
    return ClaimReport(
        claim="theorem3_gradient",
        statement="Gates that are a continuous function of their logits have gradients that can be trained with.",
        setting=(
            f"{size:,} gates at each of {len(_LOGITS) * len(_TEMPERATURES)} points (beta, tau) for f(g) = "
            f"{', '.join(_FUNCTIONS)}, a = {a}, b = {b}; exact: central differences of a quadrature"
        ),
        findings=(
            report.fits(
                "the mean gradient of f(g) is the derivative of E[f(g)]",
                np.array(p_values),
                "z tests where at least 100 gradients are not 0",
            ),
        ),
        panels=(
            Panel(
                "spread of one gradient",
                "temperature tau",
                "standard deviation / |derivative|",
                [
                    Series(
                        "points of the grid",
                        [tau for tau, values in by_temperature.items() for _ in values],
                        [value for values in by_temperature.values() for value in values],
                        points=True,
                    )
                ],
                "xy",
            ),
        ),
        details={
            "largest difference of a mean": max(map(abs, biases.values())),
            "median of the standard deviation over the derivative, by temperature": {
                str(tau): float(np.median(values)) for tau, values in by_temperature.items() if values
            },
            "straight-through gradient (forward 1) over the derivative, median over the grid, by function": {
                name: float(np.median([ratio for point, ratio in straight.items() if point.startswith(f"{name},")]))
                for name in _FUNCTIONS
            },
        },
    )
