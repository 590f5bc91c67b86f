"""Comparisons of pytrees of arrays, random keys among them: states, metrics."""

import jax
import jax.numpy as jnp
import numpy as np


def arrays(tree):
    """The leaves; of random keys their data."""
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a) for a in leaves]


def assert_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def assert_near(found, expected, tolerance=1e-4, absolute=0.0):
    """Every array is within `tolerance` of the largest entry expected in it, and `absolute` beside."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        f, e = (np.asarray(a, np.float32) for a in (f, e))
        np.testing.assert_allclose(f, e, rtol=0, atol=tolerance * np.abs(e).max(initial=0) + absolute)


def assert_identical(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(arrays(found), arrays(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()


def differ(a, b):
    return any((x != y).any() for x, y in zip(arrays(a), arrays(b), strict=True))
