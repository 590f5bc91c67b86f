"""Layers that the networks share: convolutions and batch normalisation around the cells."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.ops import kernels

torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


class Normalizing(nn.Module):
    """What normalises by the batch and, where asked to, keeps running statistics (collection batch_stats)."""

    running_statistics: bool
    axis_name: str | None

    def _running(self, name, init):
        """The variable of the running statistics, or None."""
        return self.variable("batch_stats", name, init) if self.running_statistics else None

    def _store(self, variable, statistics):
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            variable.value = statistics


class BatchNorm(Normalizing):
    """Batch normalisation with affine terms, of stem and head."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises [B, H, W, C]."""
        channels = x.shape[-1]
        norm = ops.batch_normalizer(train=train, axis_name=self.axis_name)
        stats = self._running("moments", lambda: ops.init_moments(channels))
        y, moments = norm(x, stats and stats.value)
        if train and stats:
            self._store(stats, ops.update_running(stats.value, moments))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return y * scale.astype(y.dtype) + bias.astype(y.dtype)


class Conv(nn.Module):
    """A 3x3 convolution without bias; see `kernels.conv`.

    Attributes:
      features: channels of the output.
      strides: of the rows and of the columns.
      dtype: of the computation.
    """

    features: int
    strides: tuple[int, int] = (1, 1)
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, D] -> [B, h, w, features]."""
        kernel = self.param("kernel", torch_init, (3, 3, x.shape[-1], self.features))
        return kernels.conv(x.astype(self.dtype), kernel, self.strides)


class Preprocess(Normalizing):
    """Maps an input of a cell to the cell's width: ReLU, 1x1 convolution, BN, or a factorised reduction.

    Attributes:
      channels: C of the cell.
      reduce: halve the image, since the input comes from before a reduction.
      affine: whether the normalisation has a scale and a bias.
    """

    channels: int
    reduce: bool
    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, D] -> [B, H, W, C], or half the height and width."""
        build = ops.factorized_reduce if self.reduce else ops.relu_conv_norm
        op = build(x.shape[-1], self.channels)
        if self.affine:
            op = ops.with_affine(op, self.channels)
        norm = ops.batch_normalizer(train=train, axis_name=self.axis_name)
        stats = self._running("moments", lambda: ops.init_stats(op, self.channels))
        y, moments = op.apply(self.param("conv", ops.init_params, op.shapes), stats and stats.value, x, norm)
        if train and stats:
            self._store(stats, ops.update_running(stats.value, moments))
        return y


def classifier(num_classes: int) -> nn.Dense:
    """The last layer of a network, of float32. Its bias starts at 0; PyTorch's is drawn like the kernel."""
    return nn.Dense(num_classes, kernel_init=torch_init, name="classifier")


class AuxiliaryHead(nn.Module):
    """A classifier of the features two thirds up the network; its loss is added in training.

    Attributes:
      num_classes: length of the logits.
      stride: of the pool: 3 where the features are 8x8 (CIFAR), 2 where they are 7x7 (ImageNet).
      dtype: of the convolutions.
      axis_name: mapped axis over which the batch is spread, if any.
    """

    num_classes: int
    stride: int
    dtype: jax.typing.DTypeLike
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, h, w, C] -> f32[B, num_classes].

        Raises:
          ValueError: the features are not of a size that the pool makes 2x2.
        """
        height, width = x.shape[1:3]
        if any((size - 5) // self.stride != 1 for size in (height, width)):
            raise ValueError(
                f"the auxiliary head needs features of {5 + self.stride} to {4 + 2 * self.stride} pixels, but these "
                f"have {height}x{width}; three or more cells have them for images of 32 pixels in the form 'cifar' and "
                "of 224 in 'imagenet'"
            )
        x = nn.avg_pool(nn.relu(x), (5, 5), (self.stride, self.stride))
        for i, (features, size) in enumerate(((128, 1), (768, 2))):
            x = nn.Conv(
                features,
                (size, size),
                padding="VALID",
                use_bias=False,
                dtype=self.dtype,
                kernel_init=torch_init,
                name=f"conv_{i}",
            )(x)
            x = nn.relu(BatchNorm(running_statistics=True, axis_name=self.axis_name, name=f"norm_{i}")(x, train=train))
        return classifier(self.num_classes)(x[:, 0, 0].astype(jnp.float32))
