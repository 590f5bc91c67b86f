"""The ops that this package registers. To add one, write a function here; nothing else has to change.

Unless stated otherwise they are those of DARTS (Liu et al., ICLR 2019, section 3.1.1). They take x [B, H, W, channels]
and return y [B, ceil(H / stride), ceil(W / stride), channels], with stride 1 or 2. Cells also use `relu_conv_norm` and
`factorized_reduce`, to bring their inputs to their own width. The argument `torch` of `register` and the constants
`..._LAYERS` name the layers as PyTorch checkpoints do.
"""

import functools

import jax
import jax.numpy as jnp

from prdarts_jax.ops import kernels
from prdarts_jax.ops.changes import normalized, with_skip
from prdarts_jax.ops.op import Op, normalizing, random_key, running
from prdarts_jax.ops.registry import Layers, find, group, register

RELU_CONV_NORM_LAYERS: Layers = (("op.1", "pointwise"), ("op.2", "norm"))
FACTORIZED_REDUCE_LAYERS: Layers = (("conv_1", "even"), ("conv_2", "odd"), ("bn", "norm"))
_DIL_CONV = (("op.1", "depthwise_0"), ("op.2", "pointwise_0"), ("op.3", "norm_0"))
_SEP_CONV = (*_DIL_CONV, ("op.5", "depthwise_1"), ("op.6", "pointwise_1"), ("op.7", "norm_1"))
_CONV_7X1_1X7 = (("1", "row"), ("2", "column"), ("3", "norm"))


def _both(layers):
    """The argument `torch` of an op with the same layers at both strides."""
    return {1: layers, 2: layers}


def relu_conv_norm(channels_in: int, channels: int) -> Op:
    """ReLU, 1x1 convolution, BN: x [B, H, W, channels_in], y [B, H, W, channels]."""

    def compute(params, x):
        return kernels.pointwise_conv(jax.nn.relu(x), params["pointwise"])

    return normalizing(compute, {"pointwise": (channels_in, channels)})


def factorized_reduce(channels_in: int, channels: int) -> Op:
    """Halves the image: x [B, H, W, channels_in], y [B, ceil(H / 2), ceil(W / 2), channels].

    ReLU, two stride-2 1x1 convolutions, the second on x shifted by one pixel (0 outside the image), concatenation, BN.
    The first convolution has channels // 2 outputs, the second the rest.
    """

    def compute(params, x):
        x = jax.nn.relu(x)
        shifted = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1::2, 1::2]
        even = kernels.pointwise_conv(x[:, ::2, ::2], params["even"])
        return jnp.concatenate([even, kernels.pointwise_conv(shifted, params["odd"])], axis=-1)

    half = channels // 2
    return normalizing(compute, {"even": (channels_in, half), "odd": (channels_in, channels - half)})


@register("none", group="none")
def none(channels: int, stride: int) -> Op:
    """y = 0."""
    return Op(lambda params, stats, x, norm: (jnp.zeros_like(x[:, ::stride, ::stride]), {}))


@register("skip_connect", group="skip", torch={2: FACTORIZED_REDUCE_LAYERS})
def skip_connect(channels: int, stride: int) -> Op:
    """y = x, at stride 2 a factorised reduction."""
    return factorized_reduce(channels, channels) if stride == 2 else Op(lambda params, stats, x, norm: (x, {}))


def sep_conv(size: int, channels: int, stride: int) -> Op:
    """(ReLU, depthwise size x size, pointwise, BN) twice; the first depthwise convolution has the stride."""
    return _depthwise_separable(size, channels, (stride, 1), dilation=1)


def dil_conv(size: int, channels: int, stride: int) -> Op:
    """ReLU, depthwise size x size of dilation 2, pointwise, BN."""
    return _depthwise_separable(size, channels, (stride,), dilation=2)


def _depthwise_separable(size, channels, strides, dilation):
    def apply(params, stats, x, norm):
        moments = {}
        for i, stride in enumerate(strides):
            x = kernels.depthwise_conv(jax.nn.relu(x), params[f"depthwise_{i}"], stride, dilation)
            x = kernels.pointwise_conv(x, params[f"pointwise_{i}"])
            x, moments[f"norm_{i}"] = norm(x, running(stats, f"norm_{i}"))
        return x, moments

    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(len(strides)):
        shapes[f"depthwise_{i}"] = (size, size, channels)
        shapes[f"pointwise_{i}"] = (channels, channels)
    return Op(apply, shapes, tuple(f"norm_{i}" for i in range(len(strides))))


register("sep_conv_3x3", group="conv", torch=_both(_SEP_CONV))(functools.partial(sep_conv, 3))
register("sep_conv_5x5", group="conv", torch=_both(_SEP_CONV))(functools.partial(sep_conv, 5))
register("dil_conv_3x3", group="conv", torch=_both(_DIL_CONV))(functools.partial(dil_conv, 3))
register("dil_conv_5x5", group="conv", torch=_both(_DIL_CONV))(functools.partial(dil_conv, 5))


@register("avg_pool_3x3", group="pool")
def avg_pool(channels: int, stride: int) -> Op:
    """The mean of 3x3 windows, over the entries inside the image."""
    return Op(lambda params, stats, x, norm: (kernels.avg_pool(x, stride), {}))


@register("max_pool_3x3", group="pool")
def max_pool(channels: int, stride: int) -> Op:
    """The maximum of 3x3 windows."""
    return Op(lambda params, stats, x, norm: (kernels.max_pool(x, stride), {}))


@register("noise", group="noise")
def noise(channels: int, stride: int) -> Op:
    """N(0, 1) in place of the input (S4 of Zela et al., ICLR 2020)."""

    def apply(params, stats, x, norm):
        return jax.random.normal(random_key(params), x[:, ::stride, ::stride].shape, x.dtype), {}

    return Op(apply, draws=("seed",))


register("sep_conv_7x7", group="conv", torch=_both(_SEP_CONV))(functools.partial(sep_conv, 7))


@register("conv_7x1_1x7", group="conv", torch=_both(_CONV_7X1_1X7))
def conv_7x1_1x7(channels: int, stride: int) -> Op:
    """ReLU, 1x7 convolution, 7x1 convolution, BN: the factorised 7x7 convolution of NASNet and AmoebaNet.

    The 1x7 convolution has the stride along the width, the 7x1 convolution that along the height.
    """

    def compute(params, x):
        x = kernels.conv(jax.nn.relu(x), params["row"], (1, stride))
        return kernels.conv(x, params["column"], (stride, 1))

    return normalizing(compute, {"row": (1, 7, channels, channels), "column": (7, 1, channels, channels)})


def nor_conv(size: int, channels: int, stride: int) -> Op:
    """ReLU, size x size convolution, BN (NAS-Bench-201; Dong, Yang, ICLR 2020)."""
    if size == 1 and stride == 1:
        return relu_conv_norm(channels, channels)

    def compute(params, x):
        return kernels.conv(jax.nn.relu(x), params["kernel"], (stride, stride))

    return normalizing(compute, {"kernel": (size, size, channels, channels)})


_NOR_CONV = (("op.1", "kernel"), ("op.2", "norm"))
register("nor_conv_1x1", group="conv", torch={1: RELU_CONV_NORM_LAYERS, 2: _NOR_CONV})(functools.partial(nor_conv, 1))
register("nor_conv_3x3", group="conv", torch={1: _NOR_CONV, 2: _NOR_CONV})(functools.partial(nor_conv, 3))


def _with_skip(name: str, channels: int, stride: int) -> Op:
    op = find(name).build(channels, stride)
    return with_skip(normalized(op) if group(name) == "pool" else op, skip_connect(channels, stride))


# The ops of DARTS with a skip connection beside each, as in confopt's suite (Jha et al., AutoML 2025). There a pool is
# normalised in discrete networks too.
for _name in (
    *("none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5"),
    *("dil_conv_3x3", "dil_conv_5x5", "avg_pool_3x3", "max_pool_3x3"),
):
    register(f"{_name}_with_skip", group=group(_name))(functools.partial(_with_skip, _name))
