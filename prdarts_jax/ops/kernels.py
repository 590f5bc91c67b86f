"""Convolutions, pooling and batch normalisation with gradients of their own.

On a CPU, XLA's grouped convolution and its gradients, and the gradient of `lax.reduce_window`, are many times slower
than a few shifted multiply-adds; so are, in a compiled loop, the gradients of any convolution than one matrix product
of all taps. Elsewhere XLA's convolutions are taken to be the fast path, so the kernels choose by the platform they are
compiled for. Pools are nine shifted taps everywhere.

The gradients may be differentiated again, in forward mode: `jax.jvp` of `jax.grad`. For that, no forward or backward
rule calls a function that has such rules. What is moved outside must be moved inside too: a kernel none of whose
arguments depends on what the gradient is taken in has no forward mode.

Every image array is [B, H, W, C]; "same" padding, so a stride s leaves ceil(H / s) rows. Outputs have the dtype of the
input; the shifted convolutions, average pooling and batch normalisation take their sums in float32.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EPSILON = 1e-5  # of every batch normalisation, as in PyTorch


def _out(size: int, stride: int) -> int:
    return -(-size // stride)


# Depthwise convolution ------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves every channel with a filter of its own.

    y[b, i, j, c] = sum_{u, v} kernel[u, v, c] x[b, s i + d u - p, s j + d v - p, c],  p = d (k - 1) / 2.

    The gradients are dx = the same convolution of the stride-dilated dy with the kernel flipped, and
    dkernel[u, v, c] = sum_{b, i, j} dy[b, i, j, c] x[b, s i + d u - p, s j + d v - p, c].

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C], k odd.
      stride: s, the same in both directions.
      dilation: d, the same in both directions.

    Returns:
      [B, ceil(H / s), ceil(W / s), C], dtype of x.
    """
    return _depthwise(stride, dilation, x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise(stride, dilation, x, kernel):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted_conv, stride=stride, dilation=dilation),
        default=functools.partial(_grouped_conv, stride=stride, dilation=dilation),
    )


def _depthwise_forward(x, kernel, stride, dilation):
    return _depthwise(stride, dilation, x, kernel), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise_backward(stride, dilation, residuals, dy):
    def grouped(x, kernel, dy):
        conv = functools.partial(_grouped_conv, stride=stride, dilation=dilation)
        return jax.vjp(conv, x, kernel)[1](dy)

    def shifted(x, kernel, dy):
        return (
            _shifted_conv_dx(kernel, dy, x.shape, stride, dilation),
            _shifted_conv_dkernel(x, dy, kernel, stride, dilation),
        )

    return lax.platform_dependent(*residuals, dy, cpu=shifted, default=grouped)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def _grouped_conv(x, kernel, *, stride, dilation):
    pad = dilation * (kernel.shape[0] // 2)
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype)[:, :, None, :],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _shifted_conv(x, kernel, *, stride, dilation):
    return _weighted_sum(_taps(x, kernel.shape[:2], (stride, stride), dilation), kernel, x.dtype)


def _shifted_conv_dx(kernel, dy, shape, stride, dilation):
    windows = _spread(dy, shape[1:3], kernel.shape[:2], (stride, stride), dilation)
    return _weighted_sum(windows, kernel[::-1, ::-1], dy.dtype)


def _shifted_conv_dkernel(x, dy, kernel, stride, dilation):
    windows = _taps(x, kernel.shape[:2], (stride, stride), dilation)
    dy = dy.astype(jnp.float32)
    sums = _image_sums(tuple(dy * window.astype(jnp.float32) for window in windows))
    return jnp.sum(jnp.stack(sums), axis=1).reshape(kernel.shape).astype(kernel.dtype)


@jax.custom_jvp
def _image_sums(arrays):
    # One reduction over all taps at once reads x and dy once; k * k separate ones would read them k * k times. It is
    # taken over each image, which fits into a core's cache, since XLA goes through its operand once for every channel.
    return lax.reduce(
        arrays,
        (jnp.float32(0),) * len(arrays),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        (1, 2),
    )


# That of lax.reduce would not know that the reduction is linear, and halve the arrays again and again.
_image_sums.defjvp(lambda primals, tangents: (_image_sums(*primals), _image_sums(*tangents)))


def _pad(x, margins, interior=(0, 0), fill=0):
    (rows, columns), (a, b) = margins, interior
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), (*rows, a), (*columns, b), (0, 0, 0)))
    # Without the barrier XLA fuses the producer of x into every tap and computes it once for each.
    return lax.optimization_barrier(padded)


def _windows(padded, size, shape, strides, dilation):
    """The k * l strided slices, each of `size`, of a padded image that the taps of a filter see, row by row."""
    batch, *_, channels = padded.shape
    rows, columns = ((out - 1) * stride + 1 for out, stride in zip(size, strides, strict=True))
    return [
        lax.slice(padded, (0, u, v, 0), (batch, u + rows, v + columns, channels), (1, *strides, 1))
        for u, v in itertools.product(*(range(0, k * dilation, dilation) for k in shape))
    ]


def _taps(x, shape, strides, dilation=1, fill=0):
    """k * l arrays of the shape of the output: what each tap of a filter of `shape` (k, l) reads, row by row."""
    pads = [(dilation * (k // 2),) * 2 for k in shape]
    size = [_out(s, stride) for s, stride in zip(x.shape[1:3], strides, strict=True)]
    return _windows(_pad(x, pads, fill=fill), size, shape, strides, dilation)


def _spread(y, size, shape, strides, dilation=1, fill=0):
    """The transpose of `_taps`: k * l arrays of the `size` of the image x (its rows and columns), row by row.

    The one of number (u, v) holds at p the y whose tap (k - 1 - u, l - 1 - v) reads x[p], or `fill` where none does.
    """
    # Dilated by the strides and padded, y is as large as the padded x was; what is left has stride 1.
    margins = []
    for s, k, stride in zip(size, shape, strides, strict=True):
        pad = dilation * (k // 2)
        margins.append((pad, s + pad - (_out(s, stride) - 1) * stride - 1))
    interior = [stride - 1 for stride in strides]
    return _windows(_pad(y, margins, interior, fill), size, shape, (1, 1), dilation)


def _weighted_sum(windows, kernel, dtype):
    taps = jnp.split(kernel.astype(jnp.float32).ravel(), len(windows))
    return sum(window.astype(jnp.float32) * tap for window, tap in zip(windows, taps, strict=True)).astype(dtype)


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1x1 convolution as one matrix product.

    Args:
      x: [B, H, W, C].
      kernel: [C, D].

    Returns:
      [B, H, W, D], dtype of x.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """A convolution over all channels.

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
        taps = jnp.concatenate(_taps(x, kernel.shape[:2], strides), axis=-1)
        return _product(taps, kernel.reshape(-1, kernel.shape[-1])).astype(x.dtype)

    return lax.platform_dependent(x, kernel, cpu=tapped, default=functools.partial(_lax_conv, strides))


def _conv_forward(x, kernel, strides):
    return _conv(strides, x, kernel), (x, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _conv_backward(strides, residuals, dy):
    def tapped(x, kernel, dy):
        shape = kernel.shape[:2]
        spread = jnp.concatenate(_spread(dy, x.shape[1:3], shape, strides), axis=-1)
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        dx = _product(spread, flipped.reshape(-1, x.shape[-1])).astype(x.dtype)
        taps = jnp.concatenate(_taps(x, shape, strides), axis=-1)
        dkernel = lax.dot_general(taps, dy, (((0, 1, 2), (0, 1, 2)), ((), ())), preferred_element_type=jnp.float32)
        return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)

    def default(x, kernel, dy):
        return jax.vjp(functools.partial(_lax_conv, strides), x, kernel)[1](dy)

    return lax.platform_dependent(*residuals, dy, cpu=tapped, default=default)


conv.defvjp(_conv_forward, _conv_backward)


def _lax_conv(strides, x, kernel):
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel.astype(x.dtype), strides, padding, dimension_numbers=layout)


def _product(x, matrix):
    """x @ matrix in float32, the matrix in the dtype of x."""
    return jnp.matmul(x, matrix.astype(x.dtype), preferred_element_type=jnp.float32)


# Pooling --------------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 maximum, padding 1.

    The gradient goes to the first largest entry of each window in row-major order, as in `lax.reduce_window` and
    PyTorch: with t(q) the number of that entry in the window q, dx[p] = sum of dy[q] over the q with p = entry t(q).

    Args:
      x: [B, H, W, C].
      stride: 1 or 2.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    return _max_pool_forward(x, stride)[0]


def _max_pool_forward(x, stride):
    return functools.reduce(jnp.maximum, _taps(x, (3, 3), (stride, stride), fill=-jnp.inf)), x


@functools.partial(jax.jit, static_argnums=0)
def _max_pool_backward(stride, x, dy):
    windows = _taps(x, (3, 3), (stride, stride), fill=-jnp.inf)
    largest, place = windows[0], jnp.zeros(dy.shape, jnp.int32)
    for number, window in enumerate(windows[1:], 1):
        place = jnp.where(window > largest, number, place)
        largest = jnp.maximum(window, largest)
    # Reversed, number (u, v) is of the windows whose tap (u, v) reads an entry.
    places = _spread(place, x.shape[1:3], (3, 3), (stride, stride), fill=-1)[::-1]
    parts = _spread(dy, x.shape[1:3], (3, 3), (stride, stride))[::-1]
    return (sum(jnp.where(at == number, part, 0) for number, (at, part) in enumerate(zip(places, parts, strict=True))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def avg_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 mean, padding 1, over the entries inside the image only.

    y = S x / n, S the sum over the window and n the number of its entries inside; so dx = S^T (dy / n).

    Args:
      x: [B, H, W, C].
      stride: 1 or 2.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    return _avg_pool_forward(x, stride)[0]


def _avg_pool_forward(x, stride):
    total = _sum(_taps(x, (3, 3), (stride, stride)))
    return (total / _window_sizes(x.shape, stride)).astype(x.dtype), x


@functools.partial(jax.jit, static_argnums=0)
def _avg_pool_backward(stride, x, dy):
    dy = (dy / _window_sizes(x.shape, stride)).astype(dy.dtype)
    return (_sum(_spread(dy, x.shape[1:3], (3, 3), (stride, stride))).astype(dy.dtype),)


avg_pool.defvjp(_avg_pool_forward, _avg_pool_backward)


def _sum(windows):
    return sum(window.astype(jnp.float32) for window in windows)


def _window_sizes(shape, stride):
    def sizes(size):
        centers = np.arange(_out(size, stride)) * stride
        return np.minimum(centers + 2, size) - np.maximum(centers - 1, 0)

    rows, columns = sizes(shape[1]), sizes(shape[2])
    return jnp.asarray((rows[:, None] * columns)[None, :, :, None], jnp.float32)


# Batch normalisation --------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def batch_norm(x: jax.Array, axis_name: str | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalises every channel by the mean and variance of the (global) batch, without affine terms.

    With r = 1 / sqrt(var + eps) and y = (x - mean) r:  dx = r (dy - mean(dy) - y mean(dy y)).

    Args:
      x: [B, H, W, C].
      axis_name: mapped axis over which the batch is spread, if any; the gradient must be taken inside that mapping.
        Rounding then adds about 1e-7 mean^2 to the variance: much where |mean| is a hundred times the deviation.

    Returns:
      (y, moments): y [B, H, W, C] of the dtype of x, and the moments for running statistics, `mean` f32[C] and `var`
      f32[C] (unbiased, as PyTorch keeps it). No gradient flows through the moments.
    """
    return _batch_norm_forward(x, axis_name)[0]


def _mean(x):
    return jnp.mean(x, axis=tuple(range(x.ndim - 1)))


def _mean_of_parts(axis_name, *means):
    """Of the whole batch, by one all-reduce: small ones take the time of their number, not that of their bytes."""
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
    y, scale = _normalized(x, mean, var)
    return (y, moments), (y, scale)


def _biased(x, axis_name):
    """(n - 1) / n of a (global) batch of n: what turns the variance of `moments` into the one to normalise by."""
    count = x.size // x.shape[-1] * (1 if axis_name is None else lax.axis_size(axis_name))
    return max(count - 1, 1) / count


def _normalized(x, mean, var):
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
    """The y of `batch_norm` where the moments of x are known from before, with the same gradient.

    Args:
      x: [B, H, W, C].
      moments: of x as `batch_norm` gives them, `mean` f32[C] and unbiased `var` f32[C]. They get no gradient.
      axis_name: as for `batch_norm`.

    Returns:
      y [B, H, W, C], dtype of x.
    """
    return _again_forward(x, moments, axis_name)[0]


@functools.partial(jax.jit, static_argnums=2)
def _again_forward(x, moments, axis_name):
    y, scale = _normalized(x, moments["mean"], moments["var"] * _biased(x, axis_name))
    return y, (y, scale)


@functools.partial(jax.jit, static_argnums=0)
def _again_backward(axis_name, residuals, dy):
    return _batch_norm_dx(axis_name, residuals, dy), None


batch_norm_again.defvjp(_again_forward, _again_backward)
