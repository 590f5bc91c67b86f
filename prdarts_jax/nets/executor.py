"""The cell as a small program: a list of instructions that one compiled loop executes.

An instruction is (source, target, op, edge): take the state of node `source`, apply the op with the edge's parameters,
scale by the op's weight and add to the state of node `target`. Only ops of nonzero weight become instructions, so what
a gate shuts is neither computed nor differentiated: its weight has the gradient 0.

The edges of a cell that have one stride are a `Stage`; parameters are stacked over the edges of the stage. A normal
cell is one stage. A reduction cell is two: the edges that leave the inputs (stride 2), then the others.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from prdarts_jax import devices, ops
from prdarts_jax.spaces import SearchSpace

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The edges of a cell that have one stride, and how to execute them.

    Attributes:
      edges: (source, target) of each edge. Targets index the `states` of the stage; sources index `states` too, or,
        when the stride is 2, the `inputs`. A source that is a state is smaller than its target, and no edge comes
        before one that leads into its source.
      op_names: candidate ops, the last axis of the weights.
      channels: C.
      stride: 1 or 2.
      pool_norm, dropout, partial: see `ops.candidate`.
      train: normalise by the batch, and return its moments.
      axis_name: mapped axis over which the batch is spread, if any.
    """

    edges: tuple[tuple[int, int], ...]
    op_names: tuple[str, ...]
    channels: int
    stride: int
    pool_norm: bool = False
    dropout: ops.Dropout = ""
    partial: int = 1
    train: bool = True
    axis_name: str | None = None

    @property
    def candidates(self) -> dict[str, ops.Op]:
        """The executable candidates by name."""
        build = functools.partial(
            ops.candidate,
            channels=self.channels,
            stride=self.stride,
            pool_norm=self.pool_norm,
            dropout=self.dropout,
            partial=self.partial,
        )
        return {self.op_names[o]: build(self.op_names[o]) for o in self.columns}

    @property
    def columns(self) -> np.ndarray:
        """Where the candidates are among the ops: all but those of the group 'none', unless channels go past them."""
        return np.array([o for o, name in enumerate(self.op_names) if ops.group(name) != "none" or self.partial > 1])

    @property
    def norm(self) -> ops.Norm:
        """The batch normalisation of the stage's ops."""
        return ops.batch_normalizer(train=self.train, axis_name=self.axis_name)

    def init_params(self, key: jax.Array) -> Tree:
        """{op: {name: f32[edges, ...]}} for the ops that have parameters."""
        shapes = {
            f"{name}/{kernel}": shape for name, op in self.candidates.items() for kernel, shape in op.shapes.items()
        }
        drawn = ops.init_params(key, shapes, (len(self.edges),))
        return unflatten_dict(drawn, sep="/")

    def init_stats(self) -> Tree:
        """{op: {norm: {'mean', 'var': f32[edges, C]}}} for the ops that normalise."""
        return {
            name: ops.init_stats(op, self.channels // self.partial, (len(self.edges),))
            for name, op in self.candidates.items()
            if op.norms
        }

    def init_draws(self, key: jax.Array, rate: jax.Array, images: int) -> Tree:
        """What the ops that draw need beside their parameters, as `Op.draws` names it: {op: {name: f32[edges, ...]}}.

        The ops of an edge share their draws, so that what is dropped for an image is their sum.

        Args:
          key: consumed.
          rate: f32[], of dropout and drop-path.
          images: of the batch, or of this device's part of it.
        """
        key_seed, key_keep = jax.random.split(key)
        if self.axis_name is not None:
            key_seed = jax.random.fold_in(key_seed, lax.axis_index(self.axis_name))
        edges = len(self.edges)

        def keep(images):
            return ops.drop_path_factors(key_keep, rate, (edges, images))

        draws = {
            # Whole numbers that f32 holds exactly, so that they may travel with the parameters.
            "seed": jax.random.randint(key_seed, (edges,), 0, 2**24).astype(jnp.float32),
            "rate": jnp.broadcast_to(jnp.float32(rate), (edges,)),
            "keep": devices.draw_part(keep, images, self.axis_name, 1),
        }
        return {name: {draw: draws[draw] for draw in op.draws} for name, op in self.candidates.items() if op.draws}


Executor = Callable[..., tuple[jax.Array, Tree]]


def execute_plain(
    stage: Stage,
    params: Tree,
    stats: Tree | None,
    inputs: jax.Array | None,
    states: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, Tree]:
    """The sum over edges and ops, written out: small, obvious, slow to compile. What `execute` is tested against.

    Args and returns as `execute`.
    """
    moments: Tree = {name: {} for name in stage.init_stats()}
    for e, (source, target) in enumerate(stage.edges):
        for o in stage.columns:
            name = stage.op_names[o]
            x = (states if inputs is None else inputs)[source]
            row = [jax.tree.map(operator.itemgetter(e), tree and tree.get(name)) for tree in (params, stats)]
            y, found = stage.candidates[name].apply(*row, x, stage.norm)
            w = weights[e, o]
            states = states.at[target].add(jnp.where(w != 0, w.astype(y.dtype) * y, 0))
            if name in moments:
                moments[name][e] = found
    stacked = {name: jax.tree.map(lambda *rows: jnp.stack(rows), *found.values()) for name, found in moments.items()}
    return states, stacked


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def execute(
    stage: Stage,
    params: Tree,
    stats: Tree | None,
    inputs: jax.Array | None,
    states: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, Tree]:
    """Runs the instructions of a stage in one loop over its nodes and, for each, one over what leads into it.

    Backward, nodes come in reverse, and for each what leaves it: each op is recomputed from the state of its source, so
    what is kept from the forward pass are the states and the moments of the normalisations. Gradients of the parameters
    and of the weights are computed only if asked for.

    Args:
      stage: what to execute.
      params: as `Stage.init_params`, and `Stage.init_draws` where ops draw.
      stats: running statistics as `Stage.init_stats`, or None to always use those of the batch. They have no gradient.
      inputs: [2, B, H, W, C] for stride 2, otherwise None.
      states: [nodes, B, h, w, C], what the nodes hold before.
      weights: f32[edges, ops], 0 for an op that shall not be executed.

    Returns:
      (states, moments): the states after, and the moments of every normalisation, as `Stage.init_stats`; they are
      meaningless where the op was not executed, and have no gradient.
    """
    return _forward(stage, params, stats, inputs, states, weights)


class Instructions(NamedTuple):
    """A program in groups of one node: the instructions of `nodes[g]` are at `starts[g]` to `starts[g + 1]`, exclusive.

    Indices are unsigned, which spares every use of them a test for negative ones. What comes after `starts[-1]` is
    filling.

    Attributes:
      nodes: u32[groups].
      starts: u32[groups + 1].
      table: u32[edges * candidates, 5]: source, target, edge, candidate and edge * candidates + candidate of each
        instruction.
      weights: f32[edges * candidates] of each instruction.
    """

    nodes: jax.Array
    starts: jax.Array
    table: jax.Array
    weights: jax.Array


def instructions(stage: Stage, weights: jax.Array, end: int) -> Instructions:
    """The program that `weights` f32[edges, ops] select: an instruction for each that is not 0.

    Args:
      stage: whose edges.
      weights: f32[edges, ops].
      end: which end of its edge an instruction is grouped by: 0 for the source, the last source first, as the backward
        pass needs it; 1 for the target, the first target first.
    """
    nodes = sorted({edge[end] for edge in stage.edges}, reverse=end == 0)
    edges = [e for node in nodes for e, edge in enumerate(stage.edges) if edge[end] == node]
    count = len(stage.columns)
    table = np.array([(*stage.edges[e], e, o, e * count + o) for e in edges for o in range(count)], np.uint32)
    grouped = weights[np.array(edges)[:, None], stage.columns].ravel()
    (order,) = jnp.nonzero(grouped, size=grouped.size, fill_value=0)
    # The start of a group is the number of instructions before it.
    before = jnp.concatenate([jnp.zeros((1,), jnp.uint32), jnp.cumsum(grouped != 0, dtype=jnp.uint32)])
    sizes = [sum(edge[end] == node for edge in stage.edges) for node in nodes]
    starts = before[np.cumsum([0, *sizes]) * count]
    return Instructions(jnp.array(nodes, jnp.uint32), starts, jnp.asarray(table)[order], grouped[order])


def _get(stack, place):
    return lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)


def _put(stack, row, place):
    return lax.dynamic_update_index_in_dim(stack, row, place, 0)


def _row_size(stacked):
    return sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(stacked))


def _unraveler(stacked):
    """The function that makes a row of a stacked tree from its flat form."""
    return ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), stacked))[1]


def _rows(stacked, edges):
    """A tree stacked over edges as f32[edges, size]: an edge's is then one slice, taken outside of the switch.

    Taken inside, XLA would fuse it into the kernels, and those that read a kernel at a dynamic offset are slow.
    """
    return jnp.concatenate([a.reshape(edges, -1) for a in jax.tree.leaves(stacked)] or [jnp.zeros((edges, 0))], axis=1)


def _pack(tree, width):
    """One flat f32[width] for a tree of an edge, so that every branch of a switch returns the same shape."""
    flat = ravel_pytree(tree)[0] if jax.tree.leaves(tree) else jnp.zeros((0,), jnp.float32)
    return jnp.pad(flat, (0, width - flat.size))


def _unpack(stage, rows, template):
    """The inverse of `_pack` for every row of f32[edges * candidates, width]: a tree like `template`, of stacks."""
    rows = rows.reshape(len(stage.edges), len(stage.columns), -1)
    names = list(stage.candidates)
    return {
        name: jax.vmap(_unraveler(stacked))(rows[:, names.index(name), : _row_size(stacked)])
        for name, stacked in template.items()
    }


# Under jit, equal stages of a network are traced and lowered once. So are the kernels.
@functools.partial(jax.jit, static_argnums=0)
def _forward(stage, params, stats, inputs, states, weights):
    listed = instructions(stage, weights, end=1)
    # When training, running statistics are not read.
    tensors = (params, None if stage.train else stats)
    tensor_rows, unravel = _rows(tensors, len(stage.edges)), _unraveler(tensors)
    template = jax.eval_shape(stage.init_stats)
    width = max(map(_row_size, template.values()), default=0)

    def branch(name, op):
        def run(tensors, w, sources, source, total):
            params, stats = unravel(tensors)

            def apply(x):
                return op.apply(params.get(name), stats and stats.get(name), x, stage.norm)

            # Only the values are wanted, but forward mode, of a gradient of this, does not pass a custom_vjp function:
            # under vjp their forward rules stand in place of those.
            y, _, moments = jax.vjp(apply, _get(sources, source), has_aux=True)
            return total + w.astype(y.dtype) * y, _pack(moments, width)

        return run

    branches = [branch(name, op) for name, op in stage.candidates.items()]

    def node(group, carry):
        states, rows = carry

        def step(i, carry):
            total, rows = carry
            source, _, edge, number, place = listed.table[i]
            sources = states if inputs is None else inputs
            arguments = (_get(tensor_rows, edge), listed.weights[i], sources, source, total)
            total, row = lax.switch(number, branches, *arguments)
            return total, _put(rows, row, place)

        start = (_get(states, listed.nodes[group]), rows)
        total, rows = lax.fori_loop(listed.starts[group], listed.starts[group + 1], step, start)
        return _put(states, total, listed.nodes[group]), rows

    rows = jnp.zeros((listed.weights.size, width), jnp.float32)
    states, rows = lax.fori_loop(np.uint32(0), np.uint32(len(listed.nodes)), node, (states, rows))
    return states, _unpack(stage, rows, template)


def _execute_forward(stage, params, stats, inputs, states, weights):
    arguments = (params, stats, inputs, states, weights)
    values = jax.tree.map(lambda a: a.value, arguments)
    # What is not differentiated (the parameters in the architecture's step, the weights in the other) is known
    # here; the structure of the residuals carries it to the backward pass.
    wanted = tuple(
        () if any(a.perturbed for a in jax.tree.leaves(tree)) else None for tree in (params, inputs, weights)
    )
    states, moments = _forward(stage, *values)
    params, stats, inputs, _, weights = values
    # Where the batch normalises, its moments need not be taken again.
    known = moments if stage.train or stats is None else None
    return (states, moments), (params, stats, known, inputs, states, weights, wanted)


def _execute_backward(stage, residuals, cotangents):
    params, stats, known, inputs, states, weights, wanted = residuals
    dstates = cotangents[0]
    if isinstance(dstates, SymbolicZero):
        dstates = jnp.zeros(states.shape, states.dtype)
    wants = tuple(flag is not None for flag in wanted)
    return _backward(stage, wants, params, stats, known, inputs, states, weights, dstates)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(stage, wants, params, stats, known, inputs, states, weights, dstates):
    wants_params, wants_inputs, wants_weights = wants
    norm = ops.batch_normalizer_again(stage.axis_name) if known else stage.norm
    listed = instructions(stage, weights, end=0)
    tensors = (params, known or stats)
    tensor_rows, unravel = _rows(tensors, len(stage.edges)), _unraveler(tensors)
    width = max(map(_row_size, params.values()), default=0) if wants_params else 0

    def branch(name, op):
        def run(tensors, w, x, dstates, target, total):
            params, stats = unravel(tensors)

            def apply(p, x):
                return op.apply(p, stats and stats.get(name), x, norm)[0]

            p, dtarget = params.get(name), _get(dstates, target)
            if wants_params:
                y, vjp = jax.vjp(apply, p, x)
                dp, dx = vjp(dtarget)
            else:
                y, vjp = jax.vjp(functools.partial(apply, p), x)
                dp, (dx,) = None, vjp(dtarget)
            dw = jnp.sum(y.astype(jnp.float32) * dtarget.astype(jnp.float32), (0, 1, 2)) if wants_weights else ()
            return total + w.astype(dx.dtype) * dx, w * _pack(dp, width), dw

        return run

    branches = [branch(name, op) for name, op in stage.candidates.items()]

    def node(group, carry):
        dsources, dstates, rows, dweights = carry
        x = _get(states if inputs is None else inputs, listed.nodes[group])

        def step(i, carry):
            total, rows, dweights = carry
            _, target, edge, number, place = listed.table[i]
            arguments = (_get(tensor_rows, edge), listed.weights[i], x, dstates, target, total)
            total, row, dw = lax.switch(number, branches, *arguments)
            return total, _put(rows, row, place), _put(dweights, dw, place) if wants_weights else ()

        start = (_get(dstates if dsources is None else dsources, listed.nodes[group]), rows, dweights)
        total, rows, dweights = lax.fori_loop(listed.starts[group], listed.starts[group + 1], step, start)
        if dsources is None:
            return None, _put(dstates, total, listed.nodes[group]), rows, dweights
        return _put(dsources, total, listed.nodes[group]), dstates, rows, dweights

    start = (
        None if inputs is None else jnp.zeros_like(inputs),
        dstates,
        jnp.zeros((listed.weights.size, width), jnp.float32),
        jnp.zeros((listed.weights.size, stage.channels), jnp.float32) if wants_weights else (),
    )
    end = np.uint32(len(listed.nodes))
    dinputs, dstates, rows, dweights = lax.fori_loop(np.uint32(0), end, node, start)
    if wants_weights:
        found = jnp.sum(dweights, axis=-1).reshape(len(stage.edges), -1)
        dweights = jnp.zeros_like(weights).at[:, stage.columns].set(found)
    return (
        _unpack(stage, rows, params) if wants_params else None,
        None,
        dinputs if wants_inputs else None,
        dstates,
        dweights if wants_weights else None,
    )


execute.defvjp(_execute_forward, _execute_backward, symbolic_zeros=True)


def program(space: SearchSpace, reduction: bool, **fields: Any) -> tuple[tuple[tuple[int, ...], Stage], ...]:
    """The stages of a cell, in the order of execution.

    A normal cell's stage holds all nodes in its `states`. In a reduction cell the states are the intermediate nodes
    and the `inputs` of the first stage the two input nodes.

    Args:
      space: nodes, edges and ops of the cell.
      reduction: whether the edges that leave the inputs have stride 2.
      **fields: of every `Stage`: channels, pool_norm, dropout, partial, train, axis_name.

    Returns:
      A pair (rows, stage) for each stage: `rows` are the positions of its edges in `space.edges`.
    """
    if not reduction:
        rows = tuple(range(len(space.edges)))
        return ((rows, Stage(space.edges, space.ops, stride=1, **fields)),)
    result = []
    for stride, first_source in ((2, 0), (1, space.inputs)):
        rows = tuple(e for e, (s, _) in enumerate(space.edges) if (s < space.inputs) == (stride == 2))
        if not rows:
            continue
        edges = tuple((space.edges[e][0] - first_source, space.edges[e][1] - space.inputs) for e in rows)
        result.append((rows, Stage(edges, space.ops, stride=stride, **fields)))
    return tuple(result)
