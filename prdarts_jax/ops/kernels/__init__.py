"""Convolutions, pooling and batch normalisation with gradients of their own.

On a CPU, XLA's grouped convolution and its gradients, and the gradient of `lax.reduce_window`, are many times slower
than a few shifted multiply-adds; so are, in a compiled loop, the gradients of any convolution than one matrix product
of all taps. Elsewhere XLA's convolutions are taken to be the fast path, so the convolutions choose by the platform they
are compiled for. Pools are nine shifted taps everywhere.

The gradients may be differentiated again, in forward mode: `jax.jvp` of `jax.grad`. For that, no forward or backward
rule calls a function that has such rules. What is moved outside must be moved inside too: a kernel none of whose
arguments depends on what the gradient is taken in has no forward mode.

Every image array is [B, H, W, C]; "same" padding, so a stride s leaves ceil(H / s) rows. Outputs have the dtype of the
input; the shifted convolutions, average pooling and batch normalisation take their sums in float32.
"""

from prdarts_jax.ops.kernels.convolutions import conv, depthwise_conv, pointwise_conv
from prdarts_jax.ops.kernels.normalization import EPSILON, batch_norm, batch_norm_again, normalized
from prdarts_jax.ops.kernels.pools import avg_pool, max_pool

__all__ = [
    "EPSILON",
    "avg_pool",
    "batch_norm",
    "batch_norm_again",
    "conv",
    "depthwise_conv",
    "max_pool",
    "normalized",
    "pointwise_conv",
]
