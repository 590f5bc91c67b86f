"""3x3 pools, computed from nine shifted slices of the image on every platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.ops.kernels.windows import out_size, spread, taps


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 maximum, padding 1, stride 1 or 2: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C].

    The gradient goes to the first largest entry of each window in row-major order, as in `lax.reduce_window` and
    PyTorch: dx[p] is the sum of dy[q] over the windows q whose first largest entry is x[p].
    """
    return _max_pool_forward(x, stride)[0]


def _max_pool_forward(x, stride):
    return functools.reduce(jnp.maximum, taps(x, (3, 3), (stride, stride), fill=-jnp.inf)), x


@functools.partial(jax.jit, static_argnums=0)
def _max_pool_backward(stride, x, dy):
    windows = taps(x, (3, 3), (stride, stride), fill=-jnp.inf)
    largest, place = windows[0], jnp.zeros(dy.shape, jnp.int32)
    for number, window in enumerate(windows[1:], 1):
        place = jnp.where(window > largest, number, place)
        largest = jnp.maximum(window, largest)
    # In reverse order, array (u, v) is that of the windows whose tap (u, v) reads an entry.
    places = spread(place, x.shape[1:3], (3, 3), (stride, stride), fill=-1)[::-1]
    parts = spread(dy, x.shape[1:3], (3, 3), (stride, stride))[::-1]
    return (sum(jnp.where(at == number, part, 0) for number, (at, part) in enumerate(zip(places, parts, strict=True))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def avg_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 mean over the entries inside the image only; otherwise like `max_pool`.

    y = S x / n, with S the sum over the window and n the number of its entries inside the image; so dx = S^T (dy / n).
    """
    return _avg_pool_forward(x, stride)[0]


def _avg_pool_forward(x, stride):
    total = _sum(taps(x, (3, 3), (stride, stride)))
    return (total / _window_sizes(x.shape, stride)).astype(x.dtype), x


@functools.partial(jax.jit, static_argnums=0)
def _avg_pool_backward(stride, x, dy):
    dy = (dy / _window_sizes(x.shape, stride)).astype(dy.dtype)
    return (_sum(spread(dy, x.shape[1:3], (3, 3), (stride, stride))).astype(dy.dtype),)


avg_pool.defvjp(_avg_pool_forward, _avg_pool_backward)


def _sum(windows):
    return sum(window.astype(jnp.float32) for window in windows)


def _window_sizes(shape, stride):
    def sizes(size):
        centers = np.arange(out_size(size, stride)) * stride
        return np.minimum(centers + 2, size) - np.maximum(centers - 1, 0)

    rows, columns = sizes(shape[1]), sizes(shape[2])
    return jnp.asarray((rows[:, None] * columns)[None, :, :, None], jnp.float32)
