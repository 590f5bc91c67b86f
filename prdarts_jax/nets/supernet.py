"""The supernet: all candidate ops on every edge, with shared weights (DARTS; Liu et al., ICLR 2019, section 2)."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from prdarts_jax import ops
from prdarts_jax.fields import at_least, checked
from prdarts_jax.nets import executor
from prdarts_jax.nets.layers import (
    AuxiliaryHead,
    BatchNorm,
    Conv,
    Form,
    Normalizing,
    Preprocess,
    check_dtype,
    classifier,
    imagenet_stem,
    key_of_draws,
)
from prdarts_jax.nets.program import program
from prdarts_jax.spaces import SearchSpace, darts, layout
from prdarts_jax.spaces.genotypes import EdgeGenotype, Genotype


def init_logits(key: jax.Array, space: SearchSpace, cell_type: str) -> jax.Array:
    """Draws initial logits f32[edges, ops]: normal with the standard deviation 1e-3, and -inf where an op is not a
    candidate of the edge in cells of this type, 'normal' or 'reduce'."""
    drawn = 1e-3 * jax.random.normal(key, space.shape, jnp.float32)
    return jnp.where(space.candidates(cell_type), drawn, -jnp.inf)


class SearchCell(Normalizing):
    """The base of the cells of supernets. `program.py` says how a cell runs.

    Attributes:
      space: the nodes, edges and ops of the cell.
      channels: C, the width of each node.
      pool_norm, affine, dropout, partial: the arguments of `ops.candidate`.
      running_statistics, axis_name: as those of `Macro`.
    """

    space: SearchSpace
    channels: int
    pool_norm: bool
    affine: bool
    dropout: ops.Dropout
    partial: int

    def _execute(self, reduction, inputs, states, weights, train, dropout_rate):
        """Executes all edge groups and returns the states of the nodes, [nodes, B, h, w, C]; call it in a compact
        method.

        The `states` of a reduction cell are those of the intermediate nodes, and its `inputs` are [2, B, H, W, C]. The
        `states` of other cells include the input nodes, and their `inputs` are not used.
        """
        names = ("channels", "pool_norm", "affine", "dropout", "partial", "axis_name")
        fields = {name: getattr(self, name) for name in names}
        for i, (rows, group) in enumerate(program(self.space, reduction, train=train, **fields)):
            params = self.param(f"stage_{i}", group.init_params)
            stats = self._running(f"stage_{i}", group.init_stats)
            if any(op.draws for op in group.candidates.values()):
                drawn = group.init_draws(key_of_draws(self, i), dropout_rate, states.shape[1])
                params = {name: params.get(name, {}) | drawn.get(name, {}) for name in {**params, **drawn}}
            group_weights = weights[jnp.array(rows)]
            of_inputs = inputs if group.stride == 2 else None
            states, moments = executor.execute(group, params, stats and stats.value, of_inputs, states, group_weights)
            executed = {name: group_weights[:, group.op_names.index(name)] != 0 for name in moments}
            self._move(stats, moments, train, executed)
        return states


class Cell(SearchCell):
    """A cell of the DARTS supernet. Its two inputs are the outputs of the two cells before it, k-2 and k-1.

    Attributes, beside those of `SearchCell`:
      reduction: whether the cell halves height and width.
      reduction_before: whether the cell k-1 halves them, so that the output of the cell k-2 is twice as high and wide.
    """

    reduction: bool
    reduction_before: bool

    @nn.compact
    def __call__(
        self, s0: jax.Array, s1: jax.Array, weights: jax.Array, train: bool, dropout_rate: jax.Array | float
    ) -> jax.Array:
        """Computes the intermediate nodes and concatenates those of `space.concat`.

        Args:
          s0: output of the cell k-2, [B, H, W, D]; with `reduction_before` [B, 2 H, 2 W, D], or one less on a side.
          s1: output of the cell k-1, [B, H, W, D'].
          weights: op weights f32[edges, ops]; an op of weight 0 is not executed.
          train: as for `Macro.__call__`.
          dropout_rate: as for `Macro.__call__`.

        Returns:
          [B, h, w, len(space.concat) C], where h and w are H and W, in a reduction half of them, rounded up.
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
        return jnp.concatenate(list(states[-len(self.space.concat) :]), axis=-1)


class Macro(nn.Module):
    """The base of all supernets: a stem, cells and a head. A subclass defines the cells and the layers between them.

    Variables are in the collections `params`, `arch` (the architecture's logits, f32[edges, ops] for each cell type)
    and, with `running_statistics`, `batch_stats`. An op that is not a candidate of its edge has the logit -inf, so its
    softmax is exactly 0.

    Attributes:
      genotype_class: of a subclass: the class of genotypes that describes the cells of its space.
      space: the search space of a cell.
      channels: C of the first cells.
      cells: number of cells; what is counted depends on the subclass.
      num_classes: number of classes.
      dtype: dtype of the computation, float32 or bfloat16. Parameters, logits, BN statistics and the classifier stay
        float32.
      affine: whether the normalisations of the cells have a scale and a bias. Those of stem and head always have them.
      dropout: what is dropped, with the probability `dropout_rate` of a call: '' for nothing, 'skip', 'path' or
        'nonskip'; see `ops.candidate`.
      partial: K: ops process 1 / K of the channels; see `ops.candidate`.
      running_statistics: True: keep running BN statistics, and use them when not training. False: always normalise by
        the statistics of the batch.
      axis_name: the mapped axis over which the batch is spread, if any; BN then takes the moments of the whole batch.

    Raises:
      ValueError: a field is of another type or out of range, or the cells of the space are of another form.
    """

    genotype_class: ClassVar[type[Genotype] | type[EdgeGenotype]]

    space: SearchSpace
    channels: Annotated[int, at_least(1)] = 16
    cells: Annotated[int, at_least(1)] = 8
    num_classes: Annotated[int, at_least(1)] = 10
    dtype: jax.typing.DTypeLike = jnp.float32
    affine: bool = False
    dropout: ops.Dropout = ""
    partial: Annotated[int, at_least(1)] = 1
    running_statistics: bool = True
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if (found := self.space.genotype_class) is not self.genotype_class:
            fits = "pdx.Supernet (macro='darts')" if found is Genotype else "pdx.Supernet201 (macro='nas_bench_201')"
            raise ValueError(
                f"space {self.space.name!r}, whose cells are {found.__name__}s, must be given to {fits} and not to "
                f"{type(self).__name__}"
            )
        check_dtype(self.dtype)
        super().__post_init__()

    @property
    def cell_types(self) -> tuple[str, ...]:
        """The type of each cell, in order."""
        raise NotImplementedError

    @property
    def layers(self) -> dict[str, int]:
        """The number of cells of each type."""
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
        """Classifies images. Ops that use random numbers take them from the rng stream `draws`.

        Args:
          images: f32[B, H, W, channels].
          op_weights: {cell type: f32[layers, edges, ops]}, the weights of each cell of the type, in order. An op of
            weight 0 is not executed. By default every cell has the softmax of the logits in `arch`; if op weights are
            given, the collection `arch` is not needed.
          train: whether to normalise by the statistics of the batch and, if `batch_stats` is mutable, to update the
            running statistics.
          dropout_rate: f32[], the probability for the field `dropout`.

        Returns:
          Logits of the classes, f32[B, num_classes].

        Raises:
          ValueError: images have another number of axes, or op weights have another shape.
        """
        if images.ndim != 4:
            raise ValueError(f"images of the shape {images.shape} must be of the shape (B, H, W, channels)")
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
        """Runs stem and cells and returns the features for the head; `weights` are f32[edges, ops] for each cell."""
        raise NotImplementedError

    @property
    def _of_cells(self) -> dict[str, Any]:
        """The fields that a `SearchCell` takes from the supernet."""
        names = ("running_statistics", "axis_name", "space", "affine", "dropout", "partial")
        return {name: getattr(self, name) for name in names}

    def _stem(self, images, channels, train):
        return self._norm("stem_norm", Conv(channels, dtype=self.dtype, name="stem")(images), train)

    def _norm(self, name, x, train):
        return BatchNorm(self.running_statistics, self.axis_name, name=name)(x, train=train)


@checked
class Supernet(Macro):
    """The supernet of DARTS: every cell reads the two before it. The width doubles at the reductions (`spaces.layout`).

    Attributes, beside those of `Macro`:
      form: the stem. 'cifar': one convolution with 3 C channels. 'imagenet': three convolutions of stride 2, with
        3 C / 2, 3 C and 3 C channels, as in PC-DARTS's search on ImageNet (Xu et al., ICLR 2020); the inputs of the
        first cell are the outputs of the second and the third.
      cells: number of cells, at least 1.
      channels: C of the first cells.
      pool_norm: whether BN follows pools, as in DARTS, but not in PR-DARTS's released supernet.
      head_norm: whether BN and ReLU come before the global pool, as in PR-DARTS's released supernet.
      auxiliary: whether there is an auxiliary head after the last reduction. In calls with train=True, its logits
        f32[B, num_classes] are sown under the name `logits` into the collection `auxiliary`.
    """

    genotype_class = Genotype

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


def by_op(params: dict) -> dict[str, dict]:
    """The parameters of the ops in all cells of a supernet, {'CELL/stage_i/OP': {name: f32[edges, ...]}}."""
    found: dict[str, dict] = {}
    for path, value in flatten_dict(params).items():
        for place, name in enumerate(path[:-2]):
            if name.startswith("stage_"):
                found.setdefault("/".join(path[: place + 2]), {})["/".join(path[place + 2 :])] = value
    return found
