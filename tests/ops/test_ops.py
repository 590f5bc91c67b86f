"""What the loop's tests do not show of an op: noise, NAS-Bench-201's convolutions, dropout, a part of the channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import xla_kernels as xla
from chex import assert_trees_all_close

from prdarts_jax import ops

RATE = 0.3


def as_it_is(x, stats):
    """A `norm` that shows what it is given."""
    return x, {"stats": stats}


def normal(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


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
        gradient = jax.jit(jax.grad(lambda x, s=stride: jnp.sum(apply("noise", seeded(0), x, s) ** 2)))(x)
        np.testing.assert_array_equal(gradient, np.zeros_like(x))


# Convolutions of NAS-Bench-201 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("size", (1, 3))
def test_nor_conv_is_relu_and_a_convolution_and_then_normalises(size, stride):
    op = ops.candidate(f"nor_conv_{size}x{size}", channels=4, stride=stride)
    params = ops.init_params(jax.random.key(0), op.shapes)
    (kernel,) = params.values()
    assert kernel.size == size * size * 4 * 4
    x = normal(2, 7, 6, 4)
    expected = xla.conv(jnp.maximum(x, 0), kernel.reshape(size, size, 4, 4), (stride, stride))
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


def test_a_path_is_multiplied_by_each_images_factor_which_has_no_gradient():
    x, keep = normal(5, 3, 2, 4), jnp.array([0, 1.25, 0, 1.25, 3])
    y = apply("max_pool_3x3", {"keep": keep}, x, dropout="path")
    np.testing.assert_array_equal(y, keep[:, None, None, None] * apply("max_pool_3x3", {}, x))
    slopes = jax.grad(lambda keep: jnp.sum(apply("max_pool_3x3", {"keep": keep}, x, dropout="path")))(keep)
    np.testing.assert_array_equal(slopes, np.zeros(5))


DRAWS = {"seed": jnp.float32(3), "rate": jnp.float32(RATE), "keep": jnp.zeros(64).at[::2].set(2)}


@pytest.mark.parametrize(
    "dropout, name, stride, draws",
    (
        ("skip", "skip_connect", 1, ("seed", "rate")),
        ("skip", "skip_connect", 2, ()),  # a factorised reduction is no identity
        ("skip", "max_pool_3x3", 1, ()),
        ("path", "skip_connect", 1, ("keep",)),
        ("path", "skip_connect", 2, ("keep",)),
        ("path", "max_pool_3x3", 2, ("keep",)),
        ("path", "noise", 1, ("seed", "keep")),
        ("", "skip_connect", 2, ()),
        ("", "noise", 2, ("seed",)),
    ),
)
def test_what_drops_says_what_it_draws_and_is_the_op_itself_where_nothing_is_dropped(dropout, name, stride, draws):
    op = ops.candidate(name, channels=4, stride=stride, dropout=dropout)
    assert op.draws == draws
    x, params = normal(64, 3, 2, 4), ops.init_params(jax.random.key(0), op.shapes)
    whole = apply(name, params | DRAWS, x, stride)
    nothing = params | DRAWS | {"rate": jnp.float32(0), "keep": jnp.ones(64)}
    np.testing.assert_array_equal(apply(name, nothing, x, stride, dropout=dropout), whole)
    drops = bool({"rate", "keep"} & set(draws))
    assert np.array_equal(apply(name, params | DRAWS, x, stride, dropout=dropout), whole) != drops


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
    with pytest.raises(ValueError, match="partial=0 must be at least 1"):
        ops.candidate("skip_connect", channels=6, stride=1, partial=0)


def test_an_unknown_dropout_is_refused():
    with pytest.raises(ValueError, match="dropout='drop' must be one of '', 'skip', 'path', 'nonskip'"):
        ops.candidate("skip_connect", channels=6, stride=1, dropout="drop")


# A skip connection beside an op ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("name", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"))
def test_an_op_with_a_skip_connection_is_the_sum_of_both(name, stride):
    fields = {"channels": 6, "stride": stride, "affine": True}
    both, alone, skip = (
        ops.candidate(n, pool_norm=True, **fields) for n in (f"{name}_with_skip", name, "skip_connect")
    )
    assert both.shapes == {**alone.shapes, **{f"skip_{key}": shape for key, shape in skip.shapes.items()}}
    x, params = normal(2, 5, 4, 6), {key: normal(*shape, seed=len(key)) for key, shape in both.shapes.items()}
    stats = {key: {"mean": normal(6, seed=len(key)), "var": normal(6) ** 2} for key in both.norms}
    prefixed = {key.removeprefix("skip_"): leaf for key, leaf in params.items() if key.startswith("skip_")}
    beside = {key.removeprefix("skip_"): leaf for key, leaf in stats.items() if key.startswith("skip_")}
    for train in (True, False):
        norm = ops.batch_normalizer(train=train, axis_name=None)
        y, moments = jax.jit(lambda p, s, x, norm=norm: both.apply(p, s, x, norm))(params, stats, x)
        of_op = jax.jit(lambda p, s, x, norm=norm: alone.apply(p, s, x, norm))(params, stats, x)
        of_skip = jax.jit(lambda p, s, x, norm=norm: skip.apply(p, s, x, norm))(prefixed, beside, x)
        np.testing.assert_allclose(y, of_op[0] + of_skip[0], rtol=1e-5, atol=1e-5)
        assert_trees_all_close(moments, of_op[1] | {f"skip_{key}": m for key, m in of_skip[1].items()}, rtol=1e-5)
