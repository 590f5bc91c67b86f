"""Batch normalisation without affine terms, on one device or with a batch that is spread over several."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-5  # of every batch normalisation, as in PyTorch


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def batch_norm(x: jax.Array, axis_name: str | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalises every channel by the mean and variance of the (global) batch (Ioffe and Szegedy, ICML 2015).

    With eps = 1e-5, r = 1 / sqrt(var + eps) and y = (x - mean) r: dx = r (dy - mean(dy) - y mean(dy y)).

    Args:
      x: [B, H, W, C].
      axis_name: mapped axis over which the batch is spread, if any; the gradient must be taken inside that mapping.
        Rounding then adds about 1e-7 mean^2 to the variance: 0.1 % of it if |mean| is 100 standard deviations.

    Returns:
      (y, moments): y [B, H, W, C] of the dtype of x, and the moments for running statistics, `mean` f32[C] and `var`
      f32[C] (unbiased, as PyTorch keeps it). No gradient flows through the moments.
    """
    return _batch_norm_forward(x, axis_name)[0]


def _mean(x):
    return jnp.mean(x, axis=tuple(range(x.ndim - 1)))


def _mean_of_parts(axis_name, *means):
    """The means over the whole batch, by one all-reduce: the time of small ones depends on their number, not on their
    size."""
    return means if axis_name is None else lax.pmean(jnp.stack(means), axis_name)


@functools.partial(jax.jit, static_argnums=1)
def _batch_norm_forward(x, axis_name):
    wide = x.astype(jnp.float32)
    mean = _mean(wide)
    var = _mean(jnp.square(wide - mean))
    if axis_name is not None:  # the mean variance of the parts, and the variance of their means
        mean, var, square = _mean_of_parts(axis_name, mean, var, jnp.square(mean))
        var += jnp.maximum(square - jnp.square(mean), 0.0)
    moments = {"mean": mean, "var": var / _biased(x, axis_name)}
    y, scale = normalized(x, mean, var)
    return (y, moments), (y, scale)


def _biased(x, axis_name):
    """(n - 1) / n for n values per channel in the (global) batch: this times the variance of `moments` is the biased
    one to normalise by."""
    count = x.size // x.shape[-1] * (1 if axis_name is None else lax.axis_size(axis_name))
    return max(count - 1, 1) / count


def normalized(x: jax.Array, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Normalises x [..., C] by a mean and a variance, each f32[C].

    Returns:
      ((x - mean) * scale, of the dtype of x; scale = 1 / sqrt(var + eps), f32[C], with eps = 1e-5).
    """
    scale = lax.rsqrt(var + EPSILON)
    return ((x.astype(jnp.float32) - mean) * scale).astype(x.dtype), scale


@functools.partial(jax.jit, static_argnums=0)
def _batch_norm_backward(axis_name, residuals, cotangents):
    return (_batch_norm_dx(axis_name, residuals, cotangents[0]),)


def _batch_norm_dx(axis_name, residuals, dy):
    y, scale = residuals
    dy, wide = dy.astype(jnp.float32), y.astype(jnp.float32)
    mean, slope = _mean_of_parts(axis_name, _mean(dy), _mean(dy * wide))
    dx = scale * (dy - mean - wide * slope)
    return dx.astype(y.dtype)


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def batch_norm_again(x: jax.Array, moments: dict[str, jax.Array], axis_name: str | None = None) -> jax.Array:
    """The y of `batch_norm`, with the same gradient, if the moments of x are known already, as in a backward pass that
    computes an op again.

    `moments` are those that `batch_norm` returned, `mean` f32[C] and unbiased `var` f32[C]; they get no gradient.
    """
    return _again_forward(x, moments, axis_name)[0]


@functools.partial(jax.jit, static_argnums=2)
def _again_forward(x, moments, axis_name):
    y, scale = normalized(x, moments["mean"], moments["var"] * _biased(x, axis_name))
    return y, (y, scale)


@functools.partial(jax.jit, static_argnums=0)
def _again_backward(axis_name, residuals, dy):
    return _batch_norm_dx(axis_name, residuals, dy), None


batch_norm_again.defvjp(_again_forward, _again_backward)
