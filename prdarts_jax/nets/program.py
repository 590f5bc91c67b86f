"""The cell as a small program: a list of instructions that `executor.py` executes in one compiled loop.

An instruction is (source, target, op, edge): take the state of node `source`, apply the op with the edge's parameters,
scale the result by the op's weight and add it to the state of node `target`. Only ops whose weight is not 0 become
instructions. So an op of weight 0 (a closed gate) costs neither a forward nor a backward computation, and the gradient
of its weight is 0.

An `EdgeGroup` has all edges of a cell with the same stride; parameters are stacked over its edges. A normal cell has
one group. A reduction cell has two: first the edges that leave the inputs (stride 2), then the others (stride 1).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import lax

from prdarts_jax import devices, ops
from prdarts_jax.spaces import SearchSpace

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EdgeGroup:
    """The edges of a cell with the same stride, and how to execute them; a static description without arrays.

    Attributes:
      edges: (source, target) of each edge. The target is an index into `states` of `executor.execute`; the source is an
        index into `states` too or, if the stride is 2, into `inputs`. A source index into `states` is smaller than the
        target index, and an edge comes after all edges that lead into its source.
      op_names: the names of the ops, in the order of the last axis of the weights.
      channels: C, the width of each node.
      stride: 1 or 2.
      pool_norm, affine, dropout, partial: the arguments of `ops.candidate`.
      train: whether ops normalise by the moments of the batch, which are then returned; otherwise they normalise by
        running statistics, if there are any.
      axis_name: the mapped axis over which the batch is spread, if any.
    """

    edges: tuple[tuple[int, int], ...]
    op_names: tuple[str, ...]
    channels: int
    stride: int
    pool_norm: bool = False
    affine: bool = False
    dropout: ops.Dropout = ""
    partial: int = 1
    train: bool = True
    axis_name: str | None = None

    @property
    def candidates(self) -> dict[str, ops.Op]:
        """The ops that can be executed, by name; see `columns`."""
        names = ("channels", "stride", "pool_norm", "affine", "dropout", "partial")
        fields = {name: getattr(self, name) for name in names}
        return {self.op_names[o]: ops.candidate(self.op_names[o], **fields) for o in self.columns}

    @property
    def columns(self) -> np.ndarray:
        """The indices of the `candidates` in `op_names`: all ops but the op `none`, which only has an effect with
        `partial` above 1, when other channels bypass it."""
        return np.array([o for o, name in enumerate(self.op_names) if name != "none" or self.partial > 1])

    @property
    def norm(self) -> ops.Norm:
        """The function by which the ops of the group normalise; see `ops.batch_normalizer`."""
        return ops.batch_normalizer(train=self.train, axis_name=self.axis_name)

    def init_params(self, key: jax.Array) -> Tree:
        """Draws initial parameters: {op: {name: f32[edges, ...]}} for the ops that have parameters."""
        shapes = {f"{name}/{param}": op.shapes[param] for name, op in self.candidates.items() for param in op.shapes}
        return unflatten_dict(ops.init_params(key, shapes, (len(self.edges),)), sep="/")

    def init_stats(self) -> Tree:
        """The initial running statistics, mean 0 and variance 1, of the ops that normalise: {op: {norm: {'mean', 'var':
        f32[edges, C / partial]}}}."""
        return {
            name: ops.init_stats(op, self.channels // self.partial, (len(self.edges),))
            for name, op in self.candidates.items()
            if op.norms
        }

    def init_draws(self, key: jax.Array, rate: jax.Array, images: int) -> Tree:
        """Makes the inputs that ops with random numbers need beside their parameters (see `Op.draws`).

        The ops of an edge share them. So if an image is dropped, the outputs of all ops of the edge are dropped for it.

        Args:
          key: a random key; do not use it again.
          rate: f32[], the probability of dropout and drop-path.
          images: number of images in the batch, or in this device's part of it.

        Returns:
          {op: {name: f32[edges, ...]}} for the ops that use random numbers.
        """
        key_seed, key_keep = jax.random.split(key)
        if self.axis_name is not None:
            key_seed = jax.random.fold_in(key_seed, lax.axis_index(self.axis_name))
        edges = len(self.edges)
        draws = {
            # Whole numbers that f32 represents exactly, so that they can be among the parameters.
            "seed": jax.random.randint(key_seed, (edges,), 0, 2**24).astype(jnp.float32),
            "rate": jnp.broadcast_to(jnp.float32(rate), (edges,)),
            "keep": devices.draw_part(
                lambda n: ops.drop_path_factors(key_keep, rate, (edges, n)), images, self.axis_name, axis=1
            ),
        }
        return {name: {draw: draws[draw] for draw in op.draws} for name, op in self.candidates.items() if op.draws}


class Instructions(NamedTuple):
    """A program, grouped by nodes: the instructions of `nodes[i]` are the rows `starts[i]` to `starts[i + 1] - 1`.

    A row of `table` is one instruction: source, target, edge, candidate, edge * candidates + candidate, where
    `candidates` is the number of candidates per edge; `weights` has the weight of its op. The rows from `starts[-1]` on
    are padding. Indices are unsigned, so that XLA need not test them for negative values.
    """

    nodes: jax.Array  # u32[nodes]
    starts: jax.Array  # u32[nodes + 1]
    table: jax.Array  # u32[edges * candidates, 5]
    weights: jax.Array  # f32[edges * candidates]


def instructions(group: EdgeGroup, weights: jax.Array, end: int) -> Instructions:
    """Makes the program with an instruction for each candidate whose weight in `weights`, f32[edges, ops], is not 0.

    With end=1, for the forward pass, instructions are grouped by their target, in ascending order of targets. With
    end=0, for the backward pass, they are grouped by their source, in descending order of sources.
    """
    nodes = sorted({edge[end] for edge in group.edges}, reverse=end == 0)
    edges = [e for node in nodes for e, edge in enumerate(group.edges) if edge[end] == node]
    count = len(group.columns)
    table = np.array([(*group.edges[e], e, o, e * count + o) for e in edges for o in range(count)], np.uint32)
    ordered = weights[np.array(edges)[:, None], group.columns].ravel()
    (order,) = jnp.nonzero(ordered, size=ordered.size, fill_value=0)
    # The start of a node is the number of instructions before those of the node.
    before = jnp.concatenate([jnp.zeros((1,), jnp.uint32), jnp.cumsum(ordered != 0, dtype=jnp.uint32)])
    sizes = [sum(edge[end] == node for edge in group.edges) for node in nodes]
    starts = before[np.cumsum([0, *sizes]) * count]
    return Instructions(jnp.array(nodes, jnp.uint32), starts, jnp.asarray(table)[order], ordered[order])


def program(space: SearchSpace, reduction: bool, **fields: Any) -> tuple[tuple[tuple[int, ...], EdgeGroup], ...]:
    """Makes the edge groups of a cell, in the order of execution.

    In a normal cell, `states` of `executor.execute` are those of all nodes. In a reduction cell, `states` are those of
    the intermediate nodes, and `inputs` of the first group are those of the two input nodes.

    Args:
      space: the nodes, edges and ops of the cell.
      reduction: whether the edges that leave the inputs have stride 2.
      **fields: the other fields of each `EdgeGroup`: channels, pool_norm, affine, dropout, partial, train, axis_name.

    Returns:
      A pair (rows, group) for each group: `rows` are the indices of its edges in `space.edges`.
    """
    if not reduction:
        rows = tuple(range(len(space.edges)))
        return ((rows, EdgeGroup(space.edges, space.ops, stride=1, **fields)),)
    result = []
    for stride, first_source in ((2, 0), (1, space.inputs)):
        rows = tuple(e for e, (s, _) in enumerate(space.edges) if (s < space.inputs) == (stride == 2))
        edges = tuple((space.edges[e][0] - first_source, space.edges[e][1] - space.inputs) for e in rows)
        if rows:
            result.append((rows, EdgeGroup(edges, space.ops, stride=stride, **fields)))
    return tuple(result)
