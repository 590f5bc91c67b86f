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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from prdarts_jax import ops
from prdarts_jax.spaces import SearchSpace

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The edges of a cell that have one stride, and how to execute them.

    Attributes:
      edges: (source, target) of each edge. Targets index the `states` of the stage; sources index `states` too, or,
        when the stride is 2, the `inputs`. Sorted so that no edge comes before one that leads into its source.
      op_names: candidate ops, the last axis of the weights.
      channels: C.
      stride: 1 or 2.
      pool_norm: see `ops.candidate`.
      train: normalise by the batch, and return its moments.
      axis_name: mapped axis over which the batch is spread, if any.
    """

    edges: tuple[tuple[int, int], ...]
    op_names: tuple[str, ...]
    channels: int
    stride: int
    pool_norm: bool = False
    train: bool = True
    axis_name: str | None = None

    @property
    def candidates(self) -> dict[str, ops.Op]:
        """The executable candidates by name."""
        return {
            name: ops.candidate(name, channels=self.channels, stride=self.stride, pool_norm=self.pool_norm)
            for name in self.op_names
            if name != "none"
        }

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
            name: ops.init_stats(op, self.channels, (len(self.edges),))
            for name, op in self.candidates.items()
            if op.norms
        }


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
        for o, name in enumerate(stage.op_names):
            if name == "none":
                continue
            x = (states if inputs is None else inputs)[source]
            y, found = stage.candidates[name].apply(
                _row(params.get(name), e), _row(stats.get(name) if stats else None, e), x, stage.norm
            )
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
    """Runs the instructions of a stage in one loop.

    Backward, the list is walked in reverse: each op is recomputed from the state of its source, so what is kept from
    the forward pass are the states alone. Gradients of the parameters and of the weights are computed only if asked
    for.

    Args:
      stage: what to execute.
      params: as `Stage.init_params`.
      stats: running statistics as `Stage.init_stats`, or None to always use those of the batch. They have no gradient.
      inputs: [2, B, H, W, C] for stride 2, otherwise None.
      states: [nodes, B, h, w, C], what the nodes hold before.
      weights: f32[edges, ops], 0 for an op that shall not be executed.

    Returns:
      (states, moments): the states after, and the moments of every normalisation, as `Stage.init_stats`; they are
      meaningless where the op was not executed, and have no gradient.
    """
    return _forward(stage, params, stats, inputs, states, weights)


def instructions(stage: Stage, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The program that `weights` f32[edges, ops] select.

    Returns:
      (order, count): order i32[edges * ops] holds edge * ops + op of each instruction, in topological order in its
      first `count` places.
    """
    executable = jnp.array([name != "none" for name in stage.op_names])
    active = ((weights != 0) & executable).ravel()
    return jnp.nonzero(active, size=active.size, fill_value=0)[0], jnp.sum(active)


def _decode(stage, place):
    """(edge, branch, source, target) of an instruction."""
    edge, op = place // len(stage.op_names), place % len(stage.op_names)
    source, target = jnp.array(stage.edges)[edge]
    branch = jnp.cumsum(jnp.array([name != "none" for name in stage.op_names]))[op] - 1
    return edge, branch, source, target


def _row(tree, edge):
    return jax.tree.map(lambda a: a[edge], tree)


def _row_size(stacked):
    return sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(stacked))


def _pack(tree, width):
    """One flat f32[width] for a tree of an edge, so that every branch of a switch returns the same shape."""
    flat = ravel_pytree(tree)[0] if jax.tree.leaves(tree) else jnp.zeros((0,), jnp.float32)
    return jnp.pad(flat, (0, width - flat.size))


def _unpack(stage, rows, template):
    """The inverse of `_pack` for every row of f32[edges * ops, width]: a tree like `template`, stacked over edges."""
    rows = rows.reshape(len(stage.edges), len(stage.op_names), -1)
    unpacked = {}
    for name, stacked in template.items():
        _, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), stacked))
        row = rows[:, stage.op_names.index(name), : _row_size(stacked)]
        unpacked[name] = jax.vmap(unravel)(row)
    return unpacked


def _forward(stage, params, stats, inputs, states, weights):
    order, count = instructions(stage, weights)
    template = jax.eval_shape(stage.init_stats)
    width = max(map(_row_size, template.values()), default=0)

    def branch(name, op):
        def run(edge, x):
            y, moments = op.apply(
                _row(params.get(name), edge),
                _row(stats.get(name) if stats else None, edge),
                x,
                stage.norm,
            )
            return y, _pack(moments, width)

        return run

    branches = [branch(name, op) for name, op in stage.candidates.items()]

    def step(i, carry):
        states, rows = carry
        edge, number, source, target = _decode(stage, order[i])
        x = (states if inputs is None else inputs)[source]
        y, row = lax.switch(number, branches, edge, x)
        states = states.at[target].add(weights.ravel()[order[i]].astype(y.dtype) * y)
        return states, rows.at[order[i]].set(row)

    rows = jnp.zeros((weights.size, width), jnp.float32)
    states, rows = lax.fori_loop(0, count, step, (states, rows))
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
    return (states, moments), (params, stats, inputs, states, weights, wanted)


def _execute_backward(stage, residuals, cotangents):
    params, stats, inputs, states, weights, wanted = residuals
    wants_params, wants_inputs, wants_weights = (flag is not None for flag in wanted)
    dstates = cotangents[0]
    if isinstance(dstates, SymbolicZero):
        dstates = jnp.zeros(states.shape, states.dtype)
    order, count = instructions(stage, weights)
    width = max(map(_row_size, params.values()), default=0) if wants_params else 0

    def branch(name, op):
        row_stats = stats.get(name) if stats else None

        def run(edge, x, w, dtarget):
            def apply(p, x):
                return op.apply(p, _row(row_stats, edge), x, stage.norm)[0]

            p = _row(params.get(name), edge)
            if wants_params:
                y, vjp = jax.vjp(apply, p, x)
                dp, dx = vjp(w.astype(y.dtype) * dtarget)
            else:
                y, vjp = jax.vjp(functools.partial(apply, p), x)
                dp, (dx,) = None, vjp(w.astype(y.dtype) * dtarget)
            dw = jnp.sum(y.astype(jnp.float32) * dtarget.astype(jnp.float32)) if wants_weights else 0.0
            return dx, _pack(dp, width), jnp.float32(dw)

        return run

    branches = [branch(name, op) for name, op in stage.candidates.items()]

    def step(i, carry):
        dinputs, dstates, rows, dweights = carry
        place = order[count - 1 - i]
        edge, number, source, target = _decode(stage, place)
        x = (states if inputs is None else inputs)[source]
        dx, row, dw = lax.switch(number, branches, edge, x, weights.ravel()[place], dstates[target])
        if inputs is None:
            dstates = dstates.at[source].add(dx)
        else:
            dinputs = dinputs.at[source].add(dx)
        return dinputs, dstates, rows.at[place].set(row), dweights.at[place].set(dw)

    start = (
        None if inputs is None else jnp.zeros_like(inputs),
        dstates,
        jnp.zeros((weights.size, width), jnp.float32),
        jnp.zeros((weights.size,), jnp.float32),
    )
    dinputs, dstates, rows, dweights = lax.fori_loop(0, count, step, start)
    return (
        _unpack(stage, rows, params) if wants_params else None,
        None,
        dinputs if wants_inputs else None,
        dstates,
        dweights.reshape(weights.shape) if wants_weights else None,
    )


execute.defvjp(_execute_forward, _execute_backward, symbolic_zeros=True)


def program(space: SearchSpace, reduction: bool, **fields: Any) -> tuple[tuple[tuple[int, ...], Stage], ...]:
    """The stages of a cell, in the order of execution.

    A normal cell's stage holds all nodes in its `states`. In a reduction cell the states are the intermediate nodes
    and the `inputs` of the first stage the two input nodes.

    Args:
      space: nodes, edges and ops of the cell.
      reduction: whether the edges that leave the inputs have stride 2.
      **fields: of every `Stage`: channels, pool_norm, train, axis_name.

    Returns:
      A pair (rows, stage) for each stage: `rows` are the positions of its edges in `space.edges`.
    """
    if not reduction:
        rows = tuple(range(len(space.edges)))
        return ((rows, Stage(space.edges, space.ops, stride=1, **fields)),)
    result = []
    for stride, first_source in ((2, 0), (1, 2)):
        rows = tuple(e for e, (s, _) in enumerate(space.edges) if (s < 2) == (stride == 2))
        if not rows:
            continue
        edges = tuple((space.edges[e][0] - first_source, space.edges[e][1] - 2) for e in rows)
        result.append((rows, Stage(edges, space.ops, stride=stride, **fields)))
    return tuple(result)
