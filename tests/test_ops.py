"""What the loop's tests do not show of an op: noise, NAS-Bench-201's convolutions, dropout, a part of the channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import lax

from prdarts_jax import ops

RATE = 0.3


def as_it_is(x, stats):
    """A `norm` that shows what it is given."""
    return x, {"stats": stats}


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def apply(name, params, x, stride=1, **fields):
    """What a candidate gives, normalisation left out."""
    op = ops.candidate(name, channels=x.shape[-1], stride=stride, **fields)
    return jax.jit(lambda params, x: op.apply(params, None, x, as_it_is)[0])(params, x)


def seeded(seed, rate=RATE):
    return {"seed": jnp.float32(seed), "rate": jnp.float32(rate)}


# Noise ----------------------------------------------------------------------------------------------------------------


def test_noise_is_normal_and_another_with_another_seed():
    x = normal(6, 9, 8, 20)
    first, second = (np.asarray(apply("noise", seeded(seed), x)) for seed in (1, 2**24 - 1))
    for y in (first, second):
        assert y.shape == x.shape
        assert scipy.stats.kstest(y.ravel(), "norm").pvalue > 1e-4
    np.testing.assert_array_equal(first, apply("noise", seeded(1), 100 + x))  # whatever the input
    for other in (second, x):
        assert scipy.stats.pearsonr(first.ravel(), np.ravel(other)).pvalue > 1e-4


def test_noise_halves_the_image_and_passes_no_gradient():
    x = normal(2, 5, 4, 3)
    assert apply("noise", seeded(0), x, stride=2).shape == (2, 3, 2, 3)
    assert apply("noise", seeded(0), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    for stride in (1, 2):
        gradient = jax.grad(lambda x, stride=stride: jnp.sum(apply("noise", seeded(0), x, stride) ** 2))(x)
        np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


# Convolutions of NAS-Bench-201 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("size", (1, 3))
def test_nor_conv_is_relu_and_a_convolution_and_then_normalises(size, stride):
    op = ops.candidate(f"nor_conv_{size}x{size}", channels=4, stride=stride)
    params = ops.init_params(jax.random.key(0), op.shapes)
    (kernel,) = params.values()
    assert kernel.size == size * size * 4 * 4
    x = normal(2, 7, 6, 4)
    expected = lax.conv_general_dilated(
        jnp.maximum(x, 0),
        kernel.reshape(size, size, 4, 4),
        (stride, stride),
        ((size // 2, size // 2),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y, moments = jax.jit(lambda p, x: op.apply(p, {"norm": jnp.float32(5)}, x, as_it_is))(params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert op.norms == ("norm",) and moments == {"norm": {"stats": 5}}


# Dropout --------------------------------------------------------------------------------------------------------------


def test_a_skip_connection_drops_entries_and_keeps_the_mean():
    x = 1 + jax.random.uniform(jax.random.key(0), (8, 10, 10, 10))
    y = np.asarray(apply("skip_connect", seeded(7), x, dropout="skip"))
    kept = y != 0
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / (1 - RATE), rtol=1e-6)
    assert scipy.stats.binomtest(int((~kept).sum()), kept.size, RATE).pvalue > 1e-4
    # Each entry by itself: the dropped of an image, or of a channel, are as many as independent draws give.
    for axes in ((1, 2, 3), (0, 1, 2)):
        counts = (~kept).sum(axes)
        spread = ((counts - RATE * 800 * 10 / len(counts)) ** 2).sum() / (RATE * (1 - RATE) * kept.size / len(counts))
        assert 1e-4 < scipy.stats.chi2.cdf(spread, len(counts)) < 1 - 1e-4
    standard_error = y.std() / np.sqrt(y.size)
    assert abs(y.mean() - x.mean()) < 4 * standard_error


def test_a_path_drops_images_and_keeps_the_mean():
    x = 1 + jax.random.uniform(jax.random.key(0), (2000, 1, 2, 2))
    y = np.asarray(apply("max_pool_3x3", seeded(7), x, dropout="path"))
    kept = (y != 0).all((1, 2, 3))
    np.testing.assert_array_equal(y[~kept], 0)
    np.testing.assert_allclose(y[kept], np.asarray(apply("max_pool_3x3", {}, x))[kept] / (1 - RATE), rtol=1e-6)
    assert scipy.stats.binomtest(int((~kept).sum()), len(kept), RATE).pvalue > 1e-4
    assert not np.array_equal(y, apply("max_pool_3x3", seeded(8), x, dropout="path"))


@pytest.mark.parametrize(
    "dropout, name, stride, drops",
    (
        ("skip", "skip_connect", 1, True),
        ("skip", "skip_connect", 2, False),  # a factorised reduction is no identity
        ("skip", "max_pool_3x3", 1, False),
        ("path", "skip_connect", 1, True),
        ("path", "skip_connect", 2, True),
        ("path", "max_pool_3x3", 2, True),
        ("path", "noise", 1, True),
        ("", "skip_connect", 2, False),
    ),
)
def test_what_drops_has_a_rate_and_is_the_op_itself_at_0(dropout, name, stride, drops):
    op = ops.candidate(name, channels=4, stride=stride, dropout=dropout)
    assert op.draws == (drops or name == "noise")
    x, params = normal(64, 3, 2, 4), ops.init_params(jax.random.key(0), op.shapes)
    whole = apply(name, params | seeded(3), x, stride)
    np.testing.assert_array_equal(apply(name, params | seeded(3, rate=0.0), x, stride, dropout=dropout), whole)
    assert np.array_equal(apply(name, params | seeded(3), x, stride, dropout=dropout), whole) != drops


def test_which_noise_is_dropped_does_not_depend_on_the_noise():
    x = jnp.zeros((4000, 1, 1, 1))
    noise, y = (np.ravel(apply("noise", seeded(0), x, **fields)) for fields in ({}, {"dropout": "path"}))
    assert scipy.stats.ttest_ind(noise[y == 0], noise[y != 0]).pvalue > 1e-4


# A part of the channels -----------------------------------------------------------------------------------------------


def partial_loop(y, x, stride, k):
    """PC-DARTS's cell edge, entry by entry: `y` in place of the first 1/K of the channels of x, all shuffled."""
    batch, height, width, channels = x.shape
    seen = channels // k
    out = np.zeros((batch, -(-height // stride), -(-width // stride), channels), np.float32)
    for i, j, c in np.ndindex(out.shape[1:]):
        if c < seen:
            value = y[:, i, j, c]
        else:
            value = x[:, stride * i : stride * i + stride, stride * j : stride * j + stride, c].max((1, 2))
        out[:, i, j, c % seen * k + c // seen] = value
    return out


@pytest.mark.parametrize("stride, shape", ((1, (4, 6)), (2, (4, 6)), (2, (5, 3))))
@pytest.mark.parametrize("name", ("none", "sep_conv_3x3"))
def test_an_op_on_a_quarter_of_the_channels_is_the_loop(name, stride, shape):
    x = np.asarray(normal(2, *shape, 8))
    op = ops.candidate(name, channels=8, stride=stride, partial=4)
    params = ops.init_params(jax.random.key(1), op.shapes)
    assert sum(a.size for a in params.values()) == (2 * (9 * 2 + 2 * 2) if name == "sep_conv_3x3" else 0)
    first = jnp.asarray(x[..., :2])
    y = jnp.zeros_like(first)[:, ::stride, ::stride] if name == "none" else apply(name, params, first, stride)
    found = apply(name, params, jnp.asarray(x), stride, partial=4)
    np.testing.assert_allclose(found, partial_loop(np.asarray(y), x, stride, 4), atol=1e-6)


def test_a_shuffle_brings_another_part_to_the_front():
    x = jnp.broadcast_to(jnp.arange(8.0), (1, 1, 1, 8))
    assert apply("skip_connect", {}, x, partial=4).ravel().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_channels_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="channels=6 must be a multiple of 4, since an op sees 1/4 of them"):
        ops.candidate("skip_connect", channels=6, stride=1, partial=4)


def test_an_unknown_op_is_refused():
    for name in ("none", "pool_2x2"):
        with pytest.raises(ValueError, match=f"op '{name}' cannot be built"):
            ops.candidate(name, channels=4, stride=1)
