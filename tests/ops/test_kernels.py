"""The kernels against XLA's own convolutions and windows, and batch normalisation against NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla_kernels as xla

from prdarts_jax.ops import kernels

SIZE, TINY = (7, 6), (2, 1)  # odd and even; smaller than every filter
CHANNELS = 3


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def images(size):
    return normal(2, *size, CHANNELS)


def pulled_back(function, *arguments):
    """The value of a function, and its gradients for one fixed cotangent, of the dtype of the value."""
    value, vjp = jax.vjp(function, *arguments)
    cotangent = jnp.sin(1 + jnp.arange(value.size)).reshape(value.shape).astype(value.dtype)
    return value, *vjp(cotangent)


def compare(kernel, reference, *arguments):
    """Value and gradients agree in float32; those of bfloat16 images are near."""

    @jax.jit
    def both(x, *rest):
        return (
            pulled_back(kernel, x, *rest),
            pulled_back(reference, x, *rest),
            pulled_back(kernel, x.astype(jnp.bfloat16), *rest),
        )

    found, expected, coarse = both(*arguments)
    for f, e, c in zip(found, expected, coarse, strict=True):
        assert f.shape == e.shape
        assert f.dtype == jnp.float32
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(np.asarray(c, np.float32), e, rtol=0.05, atol=0.05 * np.abs(e).max())
    assert [c.dtype for c in coarse[:2]] == [jnp.bfloat16, jnp.bfloat16]
    assert all(c.dtype == jnp.float32 for c in coarse[2:])  # the parameters stay float32


@pytest.mark.parametrize(
    "k, dilation, stride, size", (*itertools.product((3, 5), (1, 2), (1, 2), (SIZE,)), (5, 2, 1, TINY), (5, 2, 2, TINY))
)
def test_depthwise_conv_is_the_grouped_convolution(k, dilation, stride, size):
    ours, theirs = (lambda x, w, f=f: f(x, w, stride, dilation) for f in (kernels.depthwise_conv, xla.depthwise_conv))
    compare(ours, theirs, images(size), normal(k, k, CHANNELS, seed=1))


@pytest.mark.parametrize(
    "conv, shape",
    ((kernels.depthwise_conv, (3, 3, CHANNELS)), (lambda x, w: kernels.conv(x, w, (1, 1)), (3, 3, CHANNELS, 4))),
)
def test_a_convolution_is_one_of_xlas_elsewhere_than_on_a_cpu(conv, shape):
    def lowered(platform):
        traced = jax.jit(conv).trace(images((4, 4)), jnp.ones(shape))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert lowered("cpu").count("stablehlo.convolution") == 0
    assert lowered("cuda").count("stablehlo.convolution") == 1
    assert lowered("tpu").count("stablehlo.convolution") == 1


@pytest.mark.parametrize("differentiated", [False, True])
def test_a_kernel_of_other_channels_is_refused_not_broadcast(differentiated):
    conv = (lambda x, kernel: jax.vjp(kernels.depthwise_conv, x, kernel)) if differentiated else kernels.depthwise_conv
    with pytest.raises(AssertionError, match="assert_shape"):
        jax.eval_shape(conv, jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 1)))


def test_pointwise_conv_is_the_convolution_of_size_one():
    compare(kernels.pointwise_conv, xla.pointwise_conv, images((5, 4)), normal(CHANNELS, 4, seed=1))


@pytest.mark.parametrize(
    "shape, size, strides",
    (
        *(((3, 3), SIZE, strides) for strides in ((1, 1), (1, 2), (2, 1), (2, 2))),
        *((shape, SIZE, strides) for shape, strides in (((1, 7), (1, 2)), ((7, 1), (2, 1)), ((1, 1), (2, 2)))),
        *(((5, 3), TINY, strides) for strides in ((1, 1), (2, 2))),
    ),
)
def test_conv_is_the_convolution(shape, size, strides):
    ours, theirs = (lambda x, w, f=f: f(x, w, strides) for f in (kernels.conv, xla.conv))
    compare(ours, theirs, images(size), normal(*shape, CHANNELS, 4, seed=1))


@pytest.mark.parametrize("size", (SIZE, TINY))
@pytest.mark.parametrize("stride", (1, 2))
def test_max_pool_is_the_maximum_of_the_window(stride, size):
    # Distinct in bfloat16 too, where rounding would otherwise make ties that float32 does not have.
    shape = (2, *size, CHANNELS)
    distinct = jax.random.permutation(jax.random.key(0), int(np.prod(shape))).reshape(shape) - 100.0
    compare(lambda x: kernels.max_pool(x, stride), lambda x: xla.max_pool(x, stride), distinct)


@pytest.mark.parametrize("stride", (1, 2))
def test_max_pool_gives_the_gradient_to_the_first_of_equals(stride):
    tied = jax.random.randint(jax.random.key(0), (4, 9, 8, CHANNELS), -1, 2).astype(jnp.float32)
    found, expected = (
        jax.jit(lambda x, pool=pool: pulled_back(lambda x: pool(x, stride), x))(tied)
        for pool in (kernels.max_pool, xla.max_pool)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


@pytest.mark.parametrize("size", (SIZE, TINY))
@pytest.mark.parametrize("stride", (1, 2))
def test_avg_pool_does_not_count_the_padding(stride, size):
    compare(lambda x: kernels.avg_pool(x, stride), lambda x: xla.avg_pool(x, stride), images(size))


@jax.jit
def plain_batch_norm(x):
    return xla.batch_norm(x)[0]


def test_batch_norm_is_the_formula():
    compare(lambda x: kernels.batch_norm(x)[0], plain_batch_norm, 3 * images((5, 4)) + 2)


def test_batch_norm_of_a_constant_is_zero_with_a_finite_gradient():
    y, dx = jax.jit(lambda x: pulled_back(lambda x: kernels.batch_norm(x)[0], x))(jnp.full((2, 3, 3, 1), 7.0))
    np.testing.assert_array_equal(y, 0)
    assert np.isfinite(dx).all()


def test_batch_norm_returns_the_moments_that_running_statistics_keep():
    x = 3 * images((5, 4)) + 2
    moments = kernels.batch_norm(x)[1]
    flat = np.asarray(x, np.float64).reshape(-1, CHANNELS)
    np.testing.assert_allclose(moments["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments["var"], flat.var(0, ddof=1), rtol=1e-5)
    coarse = kernels.batch_norm(x.astype(jnp.bfloat16))[1]
    assert coarse["mean"].dtype == coarse["var"].dtype == jnp.float32
    np.testing.assert_allclose(coarse["var"], flat.var(0, ddof=1), rtol=0.02)

    gradient = jax.jit(jax.grad(lambda x: sum(m.sum() for m in kernels.batch_norm(x)[1].values())))(x)
    np.testing.assert_array_equal(gradient, 0)


def test_batch_norm_over_a_mapped_axis_is_that_of_the_global_batch():
    # Devices whose means differ widely: the variance of the whole is not the mean of their variances.
    x = images((4, 3)) + jnp.array([-2.0, 2.0]).reshape(2, 1, 1, 1)
    cotangent = np.sin(1 + np.arange(x.size, dtype=np.float32)).reshape(x.shape)

    def local(x, cotangent):
        """One device's part, and the gradient of the loss summed over all devices in it."""
        y, vjp, moments = jax.vjp(lambda x: kernels.batch_norm(x, "devices"), x[None], has_aux=True)
        return y[0], vjp(cotangent[None])[0][0], moments

    y, dx, moments = jax.jit(jax.vmap(local, axis_name="devices"))(x, cotangent)
    np.testing.assert_allclose(y, plain_batch_norm(x), atol=2e-6)
    expected = jax.jit(lambda x, dy: jax.vjp(plain_batch_norm, x)[1](dy)[0])(x, cotangent)
    np.testing.assert_allclose(dx, expected, atol=2e-6)
    for name, moment in kernels.batch_norm(x)[1].items():
        np.testing.assert_allclose(moments[name], np.stack([moment] * 2), rtol=1e-5, atol=1e-6)


def test_batch_norm_over_a_mapped_axis_of_what_is_far_from_zero():
    x = images((4, 3)) + 30.0
    y, _ = jax.jit(jax.vmap(lambda x: kernels.batch_norm(x[None], "devices"), axis_name="devices"))(x)
    np.testing.assert_allclose(y[:, 0], plain_batch_norm(x), atol=3e-4)


@pytest.mark.parametrize("axis_name", (None, "devices"))
def test_batch_norm_again_is_batch_norm(axis_name):
    x, dy = (normal(2, 3, 5, 4, 2, seed=seed) * 2 + 1 for seed in (0, 1))

    def both(x, dy):
        y, vjp, moments = jax.vjp(lambda x: kernels.batch_norm(x, axis_name), x, has_aux=True)
        again, vjp_again = jax.vjp(lambda x: kernels.batch_norm_again(x, moments, axis_name), x)
        return (y, vjp(dy)), (again, vjp_again(dy))

    first, second = jax.jit(jax.vmap(both, axis_name=axis_name))(x, dy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), first, second)
