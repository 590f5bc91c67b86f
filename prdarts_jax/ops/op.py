"""What an op is: a pure function of parameters whose shapes it names; how those start, and what normalises."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels

Params = Mapping[str, jax.Array]
Moments = dict[str, dict[str, jax.Array]]
Norm = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Statistics = dict[str, Any]  # f32[stack, C] in nested dicts


@dataclasses.dataclass(frozen=True)
class Op:
    """One op at a given width and stride.

    Attributes:
      apply: (params, stats, x, norm) -> (y, moments). x [B, H, W, C] and y [B, h, w, D] have one dtype. `params` has
        the arrays of `shapes`, f32, and what `draws` names. `norm(x, stats) -> (y, moments)` is the batch normalisation
        to use, called once for each name of `norms` with the `running` statistics of that name. `moments` has what it
        gave for each of those names.
      shapes: name -> shape of each kernel, its last axis that of the output.
      norms: the names of the normalisations.
      draws: what the op draws with, among its `params`: `seed` f32[] (a whole number, see `random_key`), `rate` f32[]
        of dropout, and `keep` f32[B], the factors of drop-path.
    """

    apply: Callable[..., tuple[jax.Array, Moments]]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    norms: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()


def normalizing(
    compute: Callable[[Params, jax.Array], jax.Array],
    shapes: Mapping[str, tuple[int, ...]],
    draws: tuple[str, ...] = (),
) -> Op:
    """The op that normalises once, what `compute(params, x)` gives."""

    def apply(params, stats, x, norm):
        y, moments = norm(compute(params, x), running(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, shapes, ("norm",), draws)


def running(stats: Moments | None, name: str) -> dict[str, jax.Array] | None:
    """The running statistics of one normalisation of an op, or None where there are none."""
    return None if stats is None else stats[name]


def random_key(params: Params) -> jax.Array:
    """The key of an op that has `seed` among its `draws`."""
    return jax.random.key(params["seed"].astype(jnp.uint32))


def init_params(
    key: jax.Array, shapes: Mapping[str, tuple[int, ...]], stack: tuple[int, ...] = ()
) -> dict[str, jax.Array]:
    """Draws kernels from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for convolutions.

    The fan-in is the product of all axes of a shape but the last: k k for a depthwise kernel [k, k, C], C for a
    pointwise one [C, D]. All kernels are cut from one draw: a draw each would take longer to compile than the search
    step. A shape of one axis is that of a scale, which starts as 1, or of a bias, 0 (see `with_affine`). `stack` is how
    many of each shape there are, for instance (edges,).

    Returns:
      f32[*stack, *shape] for each name.
    """
    drawn_shapes = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    sizes = [math.prod((*stack, *shape)) for shape in drawn_shapes.values()]
    drawn = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1, 1)
    params, start = {}, 0
    for name, shape in shapes.items():
        if len(shape) == 1:
            params[name] = jnp.full((*stack, *shape), name.endswith("scale"), jnp.float32)
    for (name, shape), size in zip(drawn_shapes.items(), sizes, strict=True):
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
    return lambda x, stats: (kernels.batch_norm_again(x, stats, axis_name), stats)


def update_running(stats: Statistics, moments: Statistics, executed: Any = True) -> Statistics:
    """Moves running statistics a tenth of the way to the batch's where `executed` (PyTorch's momentum 0.1).

    `executed` broadcasts from the left, bool[] or bool[stack]; a dict of such has one for each entry of `stats`.
    """

    def move(executed, old, new):
        where = jnp.reshape(executed, jnp.shape(executed) + (1,) * (old.ndim - jnp.ndim(executed)))
        return jnp.where(where, old + 0.1 * (new - old), old)

    def move_all(executed, *trees):
        return jax.tree.map(functools.partial(move, executed), *trees)

    return jax.tree.map(move_all, executed, stats, moments)
