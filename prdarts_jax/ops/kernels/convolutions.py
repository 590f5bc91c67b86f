"""Depthwise, dense and pointwise (1x1) convolutions."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from prdarts_jax.ops.kernels.windows import spread, taps


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves every channel with a filter of its own; x is 0 outside the image.

    y[b, i, j, c] = sum_{u, v} kernel[u, v, c] x[b, s i + d u - p, s j + d v - p, c],  p = d (k - 1) / 2.

    The gradients are dx = the same convolution of the stride-dilated dy with the kernel flipped, and
    dkernel[u, v, c] = sum_{b, i, j} dy[b, i, j, c] x[b, s i + d u - p, s j + d v - p, c].

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C], k odd.
      stride, dilation: s and d, the same in both directions.

    Returns:
      [B, ceil(H / s), ceil(W / s), C], dtype of x.

    Raises:
      AssertionError: the kernel has other channels than x.
    """
    return _depthwise(stride, dilation, x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise(stride, dilation, x, kernel):
    chex.assert_shape(kernel, (None, None, x.shape[-1]))  # one channel would be broadcast on a CPU
    options = {"stride": stride, "dilation": dilation}
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(shifted_conv, **options),
        default=functools.partial(grouped_conv, **options),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise_backward(stride, dilation, residuals, dy):
    def grouped(x, kernel, dy):
        conv = functools.partial(grouped_conv, stride=stride, dilation=dilation)
        return jax.vjp(conv, x, kernel)[1](dy)

    def shifted(x, kernel, dy):
        windows = spread(dy, x.shape[1:3], kernel.shape[:2], (stride, stride), dilation)
        dx = _weighted_sum(windows, kernel[::-1, ::-1], dy.dtype)
        windows = taps(x, kernel.shape[:2], (stride, stride), dilation)
        dy = dy.astype(jnp.float32)
        sums = _image_sums(tuple(dy * window.astype(jnp.float32) for window in windows))
        return dx, jnp.sum(jnp.stack(sums), axis=1).reshape(kernel.shape).astype(kernel.dtype)

    return lax.platform_dependent(*residuals, dy, cpu=shifted, default=grouped)


depthwise_conv.defvjp(lambda x, kernel, *options: (_depthwise(*options, x, kernel), (x, kernel)), _depthwise_backward)


def grouped_conv(x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """`depthwise_conv` by XLA's grouped convolution, as on a GPU or TPU."""
    return _lax_conv((stride, stride), x, kernel[:, :, None, :], dilation, x.shape[-1])


def shifted_conv(x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """`depthwise_conv` by shifted multiply-adds, as on a CPU."""
    return _weighted_sum(taps(x, kernel.shape[:2], (stride, stride), dilation), kernel, x.dtype)


@jax.custom_jvp
def _image_sums(arrays):
    # One reduction over all taps at once reads x and dy once; k * k separate ones would read them k * k times. Each
    # image, which fits into a core's cache, is reduced by itself, since XLA reads its operand once for every channel.
    return lax.reduce(
        arrays,
        (jnp.float32(0),) * len(arrays),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        (1, 2),
    )


# The derivative of lax.reduce does not know that this reduction is linear: it would halve the arrays again and again.
_image_sums.defjvp(lambda primals, tangents: (_image_sums(*primals), _image_sums(*tangents)))


def _weighted_sum(windows, kernel, dtype):
    factors = jnp.split(kernel.astype(jnp.float32).ravel(), len(windows))
    return sum(window.astype(jnp.float32) * factor for window, factor in zip(windows, factors, strict=True)).astype(
        dtype
    )


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1x1 convolution as one matrix product: x [B, H, W, C], kernel [C, D] -> [B, H, W, D], dtype of x."""
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """A dense convolution; x is 0 outside the image.

    y[b, i, j, e] = sum_{u, v, c} kernel[u, v, c, e] x[b, s i + u - p, t j + v - q, c], with (s, t) the strides,
    p = (k - 1) / 2 and q = (l - 1) / 2. The gradients are dx = the same convolution of the stride-dilated dy with the
    kernel flipped and c and e exchanged, and dkernel[u, v, c, e] = sum_{b, i, j} dy[b, i, j, e] x[b, s i + u - p,
    t j + v - q, c].

    Args:
      x: [B, H, W, C].
      kernel: [k, l, C, D], k and l odd.
      strides: of the rows and of the columns.

    Returns:
      [B, ceil(H / strides[0]), ceil(W / strides[1]), D], dtype of x.
    """
    return _conv(strides, x, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _conv(strides, x, kernel):
    def tapped(x, kernel):
        read = jnp.concatenate(taps(x, kernel.shape[:2], strides), axis=-1)
        return _product(read, kernel.reshape(-1, kernel.shape[-1])).astype(x.dtype)

    return lax.platform_dependent(x, kernel, cpu=tapped, default=functools.partial(_lax_conv, strides))


@functools.partial(jax.jit, static_argnums=0)
def _conv_backward(strides, residuals, dy):
    def tapped(x, kernel, dy):
        shape = kernel.shape[:2]
        leading = jnp.concatenate(spread(dy, x.shape[1:3], shape, strides), axis=-1)
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        dx = _product(leading, flipped.reshape(-1, x.shape[-1])).astype(x.dtype)
        read = jnp.concatenate(taps(x, shape, strides), axis=-1)
        dkernel = lax.dot_general(read, dy, (((0, 1, 2), (0, 1, 2)), ((), ())), preferred_element_type=jnp.float32)
        return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)

    def default(x, kernel, dy):
        return jax.vjp(functools.partial(_lax_conv, strides), x, kernel)[1](dy)

    return lax.platform_dependent(*residuals, dy, cpu=tapped, default=default)


conv.defvjp(lambda x, kernel, strides: (_conv(strides, x, kernel), (x, kernel)), _conv_backward)


def _lax_conv(strides, x, kernel, dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        strides,
        [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _product(x, matrix):
    """x @ matrix in float32, the matrix in the dtype of x."""
    return jnp.matmul(x, matrix.astype(x.dtype), preferred_element_type=jnp.float32)
