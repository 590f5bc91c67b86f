"""The candidate ops: name -> shapes of the parameters and a pure apply function.

An op is `apply(params, stats, x, norm) -> (y, moments)`: x and y are [B, H, W, C], `params` a dict of arrays of
`Op.shapes`, and `norm(x, stats) -> (y, moments)` the batch normalisation to use, called once for each name of
`Op.norms` with that name's running statistics (`stats[name]`, or None where there are none). `moments` has one entry
for each name of `Op.norms`. What an op draws, or draws with, it finds among its params as `Op.draws` names it: `seed`
f32[] (a whole number), the `rate` f32[] of dropout, and `keep` f32[B], the factors of drop-path.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels

Params = Mapping[str, jax.Array]
Moments = dict[str, dict[str, jax.Array]]
Norm = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Op:
    """One op at a given width and stride; see the module docstring for `apply`."""

    apply: Callable[..., tuple[jax.Array, Moments]]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    norms: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()


Dropout = Literal["", "skip", "path"]


def candidate(
    name: str, *, channels: int, stride: int, pool_norm: bool = False, dropout: Dropout = "", partial: int = 1
) -> Op:
    """The op `name` as a cell of width `channels` has it (DARTS; Liu et al., 2019, section 3.1.1).

    Args:
      name: any of `genotypes.OPS`, or one of NAS-Bench-201's; `none` only where partial is above 1.
      channels: C, of input and output.
      stride: 1 or 2.
      pool_norm: whether batch normalisation follows the pools, as in DARTS's supernet (not in PR-DARTS's released one).
      dropout: 'skip': the entries of what the identity gives are dropped (P-DARTS); 'path': what any op gives for an
        image is (R-DARTS).
      partial: K of `partially`.
    """
    op = (
        partially(name, channels, stride, pool_norm, partial)
        if partial > 1
        else _whole(name, channels, stride, pool_norm)
    )
    if dropout == "skip" and name == "skip_connect" and stride == 1:
        return with_dropout(op)
    if dropout == "path":
        return with_drop_path(op)
    return op


def _whole(name, channels, stride, pool_norm):
    if name == "skip_connect":
        return identity() if stride == 1 else factorized_reduce(channels, channels)
    if name == "noise":
        return noise(stride)
    if name in ("avg_pool_3x3", "max_pool_3x3"):
        kernel = kernels.avg_pool if name.startswith("avg") else kernels.max_pool
        return pool(kernel, stride, pool_norm)
    if name == "conv_7x1_1x7":
        return conv_7x1_1x7(channels, stride)
    for kind, build in (("sep_conv", sep_conv), ("dil_conv", dil_conv), ("nor_conv", nor_conv)):
        if name.startswith(kind):
            return build(int(name[-1]), channels, stride)
    raise ValueError(f"op {name!r} cannot be built: there is no such op")


def identity() -> Op:
    """y = x."""
    return Op(lambda params, stats, x, norm: (x, {}))


def noise(stride: int) -> Op:
    """N(0, 1) in place of the input (S4 of Zela et al., 2020)."""

    def apply(params, stats, x, norm):
        return jax.random.normal(_key(params), x[:, ::stride, ::stride].shape, x.dtype), {}

    return Op(apply, draws=("seed",))


def _key(params):
    return jax.random.key(params["seed"].astype(jnp.uint32))


def pool(kernel: Callable[[jax.Array, int], jax.Array], stride: int, norm_after: bool) -> Op:
    """A 3x3 pool, followed by batch normalisation if `norm_after`."""
    if not norm_after:
        return Op(lambda params, stats, x, norm: (kernel(x, stride), {}))

    def apply(params, stats, x, norm):
        y, moments = norm(kernel(x, stride), _get(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, norms=("norm",))


def relu_conv_norm(channels_in: int, channels: int) -> Op:
    """ReLU, 1x1 convolution, BN: how a cell maps its inputs to its own width."""

    def apply(params, stats, x, norm):
        y, moments = norm(kernels.pointwise_conv(jax.nn.relu(x), params["pointwise"]), _get(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, {"pointwise": (channels_in, channels)}, ("norm",))


def factorized_reduce(channels_in: int, channels: int) -> Op:
    """Halves the image: ReLU, two stride-2 1x1 convolutions, the second on x shifted by one pixel, concatenation,
    BN."""

    def apply(params, stats, x, norm):
        x = jax.nn.relu(x)
        shifted = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1::2, 1::2]
        y = jnp.concatenate(
            [
                kernels.pointwise_conv(x[:, ::2, ::2], params["even"]),
                kernels.pointwise_conv(shifted, params["odd"]),
            ],
            axis=-1,
        )
        y, moments = norm(y, _get(stats, "norm"))
        return y, {"norm": moments}

    half = channels // 2
    shapes = {"even": (channels_in, half), "odd": (channels_in, channels - half)}
    return Op(apply, shapes, ("norm",))


def dil_conv(size: int, channels: int, stride: int) -> Op:
    """ReLU, depthwise size x size of dilation 2, pointwise, BN."""
    return _depthwise_separable(size, channels, (stride,), dilation=2)


def sep_conv(size: int, channels: int, stride: int) -> Op:
    """(ReLU, depthwise size x size, pointwise, BN) twice, the stride in the first."""
    return _depthwise_separable(size, channels, (stride, 1), dilation=1)


def nor_conv(size: int, channels: int, stride: int) -> Op:
    """ReLU, size x size convolution, BN (NAS-Bench-201; Dong, Yang, ICLR 2020)."""
    if size == 1 and stride == 1:
        return relu_conv_norm(channels, channels)

    def apply(params, stats, x, norm):
        y, moments = norm(kernels.conv(jax.nn.relu(x), params["kernel"], (stride, stride)), _get(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, {"kernel": (size, size, channels, channels)}, ("norm",))


def conv_7x1_1x7(channels: int, stride: int) -> Op:
    """ReLU, 1x7 convolution, 7x1 convolution, BN: the factorised 7x7 convolution of NASNet and AmoebaNet."""

    def apply(params, stats, x, norm):
        x = kernels.conv(jax.nn.relu(x), params["row"], (1, stride))
        y, moments = norm(kernels.conv(x, params["column"], (stride, 1)), _get(stats, "norm"))
        return y, {"norm": moments}

    shapes = {"row": (1, 7, channels, channels), "column": (7, 1, channels, channels)}
    return Op(apply, shapes, ("norm",))


def _depthwise_separable(size, channels, strides, dilation):
    def apply(params, stats, x, norm):
        moments = {}
        for i, stride in enumerate(strides):
            x = kernels.depthwise_conv(jax.nn.relu(x), params[f"depthwise_{i}"], stride, dilation)
            x = kernels.pointwise_conv(x, params[f"pointwise_{i}"])
            x, moments[f"norm_{i}"] = norm(x, _get(stats, f"norm_{i}"))
        return x, moments

    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(len(strides)):
        shapes[f"depthwise_{i}"] = (size, size, channels)
        shapes[f"pointwise_{i}"] = (channels, channels)
    return Op(apply, shapes, tuple(f"norm_{i}" for i in range(len(strides))))


def _get(stats, name):
    return None if stats is None else stats[name]


# What changes a whole op ----------------------------------------------------------------------------------------------


def with_dropout(op: Op) -> Op:
    """The op, each entry of what it gives multiplied by 0 with the probability `rate`, else by 1 / (1 - rate)."""

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x, norm)
        keep = 1 - params["rate"]
        kept = jax.random.bernoulli(_key(params), keep, y.shape)
        return jnp.where(kept, y / keep.astype(y.dtype), 0), moments

    return Op(apply, op.shapes, op.norms, draws=(*op.draws, "seed", "rate"))


def with_drop_path(op: Op) -> Op:
    """The op, what it gives for an image multiplied by the image's `keep`; see `drop_path_factors`."""

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x, norm)
        return y * jax.lax.stop_gradient(params["keep"])[:, None, None, None].astype(y.dtype), moments

    return Op(apply, op.shapes, op.norms, draws=(*op.draws, "keep"))


def drop_path_factors(key: jax.Array, probability: jax.Array | float, shape: tuple[int, ...]) -> jax.Array:
    """What drop-path multiplies paths by: 0 with the probability, else 1 / (1 - probability), so that the mean is 1."""
    return jax.random.bernoulli(key, 1 - probability, shape) / (1 - probability)


def partially(name: str, channels: int, stride: int, pool_norm: bool, k: int) -> Op:
    """PC-DARTS (Xu et al., ICLR 2020, section 3.2): the op sees the first 1/K of the channels, the others go past it.

    At stride 2 those go through a 2x2 maximum. Then the channels are shuffled, so that another part is first. `none` is
    executed here: it gives 0 in place of the first part.

    Raises:
      ValueError: K does not divide the channels.
    """
    if channels % k:
        raise ValueError(f"channels={channels} must be a multiple of {k}, since an op sees 1/{k} of them")
    seen = channels // k
    op = Op(lambda params, stats, x, norm: (jnp.zeros_like(x[:, ::stride, ::stride]), {}))
    if name != "none":
        op = _whole(name, seen, stride, pool_norm)

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x[..., :seen], norm)
        y = jnp.concatenate([y, _halve(x[..., seen:]) if stride == 2 else x[..., seen:]], axis=-1)
        return jnp.swapaxes(y.reshape(*y.shape[:-1], k, seen), -1, -2).reshape(y.shape), moments

    return Op(apply, op.shapes, op.norms, op.draws)


def _halve(x):
    """A 2x2 maximum of stride 2; of an odd side the last row is its own."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).max(axis=(2, 4))


# Parameters and statistics --------------------------------------------------------------------------------------------


def init_params(
    key: jax.Array, shapes: Mapping[str, tuple[int, ...]], stack: tuple[int, ...] = ()
) -> dict[str, jax.Array]:
    """Draws kernels from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for convolutions.

    The fan-in is the product of all axes of a shape but the last: k k for a depthwise kernel [k, k, C], C for a
    pointwise one [C, D]. All kernels are cut from one draw: a draw each would take longer to compile than the search
    step.

    Args:
      key: consumed.
      shapes: `Op.shapes`.
      stack: how many kernels of each shape, for instance (edges,).

    Returns:
      f32[*stack, *shape] for each name.
    """
    sizes = [math.prod((*stack, *shape)) for shape in shapes.values()]
    drawn = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1, 1)
    params, start = {}, 0
    for (name, shape), size in zip(shapes.items(), sizes, strict=True):
        limit = 1 / math.sqrt(math.prod(shape[:-1]))
        params[name] = limit * drawn[start : start + size].reshape(*stack, *shape)
        start += size
    return params


def init_stats(op: Op, channels: int, stack: tuple[int, ...] = ()) -> Moments:
    """Running statistics before any batch: mean 0 and variance 1, f32[*stack, C]."""
    return {name: init_moments(channels, stack) for name in op.norms}


def init_moments(channels: int, stack: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    """Running moments of one normalisation before any batch."""
    shape = (*stack, channels)
    return {"mean": jnp.zeros(shape, jnp.float32), "var": jnp.ones(shape, jnp.float32)}


def batch_normalizer(*, train: bool, axis_name: str | None) -> Norm:
    """The `norm` argument of an op: by the batch when `train` or without running statistics, else by those."""

    def norm(x, stats):
        if train or stats is None:
            return kernels.batch_norm(x, axis_name)
        scale = jax.lax.rsqrt(stats["var"] + kernels.EPSILON)
        return ((x.astype(jnp.float32) - stats["mean"]) * scale).astype(x.dtype), stats

    return norm


def batch_normalizer_again(axis_name: str | None) -> Norm:
    """`batch_normalizer` where `stats` are the moments that it has given for the same x before."""

    def norm(x, stats):
        return kernels.batch_norm_again(x, stats, axis_name), stats

    return norm


def update_running(stats, moments, executed=True):
    """Moves running statistics a tenth of the way to the batch's where `executed` (PyTorch's momentum 0.1).

    `executed` broadcasts from the left: bool[] or bool[stack].
    """

    def move(old, new):
        where = jnp.reshape(executed, jnp.shape(executed) + (1,) * (old.ndim - jnp.ndim(executed)))
        return jnp.where(where, old + 0.1 * (new - old), old)

    return jax.tree.map(move, stats, moments)
