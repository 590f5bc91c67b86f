"""Convolutions, pooling and batch normalisation with gradients of their own.

On a CPU, XLA's grouped convolution and its gradients, and the gradient of `lax.reduce_window`, are many times slower
than a few shifted multiply-adds. In a compiled loop the gradients of any convolution are also many times slower than
one matrix product over all taps (entries of the filter). Elsewhere XLA's convolutions are assumed to be the fast path,
so the convolutions choose by the platform they are compiled for. Pools are computed from nine shifted slices of the
image on every platform.

The gradients may be differentiated again, in forward mode: `jax.jvp` of `jax.grad`. For that, no forward or backward
rule calls a function that has such rules. The outer derivative needs the inner one to go through the same kernels: a
kernel has no forward mode if none of its arguments depends on the variables of the inner gradient.

Every image array is [B, H, W, C], and padding is "same", so a stride s leaves ceil(H / s) rows. Outputs have the dtype
of the input; the shifted convolutions, average pooling and batch normalisation sum in float32.
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
