"""The supernet of NAS-Bench-201 (Dong, Yang, ICLR 2020)."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.nets.layers import BatchNorm, Conv, Normalizing, torch_init
from prdarts_jax.nets.supernet import Macro, SearchCell
from prdarts_jax.spaces import SearchSpace, nas_bench_201
from prdarts_jax.spaces.genotypes import EdgeGenotype


class Cell201(SearchCell):
    """A cell of NAS-Bench-201's supernet: its first node is the input, its last node the output."""

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool, dropout_rate: jax.Array | float) -> jax.Array:
        """Computes [B, H, W, C] from x [B, H, W, C], with op weights f32[edges, ops]; see `Macro.__call__`."""
        states = jnp.zeros((self.space.nodes, *x.shape), x.dtype).at[0].set(x)
        return self._execute(False, None, states, weights, train, dropout_rate)[-1]


class ResidualBlock(Normalizing):
    """Halves height and width and doubles the channels: the sum of a branch of two 3x3 convolutions and a shortcut of
    an average pool and a 1x1 convolution."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes [B, ceil(H / 2), ceil(W / 2), 2 C] from x [B, H, W, C]."""

        def norm(i, y):
            return BatchNorm(self.running_statistics, self.axis_name, name=f"norm_{i}")(y, train=train)

        channels = 2 * x.shape[-1]
        y = norm(0, Conv(channels, strides=(2, 2), dtype=x.dtype, name="conv_0")(nn.relu(x)))
        y = norm(1, Conv(channels, dtype=x.dtype, name="conv_1")(nn.relu(y)))
        odd = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
        pooled = nn.avg_pool(x, (2, 2), (2, 2), padding=odd, count_include_pad=False)
        return y + nn.Dense(channels, use_bias=False, dtype=x.dtype, kernel_init=torch_init, name="shortcut")(pooled)


@checked
class Supernet201(Macro):
    """The supernet of NAS-Bench-201: three stages of cells, joined by residual blocks.

    Attributes, beside those of `Macro`:
      space: a space whose cells have one input and one type, 'normal'.
      channels: C of the first stage; the second and third have 2C and 4C.
      cells: the number of cells per stage, not in total; the benchmark's networks have 5.
    """

    genotype_class = EdgeGenotype

    space: SearchSpace = nas_bench_201()
    cells: Annotated[int, at_least(1)] = 5

    @property
    def cell_types(self) -> tuple[str, ...]:
        """The type of each cell, in order."""
        return ("normal",) * (3 * self.cells)

    def _run_cells(self, images, weights, train, dropout_rate):
        x = self._stem(images, self.channels, train)
        for stage in range(3):
            if stage:
                block = ResidualBlock(self.running_statistics, self.axis_name, name=f"block_{stage}")
                x = block(x, train=train)
            for k in range(stage * self.cells, (stage + 1) * self.cells):
                cell = Cell201(**self._of_cells, channels=x.shape[-1], pool_norm=False, name=f"cell_{k}")
                x = cell(x, weights[k], train, dropout_rate)
        return nn.relu(self._norm("head_norm", x, train))
