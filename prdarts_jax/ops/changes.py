"""Functions that change a whole op, and `candidate`, which builds an op with the changes that a supernet needs."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from prdarts_jax.ops import checks
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
    """Builds the registered op `name` as it is used in a cell with `channels` channels; see `checks.build`.

    Args:
      name: of a registered op.
      channels: C, of input and output.
      stride: 1 or 2.
      pool_norm: normalise the output of a pool that has no normalisation of its own, as DARTS's supernet does
        (PR-DARTS's does not).
      affine: give each normalisation a scale and a bias, as in a discrete network.
      dropout: '': nothing is dropped. 'skip': single entries of the output of a skip connection of stride 1 are dropped
        (P-DARTS). 'path': the whole output of any op is dropped for some images (R-DARTS). 'nonskip': the same for all
        ops but a skip connection of stride 1, as in a discrete network.
      partial: K: the op sees C / K channels, see `partially`.

    Raises:
      ValueError: there is no such op or `dropout`, the op cannot be built, or `partial` does not divide the channels.
    """
    entry = find(name)
    if dropout not in get_args(Dropout):
        raise ValueError(f"dropout={dropout!r} must be one of {', '.join(map(repr, get_args(Dropout)))}")
    if partial < 1:
        raise ValueError(f"partial={partial} must be at least 1")
    if channels % partial:
        raise ValueError(f"channels={channels} must be a multiple of {partial}, since an op sees 1/{partial} of them")
    op = checks.build(name, channels // partial, stride)
    if pool_norm and entry.group == "pool" and not op.norms:
        op = normalized(op)
    if affine:
        op = with_affine(op, channels // partial)
    if partial > 1:
        op = partially(op, channels // partial, stride)
    identity = entry.group == "skip" and stride == 1
    if dropout == "skip" and identity:
        return _changed(op, _drop_entries, "seed", "rate")
    return _changed(op, _drop_images, "keep") if dropout == "path" or (dropout == "nonskip" and not identity) else op


def normalized(op: Op) -> Op:
    """Adds a normalisation of the output to an op that has none."""
    return normalizing(lambda params, x: op.apply(params, None, x, None)[0], op.shapes, op.draws)


def with_skip(op: Op, skip: Op) -> Op:
    """The sum of an op and of a skip connection, whose kernels and normalisations get the prefix `skip_`."""

    def of_skip(tree):
        return tree and {name.removeprefix("skip_"): leaf for name, leaf in tree.items() if name.startswith("skip_")}

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x, norm)
        beside, others = skip.apply(of_skip(params), of_skip(stats), x, norm)
        return y + beside, {**moments, **{f"skip_{name}": value for name, value in others.items()}}

    shapes = {**op.shapes, **{f"skip_{name}": shape for name, shape in skip.shapes.items()}}
    return Op(apply, shapes, (*op.norms, *(f"skip_{name}" for name in skip.norms)), op.draws)


def with_affine(op: Op, channels: int) -> Op:
    """Adds a scale and a bias for each channel after each normalisation of an op with C = `channels` channels.

    The new op has the parameters of the old one and, for each of its normalisations NORM, NORM_scale and NORM_bias
    f32[C].
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
    """Applies the op to the first `seen` channels only; the others bypass it (PC-DARTS; Xu et al., ICLR 2020, section
    3.2).

    x is [B, H, W, C], and `op` has `seen` = C / K channels. At stride 2 the channels that bypass it go through a 2x2
    maximum. Then the channels are shuffled, always in the same way, so that other ones come first: channel
    k * seen + s moves to s * K + k.

    The output of an edge is a sum of such ops, each with its weight. So the channels that bypass them are multiplied by
    the sum of the weights, which is 1 in PC-DARTS.
    """

    def apply(params, stats, x, norm):
        y, moments = op.apply(params, stats, x[..., :seen], norm)
        y = jnp.concatenate([y, _halve(x[..., seen:]) if stride == 2 else x[..., seen:]], axis=-1)
        return jnp.swapaxes(y.reshape(*y.shape[:-1], -1, seen), -1, -2).reshape(y.shape), moments

    return Op(apply, op.shapes, op.norms, op.draws)


def _halve(x):
    """A 2x2 maximum of stride 2; the last row or column of an odd side is by itself."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).max(axis=(2, 4))


def _changed(op, change, *draws):
    """The op with `change(params, y)` applied to its output y; `draws` are the random inputs that the change needs."""

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
    """The factors of drop-path, f32[*shape]: 0 with this probability, else 1 / (1 - probability), so their mean is 1.

    `probability` is below 1.
    """
    return jax.random.bernoulli(key, 1 - probability, shape) / (1 - probability)
