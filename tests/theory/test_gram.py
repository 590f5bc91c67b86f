"""Gram matrices and kernels of the theory lab, against plain NumPy, Monte Carlo and integration, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import theory_reference as reference

from prdarts_jax.theory import gram
from prdarts_jax.theory.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NETWORKS = [
    Model(4, 5, 1, "softplus"),
    Model(6, 5, 2, "tanh"),
    Model(2, 5, 1, "sigmoid"),
    Model(2, 5, 2, "softplus"),  # without edges
]


kernel_of = jax.jit(gram.input_kernel, static_argnums=(1, 2))


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_blocks_are_inner_products_of_gradients_and_add_up_to_the_whole(float64, model):
    params, alpha, inputs, _ = reference.draw(model, 0)
    blocks = jax.jit(lambda *args: gram.blocks(model, *args))(params, alpha, inputs)
    whole = gram.whole(blocks)
    expected = reference.gram_blocks(model, params, alpha, inputs)
    assert set(blocks) == set(expected)
    for name, part in expected.items():
        reference.close(blocks[name], part)
        for block in np.asarray(blocks[name]):
            np.testing.assert_allclose(block, block.T, rtol=1e-12)
            eigenvalues = np.linalg.eigvalsh(block)
            assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    samples = [reference.gradients(model, params, alpha, x) for x in inputs]
    flat = np.array([np.concatenate([g.ravel() for g in sample.values()]) for sample in samples])
    reference.close(whole, flat @ flat.T)


def test_the_smallest_eigenvalue_is_the_first_one_with_its_sign(float64):
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    for eigenvalues in ([3.0, 0.5, 2.0, 7.0], [3.0, 0.5, -2.0, 7.0]):
        matrix = basis * eigenvalues @ basis.T
        reference.close(gram.smallest_eigenvalue(jnp.array(matrix)), min(eigenvalues))


def some_inputs():
    """Of different norms; the last is parallel to the first."""
    inputs = np.random.default_rng(3).normal(size=(4, 2, 3))
    inputs *= np.array([0.6, 1.0, 1.5, 1.0])[:, None, None] / np.linalg.norm(inputs, axis=(1, 2), keepdims=True)
    inputs[3] = -2 * inputs[0]
    return inputs


def test_the_printed_kernel_is_made_of_its_two_by_two_blocks(float64):
    inputs = some_inputs()
    expected = reference.printed_kernel(inputs)
    assert np.abs(expected - expected.T).max() > 0.1
    reference.close(kernel_of(inputs, "printed"), (expected + expected.T) / 2)


@pytest.mark.parametrize("activation", ["softplus", "sigmoid", "tanh"])
def test_the_kernel_of_activations_is_what_sampling_gives(float64, activation):
    """z-tests of all pairs: |difference| < 5 standard errors, which a right kernel fails once in 10^5 seeds."""
    inputs, sigma = some_inputs(), reference.ACTIVATIONS[activation][0]
    kernel = np.asarray(kernel_of(inputs, "activations", activation))
    assert kernel.shape == (4, 4)
    normals = np.random.default_rng(4).normal(size=(100_000, 6))
    # <X_i, z> and <X_j, z> have the covariances k
    activated = [sigma(normals @ x.ravel()) for x in inputs]
    for i in range(4):
        for j in range(4):
            product = activated[i] * activated[j]
            error = product.std(ddof=1) / np.sqrt(len(product))
            assert abs(kernel[i, j] - product.mean()) < 5 * error
            assert error < 0.01 * max(abs(product).mean(), 0.1)


@pytest.mark.parametrize("activation", ["softplus", "sigmoid", "tanh"])
def test_the_kernel_of_activations_is_what_integration_gives(float64, activation):
    inputs, sigma = some_inputs()[:2], reference.ACTIVATIONS[activation][0]
    kernel = np.asarray(kernel_of(inputs, "activations", activation))
    k = np.array([[np.sum(a * b) for b in inputs] for a in inputs])
    inverse, scale = np.linalg.inv(k), 1 / (2 * np.pi * np.sqrt(np.linalg.det(k)))

    def density(a, b):
        return scale * np.exp(-(inverse[0, 0] * a * a + 2 * inverse[0, 1] * a * b + inverse[1, 1] * b * b) / 2)

    def integrand(b, a):
        return sigma(a) * sigma(b) * density(a, b)

    ends = 9 * np.sqrt(np.diag(k))
    pair, _ = scipy.integrate.dblquad(integrand, -ends[0], ends[0], -ends[1], ends[1], epsabs=1e-10, epsrel=1e-9)
    np.testing.assert_allclose([kernel[0, 1], kernel[1, 0]], pair, rtol=1e-6)
    for i in range(2):
        root = np.sqrt(k[i, i])
        own, _ = scipy.integrate.quad(
            lambda z, root=root: sigma(root * z) ** 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -9, 9, epsabs=1e-12
        )
        np.testing.assert_allclose(kernel[i, i], own, rtol=1e-6)


def test_activations_of_softplus_are_the_default_kernel(float64):
    reference.close(kernel_of(some_inputs()), kernel_of(some_inputs(), "activations", "softplus"))


def test_the_precision_is_that_of_the_arrays():
    model = Model(2, 3)
    params, alpha, inputs, _ = reference.draw(model, 5)

    def everything(dtype):
        *arguments, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, alpha, inputs))
        blocks = gram.blocks(model, *arguments, x)
        return [
            *(blocks, gram.whole(blocks), gram.smallest_eigenvalue(gram.whole(blocks))),
            *(gram.input_kernel(x, reading) for reading in ("printed", "activations")),
        ]

    reference.accept_precision(everything)


def test_the_kernel_of_activations_is_as_good_in_single_precision():
    """Its quadrature has weights that no float32 can hold."""
    with jax.enable_x64(True):
        expected = np.asarray(kernel_of(some_inputs(), "activations", "softplus"))
    actual = kernel_of(some_inputs(), "activations", "softplus")
    assert expected.dtype == np.float64 and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
