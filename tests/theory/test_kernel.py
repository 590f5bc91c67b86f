"""Kernels of the theory lab, against sampling, integration, and networks of growing width, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import theory_reference as reference

from prdarts_jax.theory import gram, kernel
from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import ACTIVATIONS, Model

kernel_of = jax.jit(kernel.input_kernel, static_argnums=(1, 2))


def some_inputs():
    """Of different norms; the last is parallel to the first."""
    inputs = np.random.default_rng(3).normal(size=(4, 2, 3))
    inputs *= np.array([0.6, 1.0, 1.5, 1.0])[:, None, None] / np.linalg.norm(inputs, axis=(1, 2), keepdims=True)
    inputs[3] = -2 * inputs[0]
    return inputs


# Kernels of the inputs ------------------------------------------------------------------------------------------------


def test_the_printed_kernel_is_made_of_its_two_by_two_blocks(float64):
    inputs = some_inputs()
    expected = reference.printed_kernel(inputs)
    assert np.abs(expected - expected.T).max() > 0.1
    reference.close(kernel_of(inputs, "printed"), (expected + expected.T) / 2)


@pytest.mark.parametrize("activation", ["softplus", "sigmoid", "tanh"])
def test_the_kernel_of_activations_is_what_integration_gives(float64, activation):
    inputs, sigma = some_inputs()[:2], reference.ACTIVATIONS[activation][0]
    found = np.asarray(kernel_of(inputs, "activations", activation))
    k = np.array([[np.sum(a * b) for b in inputs] for a in inputs])
    inverse, scale = np.linalg.inv(k), 1 / (2 * np.pi * np.sqrt(np.linalg.det(k)))

    def density(a, b):
        return scale * np.exp(-(inverse[0, 0] * a * a + 2 * inverse[0, 1] * a * b + inverse[1, 1] * b * b) / 2)

    def integrand(b, a):
        return sigma(a) * sigma(b) * density(a, b)

    ends = 9 * np.sqrt(np.diag(k))
    pair, _ = scipy.integrate.dblquad(integrand, -ends[0], ends[0], -ends[1], ends[1], epsabs=1e-10, epsrel=1e-9)
    np.testing.assert_allclose([found[0, 1], found[1, 0]], pair, rtol=1e-6)
    for i in range(2):
        root = np.sqrt(k[i, i])
        own, _ = scipy.integrate.quad(
            lambda z, root=root: sigma(root * z) ** 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -9, 9, epsabs=1e-12
        )
        np.testing.assert_allclose(found[i, i], own, rtol=1e-6)


@pytest.mark.parametrize("activation", ["softplus", "sigmoid", "tanh"])
def test_moments_are_what_sampling_gives(float64, activation):
    """z tests of all pairs, parallel ones too: |difference| < 5 standard errors."""
    flat = some_inputs().reshape(4, -1)
    sigma, slope = reference.ACTIVATIONS[activation]
    found = jax.jit(lambda k: kernel.moments(ACTIVATIONS[activation], k))(jnp.array(flat @ flat.T))
    a = np.random.default_rng(4).normal(size=(100_000, 6)) @ flat.T

    def check(expected, values):
        error = values.std(0, ddof=1) / np.sqrt(len(values))
        assert (np.abs(expected - values.mean(0)) < 5 * error).all()
        assert error.max() < 0.02 * max(np.abs(values).mean(), 0.1)

    check(found.mean, sigma(a))
    check(found.product, sigma(a)[:, :, None] * sigma(a)[:, None])
    check(found.slopes, slope(a)[:, :, None] * slope(a)[:, None])


def test_the_kernel_of_activations_is_as_good_in_single_precision():
    """Its quadrature has weights that no float32 can hold."""
    with jax.enable_x64(True):
        expected = np.asarray(kernel_of(some_inputs(), "activations", "softplus"))
    actual = kernel_of(some_inputs(), "activations", "softplus")
    assert expected.dtype == np.float64 and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


# Infinite width -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes, branches, activation", [(4, 1, "softplus"), (3, 1, "tanh"), (4, 2, "sigmoid")])
def test_networks_converge_to_the_infinite_one_with_the_root_of_the_width(float64, nodes, branches, activation):
    """Every block does: in the mean over draws of weights the difference falls like m^(-1/2), and that of the mean
    over them is within five standard errors at the largest width."""
    shape = Model(nodes, 1, branches, activation)
    rng = np.random.default_rng(6)
    alpha = {op: jnp.array(rng.uniform(0.3, 1.0, len(shape.edges))) for op in ("skip", "conv")}
    inputs = jnp.array(rng.normal(size=(2, 2, 3))) / 2
    limit = jax.jit(lambda alpha, inputs: kernel.infinite_blocks(shape, alpha, inputs))(alpha, inputs)
    widths, draws, errors = (24, 72, 216), 30, []
    for width in widths:
        model = Model(nodes, width, branches, activation)

        def of_draw(key, model=model):
            return gram.blocks(model, net.init(model, key, 2, 3), alpha, inputs)

        found = jax.jit(lambda keys, of_draw=of_draw: jax.lax.map(of_draw, keys))(
            jax.random.split(jax.random.key(1), draws)
        )
        errors.append({name: np.sqrt(np.mean((np.asarray(found[name]) - limit[name]) ** 2, axis=0)) for name in limit})
    for name in limit:
        flat = np.array([of_width[name].ravel() for of_width in errors])
        slopes = np.polyfit(np.log(widths), np.log(flat), 1)[0]
        assert abs(slopes.mean() + 0.5) < 0.1, (name, slopes)
        mean, deviation = (np.asarray(of(np.asarray(found[name]), axis=0)) for of in (np.mean, np.std))
        allowed = 5 * deviation / np.sqrt(draws) + 0.02 * np.abs(limit[name])  # the bias is of order 1/m
        assert (np.abs(mean - limit[name]) <= allowed).all(), name
        assert (deviation / np.sqrt(draws) < 0.05 * np.abs(limit[name]).max()).all()


def test_the_first_block_at_infinite_width_is_the_kernel_of_the_patches(float64):
    """Of one node, written out."""
    inputs = jnp.array(some_inputs()[:2])
    no_edges = {op: jnp.zeros(0) for op in ("skip", "conv")}
    found = jax.jit(lambda inputs: kernel.infinite_blocks(Model(1, 1), no_edges, inputs))(inputs)
    moments_of = jax.jit(lambda covariance: kernel.moments(jax.nn.softplus, covariance))
    read = np.array([reference.phi(x) for x in np.asarray(inputs)])  # [n, 3c, p]
    n, _, positions = read.shape
    expected = {"readout": np.zeros((n, n)), "stem": np.zeros((n, n))}
    for i in range(n):
        for j in range(n):
            for p in range(positions):
                pair = np.stack([read[i, :, p], read[j, :, p]])
                moments = moments_of(jnp.array(pair @ pair.T))
                expected["readout"][i, j] += moments.product[0, 1]
                expected["stem"][i, j] += moments.slopes[0, 1] * (pair @ pair.T)[0, 1]
    for name, of_name in expected.items():
        np.testing.assert_allclose(found[name][0], of_name, rtol=1e-10)
    assert found["conv"].shape == (0, n, n)


# The kernels of neural-tangents 0.6.5 (with JAX 0.4.23; it does not run with a current one) for a chain of three nodes
# on three inputs, upper triangles: the sum over l of the network
#   serial(conv, node_1, .., node_l, Flatten(), Dense(1, W_std=positions ** 0.5)),
#   conv = serial(Conv(1, (3,), padding="SAME", W_std=(3 * channels) ** 0.5), ElementwiseNumerical(sigma, deg=100)),
# where node_l is DotGeneral(rhs=weight) for a skip connection, and the same after conv, with channels = 1, for a
# convolution. Sums of both are not there: neural-tangents adds Gaussian branches of mean zero only.
NEURAL_TANGENTS = {
    ("softplus", "conv"): [19.169460, 8.474280, 9.612350, 8.041877, 7.070922, 11.384397],
    ("tanh", "conv"): [9.156187, 1.181222, 1.463773, 4.761175, 0.702455, 6.717005],
    ("sigmoid", "skip"): [3.484522, 2.546609, 2.607882, 2.770252, 2.470574, 3.055253],
}


@pytest.mark.parametrize("activation, first", NEURAL_TANGENTS)
def test_the_infinite_kernel_is_that_of_neural_tangents(float64, activation, first):
    shape = Model(3, 1, activation=activation)
    alpha = {op: np.zeros(len(shape.edges)) for op in ("skip", "conv")}
    alpha[first][shape.edges.index((0, 1))] = 0.4 if first == "conv" else 0.7
    alpha["conv"][shape.edges.index((1, 2))] = 0.9
    inputs = jnp.array(np.random.default_rng(6).normal(size=(3, 2, 4)) / 2)
    blocks = jax.jit(lambda alpha: kernel.infinite_blocks(shape, alpha, inputs))(jax.tree.map(jnp.array, alpha))
    found = np.asarray(gram.whole(blocks))[np.triu_indices(3)]
    np.testing.assert_allclose(found, NEURAL_TANGENTS[activation, first], rtol=1e-4 if activation == "tanh" else 2e-6)
