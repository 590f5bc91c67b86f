"""The executor of a cell as an obvious sum over edges and ops: what `executor.execute` is tested against."""

import contextlib
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import pytest

from prdarts_jax import ops
from prdarts_jax.nets import executor


def term(alone, params, stats, x, w):
    """(w op(x), moments) of the only op of `alone`, at one edge."""
    (op,) = alone.candidates.values()
    y, moments = op.apply(params, stats, x, alone.norm)
    return jnp.where(w != 0, w.astype(y.dtype) * y, 0), moments


def execute(group, params, stats, inputs, states, weights, term=term):
    """Takes and returns what `executor.execute` does; `term` is that of this file, or the same compiled."""
    moments = {name: [] for name in group.init_stats()}
    for edge, (source, target) in enumerate(group.edges):
        x = (states if inputs is None else inputs)[source]
        for column in group.columns:
            name = group.op_names[column]
            # Less what makes no difference, so that cells share what is compiled.
            pool_norm = group.pool_norm and ops.group(name) == "pool"
            alone = dataclasses.replace(group, edges=(), op_names=(name,), pool_norm=pool_norm)
            own = [jax.tree.map(operator.itemgetter(edge), tree and tree.get(name)) for tree in (params, stats)]
            y, found = term(alone, *own, x, weights[edge, column])
            states = states.at[target].add(y)
            if name in moments:
                moments[name].append(found)
    stacked = {name: jax.tree.map(lambda *rows: jnp.stack(rows), *found) for name, found in moments.items()}
    return states, stacked


# Outside of jit each op and its gradients are compiled once for all edges, and no program is longer than an op.
execute_by_ops = functools.partial(execute, term=jax.jit(term, static_argnums=0))


@contextlib.contextmanager
def in_supernets():
    """Within it supernets run `execute`. What has been compiled before stays as it is, so compile a new function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "execute", execute)
        yield
