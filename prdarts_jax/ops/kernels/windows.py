"""What each tap (entry) of a filter reads from an image, as arrays, and the transpose of this map."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def out_size(size: int, stride: int) -> int:
    """The number of rows, or columns, that a stride leaves of `size`."""
    return -(-size // stride)


def _pad(x, margins, interior=(0, 0), fill=0):
    (rows, columns), (a, b) = margins, interior
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), (*rows, a), (*columns, b), (0, 0, 0)))
    # Without the barrier XLA fuses the producer of x into every tap and computes it once for each.
    return lax.optimization_barrier(padded)


def _windows(padded, size, shape, strides, dilation):
    """The k * l strided slices, each of `size`, that the taps of a filter read from a padded image, row by row."""
    batch, *_, channels = padded.shape
    rows, columns = ((out - 1) * stride + 1 for out, stride in zip(size, strides, strict=True))
    return [
        lax.slice(padded, (0, u, v, 0), (batch, u + rows, v + columns, channels), (1, *strides, 1))
        for u, v in itertools.product(*(range(0, k * dilation, dilation) for k in shape))
    ]


def taps(
    x: jax.Array, shape: Sequence[int], strides: Sequence[int], dilation: int = 1, fill: float = 0
) -> list[jax.Array]:
    """What each tap of a filter reads from an image.

    Args:
      x: [B, H, W, C].
      shape: (k, l) of the filter, odd.
      strides: (s, t) of the rows and of the columns.
      dilation: the same in both directions.
      fill: the value that the taps read outside the image.

    Returns:
      k * l arrays [B, ceil(H / s), ceil(W / t), C], dtype of x, for the taps row by row.
    """
    pads = [(dilation * (k // 2),) * 2 for k in shape]
    size = [out_size(s, stride) for s, stride in zip(x.shape[1:3], strides, strict=True)]
    return _windows(_pad(x, pads, fill=fill), size, shape, strides, dilation)


def spread(
    y: jax.Array, size: Sequence[int], shape: Sequence[int], strides: Sequence[int], dilation: int = 1, fill: float = 0
) -> list[jax.Array]:
    """The transpose of `taps`.

    Args:
      y: [B, ceil(H / s), ceil(W / t), C].
      size: (H, W) of the image x that the taps read.
      shape, strides, dilation: as for `taps`.
      fill: the value at entries of x that no tap reads.

    Returns:
      k * l arrays [B, H, W, C], dtype of y, row by row: array (u, v) holds at p the entry of y whose tap
      (k - 1 - u, l - 1 - v) reads x[p].
    """
    # Dilated by the strides and padded, y is as large as the padded x, and the windows have stride 1.
    margins = []
    for s, k, stride in zip(size, shape, strides, strict=True):
        pad = dilation * (k // 2)
        margins.append((pad, s + pad - (out_size(s, stride) - 1) * stride - 1))
    interior = [stride - 1 for stride in strides]
    return _windows(_pad(y, margins, interior, fill), size, shape, (1, 1), dilation)
