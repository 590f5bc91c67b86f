"""The kernels by XLA's own convolutions and windows, with XLA's derivatives: what `ops.kernels` is tested against."""

import jax.numpy as jnp
from jax import lax


def conv(x, kernel, strides=(1, 1), dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise_conv(x, kernel, stride, dilation):
    return conv(x, kernel[:, :, None], (stride, stride), dilation, groups=x.shape[-1])


def pointwise_conv(x, kernel, stride=1):
    return conv(x, kernel[None, None], (stride, stride))


def _window(x, stride, init, combine):
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, init, combine, (1, 3, 3, 1), (1, stride, stride, 1), pads)


def max_pool(x, stride):
    return _window(x, stride, -jnp.inf, lax.max)


def avg_pool(x, stride):
    return _window(x, stride, 0.0, lax.add) / _window(jnp.ones_like(x), stride, 0.0, lax.add)


def batch_norm(x, axis_name=None):
    axes, count = (0, 1, 2), x.size // x.shape[-1]
    moments = {"mean": x.mean(axes), "var": x.var(axes) * count / (count - 1)}
    return (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5), moments
