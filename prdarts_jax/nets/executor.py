"""Runs the instructions of a cell's program (see `program.py`) in one compiled loop, forward and backward."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from prdarts_jax import ops
from prdarts_jax.nets.program import EdgeGroup, Tree, instructions


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def execute(
    group: EdgeGroup,
    params: Tree,
    stats: Tree | None,
    inputs: jax.Array | None,
    states: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, Tree]:
    """Runs the instructions of an edge group in one loop over its nodes and, for each, one over what leads into it.

    Backward, nodes come in reverse, and for each what leaves it: each op is recomputed from the state of its source, so
    what is kept from the forward pass are the states and the moments of the normalisations. Gradients of the parameters
    and of the weights are computed only if asked for.

    Args:
      group: what to execute.
      params: as `EdgeGroup.init_params`, and `EdgeGroup.init_draws` where ops draw.
      stats: running statistics as `EdgeGroup.init_stats`, or None to always use those of the batch; without gradient.
      inputs: [2, B, H, W, C] for stride 2, otherwise None.
      states: [nodes, B, h, w, C], what the nodes hold before.
      weights: f32[edges, ops], 0 for an op that shall not be executed.

    Returns:
      (states, moments): the states after, and the moments of every normalisation, as `EdgeGroup.init_stats`; they are
      meaningless where the op was not executed, and have no gradient.
    """
    return _forward(group, params, stats, inputs, states, weights)


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


def _unpack(group, rows, template):
    """The inverse of `_pack` for every row of f32[edges * candidates, width]: a tree like `template`, of stacks."""
    rows = rows.reshape(len(group.edges), len(group.columns), -1)
    names = list(group.candidates)
    return {
        name: jax.vmap(_unraveler(stacked))(rows[:, names.index(name), : _row_size(stacked)])
        for name, stacked in template.items()
    }


# Under jit, equal edge groups of a network are traced and lowered once. So are the kernels.
@functools.partial(jax.jit, static_argnums=0)
def _forward(group, params, stats, inputs, states, weights):
    listed = instructions(group, weights, end=1)
    # When training, running statistics are not read.
    tensors = (params, None if group.train else stats)
    tensor_rows, unravel = _rows(tensors, len(group.edges)), _unraveler(tensors)
    template = jax.eval_shape(group.init_stats)
    width = max(map(_row_size, template.values()), default=0)

    def branch(name, op):
        def run(tensors, w, sources, source, total):
            params, stats = unravel(tensors)

            def apply(x):
                return op.apply(params.get(name), stats and stats.get(name), x, group.norm)

            # Only the values are wanted, but forward mode, of a gradient of this, does not pass a custom_vjp function:
            # under vjp their forward rules stand in place of those.
            y, _, moments = jax.vjp(apply, _get(sources, source), has_aux=True)
            return total + w.astype(y.dtype) * y, _pack(moments, width)

        return run

    branches = [branch(name, op) for name, op in group.candidates.items()]

    def node(turn, carry):
        states, rows = carry

        def step(i, carry):
            total, rows = carry
            source, _, edge, number, place = listed.table[i]
            sources = states if inputs is None else inputs
            arguments = (_get(tensor_rows, edge), listed.weights[i], sources, source, total)
            total, row = lax.switch(number, branches, *arguments)
            return total, _put(rows, row, place)

        start = (_get(states, listed.nodes[turn]), rows)
        total, rows = lax.fori_loop(listed.starts[turn], listed.starts[turn + 1], step, start)
        return _put(states, total, listed.nodes[turn]), rows

    rows = jnp.zeros((listed.weights.size, width), jnp.float32)
    states, rows = lax.fori_loop(np.uint32(0), np.uint32(len(listed.nodes)), node, (states, rows))
    return states, _unpack(group, rows, template)


def _execute_forward(group, params, stats, inputs, states, weights):
    arguments = (params, stats, inputs, states, weights)
    values = jax.tree.map(lambda a: a.value, arguments)
    # What is not differentiated (the parameters in the architecture's step, the weights in the other) is known
    # here; the structure of the residuals carries it to the backward pass.
    wanted = tuple(
        () if any(a.perturbed for a in jax.tree.leaves(tree)) else None for tree in (params, inputs, weights)
    )
    states, moments = _forward(group, *values)
    params, stats, inputs, _, weights = values
    # Where the batch normalises, its moments need not be taken again.
    known = moments if group.train or stats is None else None
    return (states, moments), (params, stats, known, inputs, states, weights, wanted)


def _execute_backward(group, residuals, cotangents):
    params, stats, known, inputs, states, weights, wanted = residuals
    dstates = cotangents[0]
    if isinstance(dstates, SymbolicZero):
        dstates = jnp.zeros(states.shape, states.dtype)
    wants = tuple(flag is not None for flag in wanted)
    return _backward(group, wants, params, stats, known, inputs, states, weights, dstates)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(group, wants, params, stats, known, inputs, states, weights, dstates):
    wants_params, wants_inputs, wants_weights = wants
    norm = ops.batch_normalizer_again(group.axis_name) if known else group.norm
    listed = instructions(group, weights, end=0)
    tensors = (params, known or stats)
    tensor_rows, unravel = _rows(tensors, len(group.edges)), _unraveler(tensors)
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

    branches = [branch(name, op) for name, op in group.candidates.items()]

    def node(turn, carry):
        dsources, dstates, rows, dweights = carry
        x = _get(states if inputs is None else inputs, listed.nodes[turn])

        def step(i, carry):
            total, rows, dweights = carry
            _, target, edge, number, place = listed.table[i]
            arguments = (_get(tensor_rows, edge), listed.weights[i], x, dstates, target, total)
            total, row, dw = lax.switch(number, branches, *arguments)
            return total, _put(rows, row, place), _put(dweights, dw, place) if wants_weights else ()

        start = (_get(dstates if dsources is None else dsources, listed.nodes[turn]), rows, dweights)
        total, rows, dweights = lax.fori_loop(listed.starts[turn], listed.starts[turn + 1], step, start)
        if dsources is None:
            return None, _put(dstates, total, listed.nodes[turn]), rows, dweights
        return _put(dsources, total, listed.nodes[turn]), dstates, rows, dweights

    start = (
        None if inputs is None else jnp.zeros_like(inputs),
        dstates,
        jnp.zeros((listed.weights.size, width), jnp.float32),
        jnp.zeros((listed.weights.size, group.channels), jnp.float32) if wants_weights else (),
    )
    end = np.uint32(len(listed.nodes))
    dinputs, dstates, rows, dweights = lax.fori_loop(np.uint32(0), end, node, start)
    if wants_weights:
        found = jnp.sum(dweights, axis=-1).reshape(len(group.edges), -1)
        dweights = jnp.zeros_like(weights).at[:, group.columns].set(found)
    return (
        _unpack(group, rows, params) if wants_params else None,
        None,
        dinputs if wants_inputs else None,
        dstates,
        dweights if wants_weights else None,
    )


execute.defvjp(_execute_forward, _execute_backward, symbolic_zeros=True)
