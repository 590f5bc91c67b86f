"""The cell as a small program: a list of instructions that `executor.py` executes in one compiled loop.

An instruction is (source, target, op, edge): take the state of node `source`, apply the op with the edge's parameters,
scale by the op's weight and add to the state of node `target`. Only ops of nonzero weight become instructions: a closed
gate costs neither computation nor differentiation, and its weight has the gradient 0.

The edges of a cell that have one stride are an `EdgeGroup`; parameters are stacked over its edges. A normal cell is one
group. A reduction cell is two: the edges that leave the inputs (stride 2), then the others.
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
    """The edges of a cell that have one stride, and how to execute them.

    Attributes:
      edges: (source, target) of each edge. Targets index the `states` of the group; sources index `states` too, or,
        when the stride is 2, the `inputs`. A source that is a state is smaller than its target, and no edge comes
        before one that leads into its source.
      op_names: candidate ops, the last axis of the weights.
      channels: C.
      stride: 1 or 2.
      pool_norm, affine, dropout, partial: see `ops.candidate`.
      train: normalise by the batch, and return its moments.
      axis_name: mapped axis over which the batch is spread, if any.
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
        """The executable candidates by name."""
        names = ("channels", "stride", "pool_norm", "affine", "dropout", "partial")
        fields = {name: getattr(self, name) for name in names}
        return {self.op_names[o]: ops.candidate(self.op_names[o], **fields) for o in self.columns}

    @property
    def columns(self) -> np.ndarray:
        """Where the candidates are among the ops: all but `none`, which does nothing unless channels go past it."""
        return np.array([o for o, name in enumerate(self.op_names) if ops.group(name) != "none" or self.partial > 1])

    @property
    def norm(self) -> ops.Norm:
        """The batch normalisation of the group's ops."""
        return ops.batch_normalizer(train=self.train, axis_name=self.axis_name)

    def init_params(self, key: jax.Array) -> Tree:
        """{op: {name: f32[edges, ...]}} for the ops that have parameters."""
        shapes = {f"{name}/{param}": op.shapes[param] for name, op in self.candidates.items() for param in op.shapes}
        return unflatten_dict(ops.init_params(key, shapes, (len(self.edges),)), sep="/")

    def init_stats(self) -> Tree:
        """{op: {norm: {'mean', 'var': f32[edges, C]}}} for the ops that normalise."""
        return {
            name: ops.init_stats(op, self.channels // self.partial, (len(self.edges),))
            for name, op in self.candidates.items()
            if op.norms
        }

    def init_draws(self, key: jax.Array, rate: jax.Array, images: int) -> Tree:
        """What the ops that draw need beside their parameters, as `Op.draws` names it: {op: {name: f32[edges, ...]}}.

        The ops of an edge share their draws, so that what is dropped for an image is their sum. `rate` is f32[], that
        of dropout and drop-path, and `images` the size of the batch, or of this device's part of it.
        """
        key_seed, key_keep = jax.random.split(key)
        if self.axis_name is not None:
            key_seed = jax.random.fold_in(key_seed, lax.axis_index(self.axis_name))
        edges = len(self.edges)
        draws = {
            # Whole numbers that f32 holds exactly, so that they may travel with the parameters.
            "seed": jax.random.randint(key_seed, (edges,), 0, 2**24).astype(jnp.float32),
            "rate": jnp.broadcast_to(jnp.float32(rate), (edges,)),
            "keep": devices.draw_part(
                lambda n: ops.drop_path_factors(key_keep, rate, (edges, n)), images, self.axis_name, axis=1
            ),
        }
        return {name: {draw: draws[draw] for draw in op.draws} for name, op in self.candidates.items() if op.draws}


class Instructions(NamedTuple):
    """A program, node by node: the instructions of `nodes[i]` are at `starts[i]` to `starts[i + 1]`, exclusive.

    Indices are unsigned, which spares every use of them a test for negative ones. What comes after `starts[-1]` is
    filling. A row of the table is source, target, edge, candidate and edge * candidates + candidate of an instruction.
    """

    nodes: jax.Array  # u32[nodes]
    starts: jax.Array  # u32[nodes + 1]
    table: jax.Array  # u32[edges * candidates, 5]
    weights: jax.Array  # f32[edges * candidates]


def instructions(group: EdgeGroup, weights: jax.Array, end: int) -> Instructions:
    """The program that `weights` f32[edges, ops] select: an instruction for each that is not 0.

    `end` is the end of its edge that an instruction belongs to: 0 for the source, the last source first, as the
    backward pass needs it; 1 for the target, the first target first.
    """
    nodes = sorted({edge[end] for edge in group.edges}, reverse=end == 0)
    edges = [e for node in nodes for e, edge in enumerate(group.edges) if edge[end] == node]
    count = len(group.columns)
    table = np.array([(*group.edges[e], e, o, e * count + o) for e in edges for o in range(count)], np.uint32)
    ordered = weights[np.array(edges)[:, None], group.columns].ravel()
    (order,) = jnp.nonzero(ordered, size=ordered.size, fill_value=0)
    # The start of a node is the number of instructions before it.
    before = jnp.concatenate([jnp.zeros((1,), jnp.uint32), jnp.cumsum(ordered != 0, dtype=jnp.uint32)])
    sizes = [sum(edge[end] == node for edge in group.edges) for node in nodes]
    starts = before[np.cumsum([0, *sizes]) * count]
    return Instructions(jnp.array(nodes, jnp.uint32), starts, jnp.asarray(table)[order], ordered[order])


def program(space: SearchSpace, reduction: bool, **fields: Any) -> tuple[tuple[tuple[int, ...], EdgeGroup], ...]:
    """The edge groups of a cell, in the order of execution.

    A normal cell's group holds all nodes in its `states`. In a reduction cell the states are the intermediate nodes
    and the `inputs` of the first group the two input nodes.

    Args:
      space: nodes, edges and ops of the cell.
      reduction: whether the edges that leave the inputs have stride 2.
      **fields: of every `EdgeGroup`: channels, pool_norm, affine, dropout, partial, train, axis_name.

    Returns:
      A pair (rows, group) for each group: `rows` are the positions of its edges in `space.edges`.
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
