"""The supernet of NAS-Bench-201 (Dong, Yang, ICLR 2020): stages of cells, joined by fixed residual blocks."""

from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.nets.supernet import BatchNorm, Conv, SearchCell, init_logits, torch_init
from prdarts_jax.search import gates
from prdarts_jax.spaces import SearchSpace, nas_bench_201


class Cell201(SearchCell):
    """One cell: its first node is the input, its last the output."""

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool, dropout_rate: jax.Array | float) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C], with weights f32[edges, ops]."""
        states = jnp.zeros((self.space.nodes, *x.shape), x.dtype).at[0].set(x)
        return self._execute(False, None, states, weights, train, dropout_rate)[-1]


class ResidualBlock(nn.Module):
    """Halves the image and doubles the width: two 3x3 convolutions beside a pool and a 1x1 convolution."""

    running_statistics: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, 2 C], rounded up."""
        shared: dict[str, Any] = {"running_statistics": self.running_statistics, "axis_name": self.axis_name}
        channels = 2 * x.shape[-1]
        y = Conv(channels, strides=(2, 2), dtype=x.dtype, name="conv_0")(nn.relu(x))
        y = BatchNorm(**shared, name="norm_0")(y, train=train)
        y = Conv(channels, dtype=x.dtype, name="conv_1")(nn.relu(y))
        y = BatchNorm(**shared, name="norm_1")(y, train=train)
        odd = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
        pooled = nn.avg_pool(x, (2, 2), (2, 2), padding=odd, count_include_pad=False)
        return y + nn.Dense(channels, use_bias=False, dtype=x.dtype, kernel_init=torch_init, name="shortcut")(pooled)


class Supernet201(nn.Module):
    """Stem, three stages of cells, head; collections as `Supernet`, logits `normal` alone.

    Attributes:
      space: of one input and one type of cell.
      channels: C of the first stage; the second and third have 2C and 4C.
      cells: N, of each stage; the benchmark's networks have 5.
      num_classes, dtype, remat, dropout, partial, running_statistics, axis_name, executor: as `Supernet`.
    """

    space: SearchSpace = nas_bench_201()
    channels: int = 16
    cells: int = 5
    num_classes: int = 10
    dtype: jax.typing.DTypeLike = jnp.float32
    remat: bool = False
    dropout: ops.Dropout = ""
    partial: int = 1
    running_statistics: bool = True
    axis_name: str | None = None
    executor: Literal["loop", "plain"] = "loop"

    @property
    def layers(self) -> dict[str, int]:
        """How many cells there are of each type."""
        return {"normal": 3 * self.cells}

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        op_weights: dict[str, jax.Array] | None = None,
        *,
        train: bool,
        dropout_rate: jax.Array | float = 0.0,
    ) -> jax.Array:
        """As `Supernet`; weights of each layer are f32[3N, edges, ops]."""
        chex.assert_rank(images, 4)
        logits = {t: self.variable("arch", t, self._init_logits, t).value for t in self.space.cell_types}
        if op_weights is None:
            op_weights = gates.softmax(logits)
        weights = jnp.broadcast_to(op_weights["normal"], (3 * self.cells, *self.space.shape))

        shared: dict[str, Any] = {"running_statistics": self.running_statistics, "axis_name": self.axis_name}
        x = Conv(self.channels, dtype=self.dtype, name="stem")(images)
        x = BatchNorm(**shared, name="stem_norm")(x, train=train)
        # `train`, the fourth argument with self, is positional so that it can be static here.
        cell_class = nn.remat(Cell201, static_argnums=3) if self.remat else Cell201
        for k in range(3 * self.cells):
            if k in (self.cells, 2 * self.cells):
                x = ResidualBlock(**shared, name=f"block_{k // self.cells}")(x, train=train)
            cell = cell_class(
                **shared,
                space=self.space,
                channels=x.shape[-1],
                pool_norm=False,
                dropout=self.dropout,
                partial=self.partial,
                executor=self.executor,
                name=f"cell_{k}",
            )
            x = cell(x, weights[k], train, dropout_rate)
        x = nn.relu(BatchNorm(**shared, name="head_norm")(x, train=train))
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=torch_init, name="classifier")(pooled)

    def _init_logits(self, cell_type):
        return init_logits(self.make_rng("params"), self.space, cell_type)
