"""The dominant eigenvalue against that of the full matrix, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chain import Normed, loss, make_batch, make_logits, make_problem, split, start, state_of, weights_of

from prdarts_jax.search import methods
from prdarts_jax.search.curvature import dominant_eigenvalue, hessian_eigenvalue

pytestmark = pytest.mark.usefixtures("float64")

eigenvalue = jax.jit(hessian_eigenvalue, static_argnums=0)


def symmetric(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))
    return (q * np.array(eigenvalues)) @ q.T


@functools.partial(jax.jit, static_argnums=2)
def by_products(matrix, at, steps):
    def gradient(tree):
        x = jnp.concatenate([tree["normal"].ravel(), tree["reduce"]])
        product = matrix @ jnp.where(jnp.isfinite(x), x, 0)
        return {"normal": product[:4].reshape(2, 2), "reduce": product[4:]}

    tree = {"normal": at[:4].reshape(2, 2), "reduce": at[4:]}
    return dominant_eigenvalue(gradient, tree, jax.random.key(0), steps)


def found_eigenvalue(matrix, steps, at=None, dtype=np.float64):
    """By products with the Hessian of x -> x' A x / 2, x being of two arrays."""
    at = np.zeros(len(matrix)) if at is None else at
    return float(by_products(matrix.astype(dtype), at.astype(dtype), steps))


@pytest.mark.parametrize(
    "eigenvalues",
    [
        (3.0, 2.0, 1.0, 0.5, -0.1, -2.5),
        (-3.0, 2.0, 1.0, 0.5, -0.1, 2.5),
        (-1e-3, 1e-4, 0.0, 0.0, 0.0, 0.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        (-4.0, -4.0, 1.0, 1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ],
    ids=["positive", "negative", "of rank 2", "all equal", "repeated", "zero"],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_the_dominant_eigenvalue_is_that_of_the_full_matrix(eigenvalues, dtype):
    for scale in (1.0, 1e5, 1e-5):
        matrix = scale * symmetric(eigenvalues)
        values = np.linalg.eigvalsh(matrix)
        expected = values[np.abs(values).argmax()]
        tolerance = (1e-9 if dtype == np.float64 else 1e-5) * scale
        assert found_eigenvalue(matrix, 10, dtype=dtype) == pytest.approx(expected, abs=tolerance)


def test_fewer_steps_than_numbers_find_an_eigenvalue_that_stands_out():
    matrix = symmetric([-5.0, *np.linspace(-1, 1, 40)])
    assert found_eigenvalue(matrix, 10) == pytest.approx(-5, rel=1e-6)
    assert found_eigenvalue(matrix, 3) == pytest.approx(-5, rel=0.1)
    # One product gives a Rayleigh quotient.
    assert abs(found_eigenvalue(matrix, 1)) < 5


def test_what_is_not_finite_is_left_out():
    matrix = symmetric((3.0, 2.0, 1.0, 0.5, -0.1, -2.5))
    at = np.array([0.1, -np.inf, 0.3, 0.2, -np.inf, 0.0])
    keep = np.isfinite(at)
    values = np.linalg.eigvalsh(matrix[np.ix_(keep, keep)])
    expected = values[np.abs(values).argmax()]
    assert found_eigenvalue(matrix, 6, at) == pytest.approx(expected, rel=1e-9)
    assert abs(expected - 3) > 0.1


def test_the_eigenvalue_of_an_epoch_is_that_of_the_hessian_in_the_logits_that_are_candidates():
    problem = make_problem(method=methods.r_darts())
    logits = make_logits(5).at[0, 1].set(-jnp.inf)
    state = state_of(problem, 3, logits)
    batches = [make_batch(2), make_batch(7)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
    found = eigenvalue(problem, state, stacked)
    keep = np.isfinite(logits).ravel()

    def mean_loss(logits):
        return sum(loss(state.params, weights_of(logits), batch) for batch in batches) / 2

    hessian = jax.jit(jax.hessian(mean_loss))(logits)
    hessian = np.reshape(hessian, (logits.size, logits.size))
    values = np.linalg.eigvalsh(hessian[np.ix_(keep, keep)])
    assert float(found) == pytest.approx(values[np.abs(values).argmax()], rel=1e-6)
    assert np.abs(values).max() > 1e-4


def test_the_eigenvalue_of_the_parts_of_batches_is_that_of_the_batches():
    whole, part = (make_problem(Normed(axis_name=axis), methods.r_darts()) for axis in (None, "data"))
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), make_batch(2, 8), make_batch(7, 8))
    state = start(whole, jax.random.key(0), batches["image"][0])
    expected = eigenvalue(whole, state, batches)
    parts = jax.vmap(functools.partial(hessian_eigenvalue, part, state), 1, axis_name="data")
    np.testing.assert_allclose(jax.jit(parts)(split(batches, axis=1)), jnp.full(4, expected), rtol=1e-5)
