"""Parameters and running statistics of ops, and the normalisations that use and make them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels
from prdarts_jax.ops.op import Moments, Norm, Op

Statistics = dict[str, Any]  # f32[stack, C] in nested dicts


def init_params(
    key: jax.Array, shapes: Mapping[str, tuple[int, ...]], stack: tuple[int, ...] = ()
) -> dict[str, jax.Array]:
    """Draws kernels from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for convolutions.

    A shape of one axis is that of a scale, which is 1, or of a bias, which is 0 (see `with_affine`).

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
    kernels = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    sizes = [math.prod((*stack, *shape)) for shape in kernels.values()]
    drawn = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1, 1)
    params, start = {}, 0
    for name, shape in shapes.items():
        if len(shape) == 1:
            params[name] = jnp.full((*stack, *shape), name.endswith("scale"), jnp.float32)
    for (name, shape), size in zip(kernels.items(), sizes, strict=True):
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
        return kernels.normalized(x, stats["mean"], stats["var"])[0], stats

    return norm


def batch_normalizer_again(axis_name: str | None) -> Norm:
    """`batch_normalizer` where `stats` are the moments that it has given for the same x before."""

    def norm(x, stats):
        return kernels.batch_norm_again(x, stats, axis_name), stats

    return norm


def update_running(stats: Statistics, moments: Statistics, executed: jax.Array | bool = True) -> Statistics:
    """Moves running statistics a tenth of the way to the batch's where `executed` (PyTorch's momentum 0.1).

    `executed` broadcasts from the left: bool[] or bool[stack].
    """

    def move(old, new):
        where = jnp.reshape(executed, jnp.shape(executed) + (1,) * (old.ndim - jnp.ndim(executed)))
        return jnp.where(where, old + 0.1 * (new - old), old)

    return jax.tree.map(move, stats, moments)
