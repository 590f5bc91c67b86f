"""The type of an op: a pure function and the shapes of its parameters; initialisation, and batch normalisation."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels
from prdarts_jax.refusals import shown

Params = Mapping[str, jax.Array]
Moments = dict[str, dict[str, jax.Array]]
Norm = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Statistics = dict[str, Any]  # f32[stack, C] in nested dicts


@dataclasses.dataclass(frozen=True)
class Op:
    """One op at a given width and stride.

    Attributes:
      apply: (params, stats, x, norm) -> (y, moments). x [B, H, W, C] and y [B, h, w, D] have the same dtype. `params`
        has an f32 array for each name in `shapes` and in `draws`. `norm(x, stats) -> (y, moments)` is the batch
        normalisation to use, such as `batch_normalizer`; call it once for each name in `norms`, with D channels and
        `running(stats, name)`, and return {name: the moments that it returned}. Use `stats` only for `running`, and
        what that returns only for `norm`.
      shapes: name -> shape of each kernel; the last axis is that of the output channels.
      norms: the names of the normalisations.
      draws: the names of the random inputs that the op needs among its `params`: `seed` f32[], a whole number for
        `random_key`; `rate` f32[], the probability of dropout; `keep` f32[B], the factors of `drop_path_factors`. An
        op that is registered may need only `seed`; `candidate` adds the others.
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
    """An op with one batch normalisation, named 'norm', of `compute(params, x)` in the dtype of x; for `shapes` and
    `draws` see `Op`."""

    def apply(params, stats, x, norm):
        y, moments = norm(compute(params, x).astype(x.dtype), running(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, shapes, ("norm",), draws)


def running(stats: Moments | None, name: str) -> dict[str, jax.Array] | None:
    """The statistics {'mean', 'var'} of the normalisation `name` of an op, or None if `stats` is None.

    Raises:
      ValueError: the op has no such normalisation.
    """
    if stats is not None and name not in stats:
        raise ValueError(f"normalisation {shown(name)} must be one of the op's norms={tuple(stats)}")
    return None if stats is None else stats[name]


def random_key(params: Params) -> jax.Array:
    """A typed JAX key made of `params['seed']`, for an op that has `seed` in its `draws`."""
    return jax.random.key(params["seed"].astype(jnp.uint32))


def init_params(
    key: jax.Array, shapes: Mapping[str, tuple[int, ...]], stack: tuple[int, ...] = ()
) -> dict[str, jax.Array]:
    """Draws kernels from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for convolutions.

    The fan-in is the product of all axes of a shape but the last: k * k for a depthwise kernel [k, k, C], C for a
    pointwise kernel [C, D]. A shape of at most one axis is that of a scale, whose name ends in 'scale' and which starts
    as 1, or of a bias, which starts as 0 (see `with_affine`). `stack` are leading axes of all arrays, for instance
    (edges,).

    All kernels are slices of one random array, since drawing each by itself would take longer to compile than the
    search step.

    Returns:
      f32[*stack, *shape] for each name.
    """
    stacked = {name: (*stack, *shape) for name, shape in shapes.items()}
    size = sum(math.prod(stacked[name]) for name, shape in shapes.items() if len(shape) > 1)
    drawn, params, start = jax.random.uniform(key, (size,), jnp.float32, -1, 1), {}, 0
    for name, shape in shapes.items():
        if len(shape) < 2:
            params[name] = jnp.full(stacked[name], name.endswith("scale"), jnp.float32)
        else:
            limit, end = 1 / math.sqrt(math.prod(shape[:-1])), start + math.prod(stacked[name])
            params[name] = limit * drawn[start:end].reshape(stacked[name])
            start = end
    return params


def init_stats(op: Op, channels: int, stack: tuple[int, ...] = ()) -> Moments:
    """The running statistics of an op before any batch: {name: `init_moments`} for each of its normalisations."""
    return {name: init_moments(channels, stack) for name in op.norms}


def init_moments(channels: int, stack: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    """The running statistics of one normalisation before any batch: mean 0 and var 1, each f32[*stack, channels]."""
    shape = (*stack, channels)
    return {"mean": jnp.zeros(shape, jnp.float32), "var": jnp.ones(shape, jnp.float32)}


def batch_normalizer(*, train: bool, axis_name: str | None) -> Norm:
    """The `norm` argument of `Op.apply`.

    It normalises by the moments of the batch, and returns them, if `train` is set or it is given no running statistics;
    otherwise it normalises by the running statistics and returns those. For `axis_name` see `kernels.batch_norm`.
    """

    def norm(x, stats):
        if train or stats is None:
            return kernels.batch_norm(x, axis_name)
        return kernels.normalized(x, stats["mean"], stats["var"])[0], stats

    return norm


def batch_normalizer_again(axis_name: str | None) -> Norm:
    """Like `batch_normalizer` in training, for an op that is computed again on the same x in the backward pass: its
    `stats` are the moments that `batch_normalizer` returned, which are not computed again."""
    return lambda x, stats: (kernels.batch_norm_again(x, stats, axis_name), stats)


def update_running(stats: Statistics, moments: Statistics, executed: Any = True) -> Statistics:
    """Moves the running statistics of executed ops a tenth of the way to those of the batch (PyTorch's momentum 0.1).

    `executed` is bool[], or bool of the leading axes of the statistics, or a dict of these with the keys of `stats`.
    The statistics of ops that were not executed stay as they are.
    """

    def move(executed, old, new):
        where = jnp.reshape(executed, jnp.shape(executed) + (1,) * (old.ndim - jnp.ndim(executed)))
        return jnp.where(where, old + 0.1 * (new - old), old)

    def move_all(executed, *trees):
        return jax.tree.map(functools.partial(move, executed), *trees)

    return jax.tree.map(move_all, executed, stats, moments)
