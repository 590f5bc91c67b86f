"""Layers that several networks use: those around the cells, and one for a single op of a discrete cell."""

import functools
import zlib
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.ops import kernels
from prdarts_jax.refusals import shown

Form = Literal["cifar", "imagenet"]  # the form of a network; 'imagenet' begins with `imagenet_stem`
torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


class Normalizing(nn.Module):
    """The base of modules that normalise by the batch and may keep running statistics.

    Attributes:
      running_statistics: whether to keep running statistics, in the collection `batch_stats`, and to use them when not
        training.
      axis_name: the mapped axis over which the batch is spread, if any.
    """

    running_statistics: bool
    axis_name: str | None

    def _running(self, name, init):
        """The variable of the running statistics, or None."""
        return self.variable("batch_stats", name, init) if self.running_statistics else None

    def _move(self, variable, moments, train, executed=True):
        """In training, moves the running statistics towards the moments of the batch."""
        if train and variable and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            variable.value = ops.update_running(variable.value, moments, executed)

    def _norm_by(self, train):
        return ops.batch_normalizer(train=train, axis_name=self.axis_name)


class BatchNorm(Normalizing):
    """Batch normalisation with a scale and a bias, for stem and head."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises x [B, H, W, C]; the shape and dtype stay the same."""
        channels = x.shape[-1]
        stats = self._running("moments", lambda: ops.init_moments(channels))
        y, moments = self._norm_by(train)(x, stats and stats.value)
        self._move(stats, moments, train)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return y * scale.astype(y.dtype) + bias.astype(y.dtype)


class Conv(nn.Module):
    """A 3x3 convolution without bias that gives `features` channels; see `kernels.conv`."""

    features: int
    strides: tuple[int, int] = (1, 1)
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes [B, h, w, features] from x [B, H, W, D]; h and w are H and W divided by the strides, rounded up."""
        kernel = self.param("kernel", torch_init, (3, 3, x.shape[-1], self.features))
        return kernels.conv(x.astype(self.dtype), kernel, self.strides)


def imagenet_stem(
    images: jax.Array, channels: int, norm: Callable[[str, jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Computes the stem of networks for ImageNet, three convolutions of stride 2; call it in a compact method.

    Args:
      images: [B, H, W, D], in the dtype of the computation.
      channels: C; the first convolution has C / 2 channels, rounded down, the others C.
      norm: called as `norm(name, x)`; returns x, normalised by a module of that name.

    Returns:
      The outputs of the second and of the third convolution, [B, H / 4, W / 4, C] and [B, H / 8, W / 8, C], rounded up:
      the inputs of the first cell.
    """
    x = norm("stem_norm_0", Conv(channels // 2, (2, 2), images.dtype, name="stem_conv_0")(images))
    s0 = norm("stem_norm_1", Conv(channels, (2, 2), images.dtype, name="stem_conv_1")(nn.relu(x)))
    return s0, norm("stem_norm_2", Conv(channels, (2, 2), images.dtype, name="stem_conv_2")(nn.relu(s0)))


def check_dtype(dtype: object) -> None:
    """Raises ValueError for a dtype in which no network computes."""
    if dtype not in (jnp.float32, jnp.bfloat16, "float32", "bfloat16"):
        raise ValueError(f"dtype={shown(dtype)} must be float32 or bfloat16")


def key_of_draws(module: nn.Module, part: int = 0) -> jax.Array:
    """The key for the random numbers of a module: from its rng `draws` or, without one, always the same, but another
    for each module and part of a module."""
    name = "/".join((*module.path, str(part)))
    return module.make_rng("draws") if module.has_rng("draws") else jax.random.key(zlib.crc32(name.encode()))


class Layer(nn.Module):
    """An op with affine batch normalisation and running statistics; `channels` is the number C that the op gives."""

    op: ops.Op
    channels: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes [B, h, w, C] from x [B, H, W, D]."""
        params = self.param("conv", ops.init_params, self.op.shapes) if self.op.shapes else {}
        if self.op.draws:
            key = key_of_draws(self)
            if train and self.axis_name is not None:  # each device draws other noise for its part of the batch
                key = jax.random.fold_in(key, jax.lax.axis_index(self.axis_name))
            params = params | {"seed": jax.random.randint(key, (), 0, 2**24).astype(jnp.float32)}
        if not self.op.norms:
            return self.op.apply(params, None, x, None)[0]
        stats = self.variable("batch_stats", "norm", ops.init_stats, self.op, self.channels)

        def init_affine(_):
            return {n: {"scale": jnp.ones(self.channels), "bias": jnp.zeros(self.channels)} for n in self.op.norms}

        affine = self.param("norm", init_affine)
        params = params | {f"{n}_{term}": value for n, terms in affine.items() for term, value in terms.items()}
        norm = ops.batch_normalizer(train=train, axis_name=self.axis_name)
        y, moments = ops.with_affine(self.op, self.channels).apply(params, stats.value, x, norm)
        if train and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            stats.value = ops.update_running(stats.value, moments)
        return y


class Preprocess(Normalizing):
    """Maps an input of a cell to the cell's width.

    With `reduce` it also halves height and width, for an input from before a reduction cell.
    """

    channels: int
    reduce: bool
    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes [B, H, W, C] from x [B, H, W, D], or with `reduce` [B, ceil(H / 2), ceil(W / 2), C]."""
        build = ops.factorized_reduce if self.reduce else ops.relu_conv_norm
        op = build(x.shape[-1], self.channels)
        if self.affine:
            op = ops.with_affine(op, self.channels)
        stats = self._running("moments", lambda: ops.init_stats(op, self.channels))
        params = self.param("conv", ops.init_params, op.shapes)
        y, moments = op.apply(params, stats and stats.value, x, self._norm_by(train))
        self._move(stats, moments, train)
        return y


def classifier(num_classes: int) -> nn.Dense:
    """The last layer of a network, in float32. Its bias starts at 0; PyTorch draws the bias like the kernel."""
    return nn.Dense(num_classes, kernel_init=torch_init, name="classifier")


class AuxiliaryHead(nn.Module):
    """A classifier of the features at two thirds of the network's depth; its loss is added in training.

    First a pool reduces the features to 2x2. As in DARTS, its windows are 5 pixels wide for features of 8 pixels
    (CIFAR) or 7 (ImageNet); for larger features they are larger in proportion.
    """

    num_classes: int
    dtype: jax.typing.DTypeLike
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits f32[B, num_classes] from features x [B, h, w, C].

        Raises:
          ValueError: h or w is 1.
        """
        sides = x.shape[1:3]
        if min(sides) < 2:
            raise ValueError(
                f"the auxiliary head needs features of 2x2 pixels or more, but these have {sides[0]}x{sides[1]}"
            )
        windows = tuple(min(side - 1, max(5, -(-5 * side // 8))) for side in sides)
        strides = tuple(side - window for side, window in zip(sides, windows, strict=True))
        conv = functools.partial(nn.Conv, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=torch_init)
        x = nn.avg_pool(nn.relu(x), windows, strides)
        for i, (features, size) in enumerate(((128, 1), (768, 2))):
            x = conv(features, (size, size), name=f"conv_{i}")(x)
            x = nn.relu(BatchNorm(running_statistics=True, axis_name=self.axis_name, name=f"norm_{i}")(x, train=train))
        return classifier(self.num_classes)(x[:, 0, 0].astype(jnp.float32))
