"""What changes a whole op, and `candidate`, which builds an op with the changes that a supernet asks for."""

from typing import Literal

import jax
import jax.numpy as jnp

from prdarts_jax.ops.op import Op, normalizing, random_key, running
from prdarts_jax.ops.registry import find

Dropout = Literal["", "skip", "path", "nonskip"]


def candidate(
    name: str,
    *,
    channels: int,
    stride: int,
    pool_norm: bool = False,
    affine: bool = False,
    dropout: Dropout = "",
    partial: int = 1,
) -> Op:
    """The op `name` as a cell of width `channels` has it.

    Args:
      name: of a registered op.
      channels: C, of input and output.
      stride: 1 or 2.
      pool_norm: normalise after pools that do not do so themselves, as DARTS's supernet does (PR-DARTS's does not).
      affine: whether normalisations have a scale and a bias, as in a discrete network.
      dropout: 'skip': the entries of what a skip connection of stride 1 gives are dropped (P-DARTS); 'path': what any
        op gives for an image is (R-DARTS); 'nonskip': what any op but a skip connection of stride 1 gives is, as in a
        discrete network.
      partial: K of `partially`.

    Raises:
      ValueError: there is no such op, or `partial` does not divide the channels.
    """
    entry = find(name)
    if channels % partial:
        raise ValueError(f"channels={channels} must be a multiple of {partial}, since an op sees 1/{partial} of them")
    op = entry.build(channels // partial, stride)
    if pool_norm and entry.group == "pool" and not op.norms:
        pool = op
        op = normalizing(lambda params, x: pool.apply(params, None, x, None)[0], pool.shapes, pool.draws)
    if affine:
        op = with_affine(op, channels // partial)
    if partial > 1:
        op = partially(op, channels // partial, stride)
    identity = entry.group == "skip" and stride == 1
    if dropout == "skip" and identity:
        return _changed(op, _drop_entries, "seed", "rate")
    return _changed(op, _drop_images, "keep") if dropout == "path" or (dropout == "nonskip" and not identity) else op


def with_affine(op: Op, channels: int) -> Op:
    """The op, each of its normalisations followed by a scale and a bias for each channel.

    Its parameters have, beside those of the op, NORM_scale and NORM_bias f32[C] for each NORM of its normalisations.
    """

    def apply(params, stats, x, norm):
        def scaled(x, given):
            name, own = given
            y, moments = norm(x, own)
            return y * params[f"{name}_scale"].astype(y.dtype) + params[f"{name}_bias"].astype(y.dtype), moments

        return op.apply(params, {name: (name, running(stats, name)) for name in op.norms}, x, scaled)

    terms = {f"{name}_{term}": (channels,) for name in op.norms for term in ("scale", "bias")}
    return Op(apply, {**op.shapes, **terms}, op.norms, op.draws)


def partially(op: Op, seen: int, stride: int) -> Op:
    """PC-DARTS (Xu et al., ICLR 2020, section 3.2): the op sees the first `seen` channels, the others go past it.

    At stride 2 those go through a 2x2 maximum. Then the channels are shuffled, so that another part is first. `seen` is
    the width of `op`, C / K where x is [B, H, W, C].
    """

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x[..., :seen], norm)
        y = jnp.concatenate([y, _halve(x[..., seen:]) if stride == 2 else x[..., seen:]], axis=-1)
        return jnp.swapaxes(y.reshape(*y.shape[:-1], -1, seen), -1, -2).reshape(y.shape), moments

    return Op(apply, op.shapes, op.norms, op.draws)


def _halve(x):
    """A 2x2 maximum of stride 2; of an odd side the last row is its own."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).max(axis=(2, 4))


def _changed(op, change, *draws):
    """The op, what it gives put through `change(params, y)`."""

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x, norm)
        return change(params, y), moments

    return Op(apply, op.shapes, op.norms, (*op.draws, *draws))


def _drop_entries(params, y):
    """Each entry multiplied by 0 with the probability `rate`, else by 1 / (1 - rate)."""
    keep = 1 - params["rate"]
    kept = jax.random.bernoulli(random_key(params), keep, y.shape)
    return jnp.where(kept, y / keep.astype(y.dtype), 0)


def _drop_images(params, y):
    """Each image multiplied by its `keep`; see `drop_path_factors`."""
    return y * jax.lax.stop_gradient(params["keep"])[:, None, None, None].astype(y.dtype)


def drop_path_factors(key: jax.Array, probability: jax.Array | float, shape: tuple[int, ...]) -> jax.Array:
    """What drop-path multiplies paths by: 0 with the probability, else 1 / (1 - probability), so that the mean is 1."""
    return jax.random.bernoulli(key, 1 - probability, shape) / (1 - probability)
