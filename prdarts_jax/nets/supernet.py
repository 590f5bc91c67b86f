"""The supernet: every candidate op on every edge, one set of weights (DARTS; Liu et al., ICLR 2019, section 2)."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.nets import executor
from prdarts_jax.nets.layers import (
    AuxiliaryHead,
    BatchNorm,
    Conv,
    Form,
    Normalizing,
    Preprocess,
    classifier,
    imagenet_stem,
)
from prdarts_jax.nets.program import program
from prdarts_jax.spaces import SearchSpace, darts, layout
from prdarts_jax.spaces.genotypes import CELL_TYPES


def init_logits(key: jax.Array, space: SearchSpace, cell_type: str) -> jax.Array:
    """1e-3 N(0, 1), f32[edges, ops], and -inf for an op that is no candidate of its edge."""
    drawn = 1e-3 * jax.random.normal(key, space.shape, jnp.float32)
    return jnp.where(space.candidates(cell_type), drawn, -jnp.inf)


class SearchCell(Normalizing):
    """What every cell of a supernet has; see `program.py` for how it runs, and `ops.candidate` for its ops."""

    space: SearchSpace
    channels: int
    pool_norm: bool
    affine: bool
    dropout: ops.Dropout
    partial: int

    def _execute(self, reduction, inputs, states, weights, train, dropout_rate):
        """The states of the nodes, [nodes, B, h, w, C], after all edge groups; call it in a compact method.

        A reduction cell has the `inputs` [2, B, H, W, C] and no input nodes in its states; others have None.
        """
        names = ("channels", "pool_norm", "affine", "dropout", "partial", "axis_name")
        fields = {name: getattr(self, name) for name in names}
        for i, (rows, group) in enumerate(program(self.space, reduction, train=train, **fields)):
            params = self.param(f"stage_{i}", group.init_params)
            stats = self._running(f"stage_{i}", group.init_stats)
            if any(op.draws for op in group.candidates.values()):
                key = self.make_rng("draws") if self.has_rng("draws") else jax.random.key(0)
                drawn = group.init_draws(key, dropout_rate, states.shape[1])
                params = {name: params.get(name, {}) | drawn.get(name, {}) for name in {**params, **drawn}}
            group_weights = weights[jnp.array(rows)]
            of_inputs = inputs if group.stride == 2 else None
            states, moments = executor.execute(group, params, stats and stats.value, of_inputs, states, group_weights)
            executed = {name: group_weights[:, group.op_names.index(name)] != 0 for name in moments}
            self._move(stats, moments, train, executed)
        return states


class Cell(SearchCell):
    """One cell of the DARTS supernet; it and the one before may be reductions, which halve the image."""

    reduction: bool
    reduction_before: bool

    @nn.compact
    def __call__(
        self, s0: jax.Array, s1: jax.Array, weights: jax.Array, train: bool, dropout_rate: jax.Array | float
    ) -> jax.Array:
        """[B, H, W, D] of cells k-2 and k-1 -> the intermediate nodes, concatenated: [B, h, w, (nodes - 2) C].

        The weights are f32[edges, ops]; s0 is of double the size of s1 if that is a reduction's.
        """

        def preprocess(i, x, reduce):
            shared = (self.running_statistics, self.axis_name)
            return Preprocess(*shared, self.channels, reduce, self.affine, name=f"preprocess_{i}")(x, train=train)

        s0 = preprocess(0, s0, self.reduction_before)
        inputs = jnp.stack([s0, preprocess(1, s1, False)])
        batch, height, width = s0.shape[:3]
        if self.reduction:
            height, width = -(-height // 2), -(-width // 2)
        empty = jnp.zeros((self.space.nodes - 2, batch, height, width, self.channels), s0.dtype)
        states = empty if self.reduction else jnp.concatenate([inputs, empty])
        states = self._execute(self.reduction, inputs, states, weights, train, dropout_rate)
        return jnp.concatenate(list(states[-(self.space.nodes - 2) :]), axis=-1)


class Macro(nn.Module):
    """Stem, cells, head: what all supernets share. Which cells they have, and what is between them, each says itself.

    Collections: `params`, `arch` (the logits), and `batch_stats` if it keeps running statistics. A logit of -inf is
    that of an op which is no candidate; its softmax is exactly 0.

    Attributes:
      inputs, types: of a subclass, the inputs and cell types that a space must have to stand in it.
      space: the search space of a cell.
      channels: C of the first cells.
      cells: how many there are; see the supernet.
      num_classes: length of the logits of the classifier.
      dtype: compute dtype, float32 or bfloat16. Parameters, logits, BN statistics and the classifier stay float32.
      affine: whether the normalisations of the cells have a scale and a bias, as those of stem and head always have.
      dropout: what is dropped at the `dropout_rate` of a call, see `ops.candidate`.
      partial: K: ops process 1 / K of the channels; see `ops.candidate`.
      running_statistics: keep running BN statistics and use them when not training; otherwise always those of the
        batch.
      axis_name: mapped axis over which the batch is spread, if any: BN takes the moments of the global batch.
    """

    inputs: ClassVar[int]
    types: ClassVar[tuple[str, ...]]

    space: SearchSpace
    channels: int = 16
    cells: int = 8
    num_classes: int = 10
    dtype: jax.typing.DTypeLike = jnp.float32
    affine: bool = False
    dropout: ops.Dropout = ""
    partial: int = 1
    running_statistics: bool = True
    axis_name: str | None = None

    @property
    def cell_types(self) -> tuple[str, ...]:
        """The type of each cell, in order."""
        raise NotImplementedError

    @property
    def layers(self) -> dict[str, int]:
        """How many cells there are of each type."""
        return {cell_type: self.cell_types.count(cell_type) for cell_type in self.space.cell_types}

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        op_weights: Mapping[str, jax.Array] | None = None,
        *,
        train: bool,
        dropout_rate: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Classifies images. What ops draw comes from the stream of random numbers `draws`.

        Args:
          images: f32[B, H, W, channels].
          op_weights: per cell type f32[layers, edges, ops], those of its cells in order; 0 means: not executed. By
            default the softmax of the supernet's own logits, in every cell; logits are not needed where they are given.
          train: normalise by the batch and, if batch_stats is mutable, update the running statistics.
          dropout_rate: f32[], for what `dropout` names.

        Returns:
          Logits of the classes, f32[B, num_classes].

        Raises:
          ValueError: op weights are of another shape.
        """
        chex.assert_rank(images, 4)
        if op_weights is None or self.is_initializing():
            logits = {
                t: self.variable("arch", t, lambda t=t: init_logits(self.make_rng("params"), self.space, t)).value
                for t in self.space.cell_types
            }
        shapes = {t: (layers, *self.space.shape) for t, layers in self.layers.items()}
        if op_weights is None:
            op_weights = {t: jnp.broadcast_to(jax.nn.softmax(beta), shapes[t]) for t, beta in logits.items()}
        for t, shape in shapes.items():
            if op_weights[t].shape != shape:
                raise ValueError(
                    f"op_weights[{t!r}] of the shape {op_weights[t].shape} must be of the shape (layers, edges, ops), "
                    f"here {shape}"
                )
        types = self.cell_types
        weights = [op_weights[t][types[:k].count(t)] for k, t in enumerate(types)]
        x = self._run_cells(images, weights, train, dropout_rate)
        return classifier(self.num_classes)(jnp.mean(x.astype(jnp.float32), axis=(1, 2)))

    def _run_cells(self, images, weights, train, dropout_rate):
        """What the head pools; `weights` are f32[edges, ops] for each cell."""
        raise NotImplementedError

    @property
    def _of_cells(self) -> dict[str, Any]:
        """What every `SearchCell` has of the supernet."""
        names = ("running_statistics", "axis_name", "space", "affine", "dropout", "partial")
        return {name: getattr(self, name) for name in names}

    def _stem(self, images, channels, train):
        return self._norm("stem_norm", Conv(channels, dtype=self.dtype, name="stem")(images), train)

    def _norm(self, name, x, train):
        return BatchNorm(self.running_statistics, self.axis_name, name=name)(x, train=train)


class Supernet(Macro):
    """The supernet of DARTS: every cell reads the two before it. The width doubles at the reductions (`spaces.layout`).

    Attributes, beside those of `Macro`:
      form: 'cifar', or 'imagenet', which begins with three convolutions of stride 2 and 3 C channels, as in PC-DARTS's
        search on ImageNet (Xu et al., ICLR 2020); the first cell takes its second input from before the last of them.
      cells: k, at least 1.
      channels: even, as each of the two convolutions of a factorised reduction makes half of them.
      pool_norm: BN after pools, as in DARTS (not in PR-DARTS's released supernet).
      head_norm: BN and ReLU before the global pool, as in PR-DARTS's released supernet.
      auxiliary: an auxiliary head after the last reduction; when training its logits are sown as `logits` into the
        collection `auxiliary`.
    """

    inputs = 2
    types = CELL_TYPES

    space: SearchSpace = darts()
    form: Form = "cifar"
    pool_norm: bool = True
    head_norm: bool = False
    auxiliary: bool = False

    @property
    def cell_types(self) -> tuple[str, ...]:
        """The type of each cell, in order."""
        return layout(self.cells)

    def _run_cells(self, images, weights, train, dropout_rate):
        channels, reduction_before = self.channels, self.form == "imagenet"
        if self.form == "cifar":
            s0 = s1 = self._stem(images, 3 * channels, train)
        else:
            norm = functools.partial(self._norm, train=train)
            s0, s1 = imagenet_stem(images.astype(self.dtype), 3 * channels, norm)
        for k, cell_type in enumerate(self.cell_types):
            reduction = cell_type == "reduce"
            channels *= 2 if reduction else 1
            cell = Cell(
                **self._of_cells,
                channels=channels,
                pool_norm=self.pool_norm,
                reduction=reduction,
                reduction_before=reduction_before,
                name=f"cell_{k}",
            )
            s0, s1 = s1, cell(s0, s1, weights[k], train, dropout_rate)
            reduction_before = reduction
            if self.auxiliary and train and reduction and "reduce" not in self.cell_types[k + 1 :]:
                head = AuxiliaryHead(self.num_classes, self.dtype, self.axis_name, name="auxiliary_head")
                self.sow("auxiliary", "logits", head(s1, train=train), reduce_fn=lambda _, new: new)
        return nn.relu(self._norm("head_norm", s1, train)) if self.head_norm else s1
