"""Executes a cell's program (see `program.py`) in one compiled loop, forward and backward."""

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
    """Executes the instructions of an edge group: a loop over its nodes, and within it a loop over the instructions
    that lead into the node.

    The backward pass loops over the nodes in reverse order, and within that over the instructions that leave the node.
    It recomputes each op from the state of its source, so only the states and the moments of normalisations are kept
    from the forward pass. Gradients with respect to the parameters and the weights are computed only if the call is
    differentiated with respect to them.

    Args:
      group: the edges to execute; static.
      params: {op: {name: f32[edges, ...]}}, the parameters as `EdgeGroup.init_params` gives them; for ops that use
        random numbers, with the entries of `EdgeGroup.init_draws` added.
      stats: running statistics as `EdgeGroup.init_stats` gives them. They are used only without `group.train`; with
        None ops always normalise by the moments of the batch. They have no gradient.
      inputs: states of the input nodes for stride 2, [2, B, H, W, C]; otherwise None.
      states: states of the nodes before, to which the results are added, [nodes, B, h, w, C]; for stride 2, h and w are
        half of H and W, rounded up.
      weights: op weights f32[edges, ops]; an op of weight 0 is not executed.

    Returns:
      (states, moments): the states after, and the moments of every normalisation in the form of
      `EdgeGroup.init_stats`. The moments of an op that was not executed are meaningless; moments have no gradient.
    """
    return _forward(group, params, stats, inputs, states, weights)


def _get(stack, place):
    return lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)


def _put(stack, row, place):
    return lax.dynamic_update_index_in_dim(stack, row, place, 0)


def _row_size(stacked):
    return sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(stacked))


def _unraveler(stacked):
    """A function that turns one row of `_rows` back into a tree."""
    return ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), stacked))[1]


def _rows(stacked, edges):
    """Flattens a tree stacked over edges to f32[edges, size], so that one slice has all arrays of an edge.

    The slice is taken outside of the switch. Inside, XLA would fuse it into the computations, and a convolution that
    reads its kernel at a dynamic offset is slow.
    """
    return jnp.concatenate([a.reshape(edges, -1) for a in jax.tree.leaves(stacked)] or [jnp.zeros((edges, 0))], axis=1)


def _pack(tree, width):
    """Flattens and pads the tree of one op to f32[width], so that all branches of a switch return the same shape."""
    flat = ravel_pytree(tree)[0] if jax.tree.leaves(tree) else jnp.zeros((0,), jnp.float32)
    return jnp.pad(flat, (0, width - flat.size))


def _unpack(group, rows, template):
    """The inverse of `_pack` for all rows of f32[edges * candidates, width]: a tree like `template`, stacked over the
    edges."""
    rows = rows.reshape(len(group.edges), len(group.columns), -1)
    names = list(group.candidates)
    return {
        name: jax.vmap(_unraveler(stacked))(rows[:, names.index(name), : _row_size(stacked)])
        for name, stacked in template.items()
    }


# With this jit, equal edge groups of a network are traced and lowered only once, and so are their ops.
@functools.partial(jax.jit, static_argnums=0)
def _forward(group, params, stats, inputs, states, weights):
    listed = instructions(group, weights, end=1)
    # Running statistics are not read in training.
    tensors = (params, None if group.train else stats)
    tensor_rows, unravel = _rows(tensors, len(group.edges)), _unraveler(tensors)
    template = jax.eval_shape(group.init_stats)
    width = max(map(_row_size, template.values()), default=0)

    def branch(name, op):
        def run(tensors, w, sources, source, total):
            params, stats = unravel(tensors)

            def apply(x):
                return op.apply(params.get(name), stats and stats.get(name), x, group.norm)

            # Only the values are needed. But forward-mode differentiation of a gradient of this cannot pass through the
            # custom_vjp functions of the kernels; under vjp their forward rules are used instead.
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
    # Which arguments are not differentiated (the parameters in the step of the logits, the op weights in that of the
    # weights) is known here. The structure of `wanted`, () or None, carries it to the backward pass.
    wanted = tuple(
        () if any(a.perturbed for a in jax.tree.leaves(tree)) else None for tree in (params, inputs, weights)
    )
    states, moments = _forward(group, *values)
    params, stats, inputs, _, weights = values
    # If ops normalise by the batch, the backward pass can use its moments and need not compute them again.
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
