"""How a cell maps its inputs to its own width (DARTS; Liu et al., 2019, section 3.1.1), with the layers in PyTorch."""

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels
from prdarts_jax.ops.op import Op, running
from prdarts_jax.ops.registry import Layers

RELU_CONV_NORM_LAYERS: Layers = (("op.1", "pointwise"), ("op.2", "norm"))
FACTORIZED_REDUCE_LAYERS: Layers = (("conv_1", "even"), ("conv_2", "odd"), ("bn", "norm"))


def relu_conv_norm(channels_in: int, channels: int) -> Op:
    """ReLU, 1x1 convolution, BN: x [B, H, W, channels_in], y [B, H, W, channels]."""

    def apply(params, stats, x, norm):
        y, moments = norm(kernels.pointwise_conv(jax.nn.relu(x), params["pointwise"]), running(stats, "norm"))
        return y, {"norm": moments}

    return Op(apply, {"pointwise": (channels_in, channels)}, ("norm",))


def factorized_reduce(channels_in: int, channels: int) -> Op:
    """Halves the image: x [B, H, W, channels_in], y [B, ceil(H / 2), ceil(W / 2), channels].

    ReLU, two stride-2 1x1 convolutions, the second on x shifted by one pixel, concatenation, BN.
    """

    def apply(params, stats, x, norm):
        x = jax.nn.relu(x)
        shifted = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1::2, 1::2]
        y = jnp.concatenate(
            [
                kernels.pointwise_conv(x[:, ::2, ::2], params["even"]),
                kernels.pointwise_conv(shifted, params["odd"]),
            ],
            axis=-1,
        )
        y, moments = norm(y, running(stats, "norm"))
        return y, {"norm": moments}

    half = channels // 2
    shapes = {"even": (channels_in, half), "odd": (channels_in, channels - half)}
    return Op(apply, shapes, ("norm",))
