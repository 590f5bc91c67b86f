"""What the tests of the theory lab's claims share: tiny settings, and spies of what a claim draws."""

import contextlib
import functools

import jax
import numpy as np
import pytest
import scipy.stats

from prdarts_jax.theory import gram, report
from prdarts_jax.theory import model as net
from prdarts_jax.theory.settings import Settings

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
