"""The supernet: every candidate op on every edge, one set of weights (DARTS; Liu et al., ICLR 2019, section 2).

`nas_bench_201.py` has that of the other space with a network of its own.
"""

from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.nets.executor import Executor, execute, execute_plain, program
from prdarts_jax.ops import kernels
from prdarts_jax.search import gates
from prdarts_jax.spaces import SearchSpace, darts

_EXECUTORS: dict[str, Executor] = {"loop": execute, "plain": execute_plain}
torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def init_logits(key: jax.Array, space: SearchSpace, cell_type: str) -> jax.Array:
    """1e-3 N(0, 1), f32[edges, ops], and -inf for an op that is no candidate of its edge."""
    drawn = 1e-3 * jax.random.normal(key, space.shape, jnp.float32)
    return jnp.where(space.candidates(cell_type), drawn, -jnp.inf)


class _Normalizing(nn.Module):
    """What normalises by the batch and, where asked to, keeps running statistics (collection batch_stats)."""

    running_statistics: bool
    axis_name: str | None

    def _running(self, name, init):
        """The variable of the running statistics, or None."""
        return self.variable("batch_stats", name, init) if self.running_statistics else None

    def _store(self, variable, statistics):
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            variable.value = statistics


class BatchNorm(_Normalizing):
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


class Preprocess(_Normalizing):
    """Maps an input of a cell to the cell's width: ReLU, 1x1 convolution, BN, or a factorised reduction.

    Attributes:
      channels: C of the cell.
      reduce: halve the image, since the input comes from before a reduction.
    """

    channels: int
    reduce: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, D] -> [B, H, W, C], or half the height and width."""
        build = ops.factorized_reduce if self.reduce else ops.relu_conv_norm
        op = build(x.shape[-1], self.channels)
        norm = ops.batch_normalizer(train=train, axis_name=self.axis_name)
        stats = self._running("moments", lambda: ops.init_stats(op, self.channels))
        y, moments = op.apply(self.param("conv", ops.init_params, op.shapes), stats and stats.value, x, norm)
        if train and stats:
            self._store(stats, ops.update_running(stats.value, moments))
        return y


class SearchCell(_Normalizing):
    """What every cell of a supernet has; see `cell.py` for how it runs.

    Attributes:
      space: nodes, edges and ops.
      channels: C of its nodes.
      pool_norm, dropout, partial: see `ops.candidate`.
      executor: 'loop', or 'plain' for the oracle.
    """

    space: SearchSpace
    channels: int
    pool_norm: bool
    dropout: ops.Dropout
    partial: int
    executor: Literal["loop", "plain"]

    def _execute(self, reduction, inputs, states, weights, train, dropout_rate):
        """The states of the nodes after all stages; call it in a compact method.

        Args:
          reduction: see `cell.program`.
          inputs: [2, B, H, W, C] of a reduction cell, otherwise None.
          states: [nodes, B, h, w, C], without the input nodes in a reduction cell.
          weights: f32[edges, ops].
          train: normalise by the batch.
          dropout_rate: f32[].
        """
        fields = {name: getattr(self, name) for name in ("channels", "pool_norm", "dropout", "partial", "axis_name")}
        for i, (rows, stage) in enumerate(program(self.space, reduction, train=train, **fields)):
            params = self.param(f"stage_{i}", stage.init_params)
            stats = self._running(f"stage_{i}", stage.init_stats)
            if any(op.draws for op in stage.candidates.values()):
                key = self.make_rng("draws") if self.has_rng("draws") else jax.random.key(0)
                drawn = stage.init_draws(key, dropout_rate, states.shape[1])
                params = {name: params.get(name, {}) | drawn.get(name, {}) for name in {**params, **drawn}}
            stage_weights = weights[jnp.array(rows)]
            states, moments = _EXECUTORS[self.executor](
                stage,
                params,
                stats and stats.value,
                inputs if stage.stride == 2 else None,
                states,
                stage_weights,
            )
            if train and stats:
                executed = {name: stage_weights[:, stage.op_names.index(name)] != 0 for name in moments}
                updated = {n: ops.update_running(stats.value[n], moments[n], executed[n]) for n in moments}
                self._store(stats, updated)
        return states


class Cell(SearchCell):
    """One cell of the DARTS supernet.

    Attributes:
      reduction: halves the image.
      reduction_before: the previous cell was a reduction.
    """

    reduction: bool
    reduction_before: bool

    @nn.compact
    def __call__(
        self, s0: jax.Array, s1: jax.Array, weights: jax.Array, train: bool, dropout_rate: jax.Array | float
    ) -> jax.Array:
        """Runs the cell.

        Args:
          s0: output of cell k-2, [B, H, W, D], of double the size of s1 if that is a reduction's.
          s1: output of cell k-1.
          weights: f32[edges, ops].
          train: normalise by the batch.
          dropout_rate: f32[], see `ops.candidate`.

        Returns:
          The intermediate nodes, concatenated: [B, h, w, (nodes - 2) C].
        """
        shared: dict[str, Any] = {"running_statistics": self.running_statistics, "axis_name": self.axis_name}
        s0 = Preprocess(**shared, channels=self.channels, reduce=self.reduction_before, name="preprocess_0")(
            s0, train=train
        )
        s1 = Preprocess(**shared, channels=self.channels, reduce=False, name="preprocess_1")(s1, train=train)
        inputs = jnp.stack([s0, s1])
        batch, height, width = s0.shape[:3]
        if self.reduction:
            height, width = -(-height // 2), -(-width // 2)
        empty = jnp.zeros((self.space.nodes - 2, batch, height, width, self.channels), s0.dtype)
        states = empty if self.reduction else jnp.concatenate([inputs, empty])
        states = self._execute(self.reduction, inputs, states, weights, train, dropout_rate)
        return jnp.concatenate(list(states[-(self.space.nodes - 2) :]), axis=-1)


class Supernet(nn.Module):
    """Stem, cells, head. Collections: `params`, `arch` (the logits), and `batch_stats` if it keeps running statistics.

    Cells k // 3 and 2k // 3 are reductions; there the width doubles. A logit of -inf is that of an op which is no
    candidate; its softmax is exactly 0.

    Attributes:
      space: the search space of a cell.
      channels: C of the first cells, even (a factorised reduction makes half of the channels with each of two
        convolutions).
      cells: k, at least 1.
      num_classes: length of the logits of the classifier.
      dtype: compute dtype, float32 or bfloat16. Parameters, logits, BN statistics and the classifier stay float32.
      remat: keep only the inputs of a cell for the backward pass and compute its nodes again, at the cost of a forward
        pass. At six cells on a CPU the peak of the memory was no lower for it.
      pool_norm: BN after pools, as in DARTS (not in PR-DARTS's released supernet).
      dropout: what is dropped at the `dropout_rate` of a call, see `ops.candidate`.
      partial: an op sees so small a part of the channels, see `ops.partially`.
      head_norm: BN and ReLU before the global pool, as in PR-DARTS's released supernet.
      running_statistics: keep running BN statistics and use them when not training; otherwise always those of the
        batch.
      axis_name: mapped axis over which the batch is spread, if any: BN takes the moments of the global batch.
      executor: 'loop', or 'plain' for the slow oracle of tests.
    """

    space: SearchSpace = darts()
    channels: int = 16
    cells: int = 8
    num_classes: int = 10
    dtype: jax.typing.DTypeLike = jnp.float32
    remat: bool = False
    pool_norm: bool = True
    dropout: ops.Dropout = ""
    partial: int = 1
    head_norm: bool = False
    running_statistics: bool = True
    axis_name: str | None = None
    executor: Literal["loop", "plain"] = "loop"

    @property
    def _reductions(self) -> set[int]:
        return {self.cells // 3, 2 * self.cells // 3}

    @property
    def layers(self) -> dict[str, int]:
        """How many cells there are of each type."""
        reductions = len(self._reductions & set(range(self.cells)))
        return {"normal": self.cells - reductions, "reduce": reductions}

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        op_weights: dict[str, jax.Array] | None = None,
        *,
        train: bool,
        dropout_rate: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Classifies images. What ops draw comes from the stream of random numbers `draws`.

        Args:
          images: f32[B, H, W, channels].
          op_weights: per cell type f32[edges, ops], or f32[cells of the type, edges, ops] for weights of each layer. 0
            means: not executed. By default the softmax of the supernet's own logits.
          train: normalise by the batch and, if batch_stats is mutable, update the running statistics.
          dropout_rate: f32[], for what `dropout` names.

        Returns:
          Logits of the classes, f32[B, num_classes].
        """
        chex.assert_rank(images, 4)
        logits = {t: self.variable("arch", t, self._init_logits, t).value for t in self.space.cell_types}
        if op_weights is None:
            op_weights = gates.softmax(logits)

        shared: dict[str, Any] = {"running_statistics": self.running_statistics, "axis_name": self.axis_name}
        x = Conv(3 * self.channels, dtype=self.dtype, name="stem")(images)
        s0 = s1 = BatchNorm(**shared, name="stem_norm")(x, train=train)

        # `train`, the fifth argument with self, is positional so that it can be static here.
        cell_class = nn.remat(Cell, static_argnums=4) if self.remat else Cell
        channels, reduction_before = self.channels, False
        seen = dict.fromkeys(self.space.cell_types, 0)
        for k in range(self.cells):
            reduction = k in self._reductions
            channels *= 2 if reduction else 1
            cell_type = "reduce" if reduction else "normal"
            weights = op_weights[cell_type]
            if weights.ndim == 3:
                weights = weights[seen[cell_type]]
            chex.assert_shape(weights, self.space.shape)
            seen[cell_type] += 1
            cell = cell_class(
                **shared,
                space=self.space,
                channels=channels,
                reduction=reduction,
                reduction_before=reduction_before,
                pool_norm=self.pool_norm,
                dropout=self.dropout,
                partial=self.partial,
                executor=self.executor,
                name=f"cell_{k}",
            )
            s0, s1 = s1, cell(s0, s1, weights, train, dropout_rate)
            reduction_before = reduction

        if self.head_norm:
            s1 = nn.relu(BatchNorm(**shared, name="head_norm")(s1, train=train))
        pooled = jnp.mean(s1.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=torch_init, name="classifier")(pooled)

    def _init_logits(self, cell_type):
        return init_logits(self.make_rng("params"), self.space, cell_type)
