"""The cost of the executor's loop and switches: the ops of an edge group with the loop, and one after another without.

Both compute the same: the ops of nonzero weight, and in the gradient each of them again, with known moments.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_step import alternate
from jax import lax

from prdarts_jax import ops
from prdarts_jax.nets import executor
from prdarts_jax.nets.program import EdgeGroup


def term(op: ops.Op, group: EdgeGroup) -> Callable:
    """(params, x, w) -> w op(x); as in the executor, its gradient computes the op again, with known moments."""

    def forward(params, x, w):
        y, moments = op.apply(params, None, x, group.norm)
        return w.astype(y.dtype) * y, (params, x, w, moments)

    def backward(kept, dy):
        params, x, w, moments = kept
        again = ops.batch_normalizer_again(group.axis_name)
        y, pull_back = jax.vjp(lambda params, x: op.apply(params, moments, x, again)[0], params, x)
        dparams, dx = jax.tree.map(lambda a: w.astype(a.dtype) * a, pull_back(dy))
        return dparams, dx, jnp.sum(y.astype(jnp.float32) * dy.astype(jnp.float32))

    function = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    function.defvjp(forward, backward)
    return function


def looped(group: EdgeGroup, params, inputs, states, weights) -> jax.Array:
    """The states after the cell's ops, by the executor."""
    return executor.execute(group, params, None, inputs, states, weights)[0]


def in_a_row(group: EdgeGroup, places, params, inputs, states, weights) -> jax.Array:
    """The same, from the ops at the given (edge, op) places only; `params` and `weights` have an entry for each."""
    states, sources = list(states), inputs
    for (edge, o), own, w in zip(places, params, weights, strict=True):
        source, target = group.edges[edge]
        # The barrier keeps the compiler from computing two ops together, or one for two edges.
        x, total = lax.optimization_barrier(((states if sources is None else sources)[source], states[target]))
        states[target] = total + term(group.candidates[group.op_names[o]], group)(own, x, w)
    return jnp.stack(states)


def both_ways(group: EdgeGroup, shape: tuple[int, ...], dtype: Any, weights: jax.Array) -> list[tuple]:
    """[(function, its arguments, a gradient of its result)] with the loop and without it, on random numbers."""
    keys = jax.random.split(jax.random.key(1), 4)
    size, nodes = -(-shape[1] // group.stride), 1 + max(target for _, target in group.edges)
    states, dstates = (jax.random.normal(key, (nodes, shape[0], size, size, shape[3]), dtype) for key in keys[:2])
    inputs = jax.random.normal(keys[2], (2, *shape), dtype) if group.stride == 2 else None
    params = group.init_params(keys[3])
    places = [(int(e), int(o)) for e, o in np.argwhere(np.asarray(weights) != 0) if o in group.columns]
    own = [jax.tree.map(lambda a, e=e: a[e], params.get(group.op_names[o], {})) for e, o in places]
    arguments = own, inputs, states, [weights[place] for place in places]
    without = functools.partial(in_a_row, group, places), arguments, dstates
    return [(functools.partial(looped, group), (params, inputs, states, weights), dstates), without]


def with_gradients(function: Callable, arguments: tuple[Any, ...], dy: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    """The result of the function, and the gradients of all its arguments."""
    y, pull_back = jax.vjp(function, *arguments)
    return y, pull_back(dy)


def measure(
    group: EdgeGroup, shape: tuple[int, ...], dtype: Any, weights: jax.Array, rounds: int
) -> tuple[float, float, int]:
    """(seconds of one forward pass and all gradients with the loop, seconds without it, number of ops); medians."""
    calls, ways = {}, both_ways(group, shape, dtype, weights)
    for i, (function, *arguments) in enumerate(ways):
        compiled = jax.jit(functools.partial(with_gradients, function)).lower(*arguments).compile()
        calls[i] = lambda f=compiled, arguments=arguments: jax.block_until_ready(f(*arguments))
    loop, without = (statistics.median(seconds) for seconds in alternate(calls, rounds).values())
    return loop, without, int(np.sum(np.asarray(weights)[:, group.columns] != 0))
