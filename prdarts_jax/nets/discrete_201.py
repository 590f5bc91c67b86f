"""The discrete network of a cell of NAS-Bench-201, for training from scratch (Dong, Yang, ICLR 2020, section 2.1)."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import devices, ops
from prdarts_jax.fields import at_least, checked
from prdarts_jax.nets.layers import BatchNorm, Conv, Layer, check_dtype, classifier
from prdarts_jax.nets.nas_bench_201 import ResidualBlock
from prdarts_jax.spaces.genotypes import EdgeGenotype


class DiscreteCell201(nn.Module):
    """A cell of a `DiscreteNetwork201`: each node is the sum of the outputs of the ops on the edges into it.

    Attributes:
      genotype: the cell.
      channels: C, the width of each node.
      axis_name: as that of `DiscreteNetwork201`.
    """

    genotype: EdgeGenotype
    channels: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None, *, train: bool) -> jax.Array:
        """Computes [B, H, W, C] from x [B, H, W, C].

        `keep` is f32[edges, B], the factors of drop-path for each op and image, or None.
        """
        states = [x] + [jnp.zeros_like(x)] * (self.genotype.nodes - 1)
        for i, (name, (source, target)) in enumerate(zip(self.genotype.ops, self.genotype.edges, strict=True)):
            if ops.group(name) == "none":
                continue
            layer = Layer(
                ops.candidate(name, channels=self.channels, stride=1), self.channels, self.axis_name, name=f"op_{i}"
            )
            y = layer(states[source], train=train)
            if keep is not None and ops.group(name) != "skip":
                y *= keep[i, :, None, None, None].astype(y.dtype)
            states[target] = states[target] + y
        return states[-1]


@checked
class DiscreteNetwork201(nn.Module):
    """The network of an `EdgeGenotype`: a stem, three stages of cells joined by residual blocks, and a head.

    It is called as a `DiscreteNetwork` and has variables in the same collections, `params` and `batch_stats`, but no
    auxiliary head.

    Attributes:
      genotype: the cell.
      channels: C of the first stage; the second and third have 2C and 4C.
      cells: the number of cells per stage.
      num_classes: number of classes.
      dtype: dtype of the computation, float32 or bfloat16. Parameters, BN statistics and the classifier stay float32.
      axis_name: the mapped axis over which the batch is spread, if any; BN then takes the moments of the whole batch.

    Raises:
      ValueError: a field is of another type or out of range.
    """

    genotype: EdgeGenotype
    channels: Annotated[int, at_least(1)] = 16
    cells: Annotated[int, at_least(1)] = 5
    num_classes: Annotated[int, at_least(1)] = 10
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, drop_path: jax.Array | float = 0.0) -> jax.Array:
        """Classifies images: logits f32[B, num_classes] from f32[B, H, W, channels]; see `DiscreteNetwork.__call__`."""

        def norm(name, x):
            return BatchNorm(running_statistics=True, axis_name=self.axis_name, name=name)(x, train=train)

        keep: Any = [None] * (3 * self.cells)
        if train and self.has_rng("drop_path"):
            paths, key = len(self.genotype.ops), self.make_rng("drop_path")
            keep = devices.draw_part(
                lambda n: ops.drop_path_factors(key, drop_path, (len(keep), paths, n)), len(images), self.axis_name, 2
            )
        x = norm("stem_norm", Conv(self.channels, dtype=self.dtype, name="stem")(images))
        for k in range(3 * self.cells):
            stage, first = divmod(k, self.cells)
            if stage and not first:
                x = ResidualBlock(running_statistics=True, axis_name=self.axis_name, name=f"block_{stage}")(
                    x, train=train
                )
            cell = DiscreteCell201(self.genotype, x.shape[-1], self.axis_name, name=f"cell_{k}")
            x = cell(x, keep[k], train=train)
        x = nn.relu(norm("head_norm", x))
        return classifier(self.num_classes)(jnp.mean(x.astype(jnp.float32), axis=(1, 2)))
