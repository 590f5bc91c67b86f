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
    """E[function(g)] = function(1) - the integral over [0, 1] of function'(g) P(gate <= g), by quadrature."""

    def integrand(g, h=1e-5):
        return (function(g + h) - function(g - h)) / (2 * h) * _below(g, beta, tau, a, b)

    return float(function(1.0)) - scipy.integrate.quad(integrand, 0, 1, epsabs=1e-10, epsrel=1e-10, limit=500)[0]


def _distribution_function(g, beta, tau, a, b):
    """P(gate <= g | 0 < gate < 1)."""
    low, high = (_below(end, beta, tau, a, b) for end in (0.0, 1.0))
    return (_below(g, beta, tau, a, b) - low) / (high - low)


def _binomial(count, size, probability):
    return scipy.stats.binomtest(int(count), size, probability).pvalue


def distribution(key: jax.Array, *, gate_samples: int) -> dict[str, np.ndarray]:
    """Draws gates over a grid of beta, tau, a and b: the p values of goodness-of-fit tests of the closed forms.

    `as printed` is Theorem 3 with gtilde where gbar is meant; `difference` is that of the shares of gates that are not
    0 from their closed form.
    """
    draw = jax.jit(lambda key, beta, tau, a, b: gates.hard_concrete(key, jnp.full(gate_samples, beta), tau, a, b))
    found: dict[str, list[float]] = {
        name: [] for name in ("P(g != 0)", "P(g = 1)", "between", "E[g]", "as printed", "difference")
    }
    for number, (beta, tau, (a, b)) in enumerate(_GRID):
        g = np.asarray(draw(jax.random.fold_in(key, number), beta, tau, a, b))
        active, full = (
            float(probability(jnp.asarray(beta), jnp.asarray(tau), a, b))
            for probability in (gates.activation_probability, gates.saturation_probability)
        )
        found["P(g != 0)"].append(_binomial((g > 0).sum(), gate_samples, active))
        found["P(g = 1)"].append(_binomial((g == 1).sum(), gate_samples, full))
        between = g[(g > 0) & (g < 1)]
        if len(between) >= 100:
            cdf = functools.partial(_distribution_function, beta=beta, tau=tau, a=a, b=b)
            found["between"].append(scipy.stats.kstest(between, cdf).pvalue)
        if g.std() > 0:
            mean = expectation(_FUNCTIONS["g"], beta, tau, a, b)
            z = (g.mean() - mean) / (g.std() / math.sqrt(gate_samples))
            found["E[g]"].append(2 * scipy.stats.norm.sf(abs(z)))
        # As printed, with gtilde = a + (b - a) gbar where gbar is meant: gbar > (-a / (b - a) - a) / (b - a).
        edge = (-a / (b - a) - a) / (b - a)
        misread = scipy.special.expit(beta - tau * scipy.special.logit(edge))
        found["as printed"].append(_binomial((g > 0).sum(), gate_samples, misread))
        found["difference"].append(float((g > 0).mean()) - active)
    return {name: np.array(values) for name, values in found.items()}


def gradient(key: jax.Array, *, gate_samples: int) -> dict[str, np.ndarray]:
    """Compares the mean gradient of a function of a gate with the derivative of its mean, for three functions.

    `mean gradient` has the p values of z tests where at least 100 gradients are not 0; `spread, tau T` the standard
    deviation of one gradient over the derivative; `straight-through, F` the mean gradient with a forward value of 1, as
    in PR-DARTS's released code, over the derivative.
    """
    found: dict[str, list[float]] = {"mean gradient": []}
    for name, function in _FUNCTIONS.items():

        def estimate(key, beta, tau, function=function):
            def value(beta):
                return function(gates.hard_concrete(key, beta, tau))

            def straight_through(beta):
                return function(gates.straight_through(jnp.array(True), gates.hard_concrete(key, beta, tau)))

            return jax.grad(value)(beta), jax.grad(straight_through)(beta)

        estimates = jax.jit(jax.vmap(estimate, (0, None, None)))
        for number, (beta, tau) in enumerate(itertools.product(_LOGITS, _TEMPERATURES)):
            keys = jax.random.split(jax.random.fold_in(key, number), gate_samples)
            drawn, through = map(np.asarray, estimates(keys, beta, tau))
            above, below = (expectation(function, beta + sign * 1e-4, tau, gates.A, gates.B) for sign in (1, -1))
            exact = (above - below) / 2e-4
            if (drawn != 0).sum() >= 100:
                z = (drawn.mean() - exact) / (drawn.std() / math.sqrt(gate_samples))
                found["mean gradient"].append(2 * scipy.stats.norm.sf(abs(z)))
                found.setdefault(f"spread, tau {tau}", []).append(float(drawn.std() / abs(exact)))
                found.setdefault(f"straight-through, {name}", []).append(float(through.mean() / exact))
    return {name: np.array(values) for name, values in found.items()}
