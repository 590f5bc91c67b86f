"""The best of drawn cells against all cells there are."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from table import Table, batch_of, jit_init, tables

from prdarts_jax import spaces
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.relaxations import Softmax

SMALL = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3)


def cell_loss(op_weights, pixel):
    black, white = tables(SMALL)
    return 1 + sum(
        np.sum(w * ((1 - pixel) * black[t][0] + pixel * white[t][0])) + np.sum((0.5 * w) ** 2)
        for t, w in op_weights.items()
    )


def searched(samples, **fields):
    """(method, state at the start, selection after an epoch) of a random search."""
    method = dataclasses.replace(methods.random_search(samples=samples), **fields)
    problem = SearchProblem(Table(SMALL), method, optax.set_to_zero(), optax.set_to_zero(), 99)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    return method, state, functools.partial(jax.jit(method.after_epoch, static_argnums=0), problem)


def test_after_an_epoch_the_cell_of_the_smallest_mean_loss_becomes_the_logits():
    method, state, select = searched(samples=600)
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), batch_of(0.0, 0.2), batch_of(1.0, 0.8))
    found = select(state, batches)

    def cell(ops):
        return np.array([[op == name for name in SMALL.ops] for op in ops], np.float32)

    pairs = list(itertools.product(SMALL.ops[1:], repeat=2))
    cells = [{"normal": cell(a), "reduce": cell(b)} for a in pairs for b in pairs]
    best, best_of_first = (
        min(cells, key=lambda c: np.mean([cell_loss(c, x) for x in pixels]))  # noqa: B023
        for pixels in ([0.0, 0.2, 1.0, 0.8], [0.0, 0.2])
    )
    assert any((best[t] != best_of_first[t]).any() for t in best)
    for t in best:
        np.testing.assert_array_equal(found.arch[t], best[t])
    genotype = method.derive(SMALL, jax.device_get(found.arch))
    for t in best:
        entries = {(SMALL.ops[o], SMALL.edges[e][0]) for e, o in np.argwhere(best[t])}
        assert set(getattr(genotype, t)) == entries
        np.testing.assert_array_equal(method.activation(SMALL, found.arch, 1.0)[t], best[t])
    for before, after in ((state.params, found.params), (state.opt_state, found.opt_state)):
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_of_several_ops_that_an_edge_weighs_the_one_of_the_largest_weight_is_chosen():
    _, state, select = searched(samples=1, relaxation=Softmax())
    found = select(state, jax.tree.map(lambda a: a[None], batch_of(0.0)))
    for t, logits in state.arch.items():
        np.testing.assert_array_equal(found.arch[t].argmax(axis=1), logits.argmax(axis=1))
        assert found.arch[t].sum() == len(SMALL.edges)


def test_cells_of_another_epoch_are_other_cells():
    _, state, select = searched(samples=1)
    batches = jax.tree.map(lambda a: a[None], batch_of(0.0))
    found = {np.asarray(select(state.replace(step=jnp.int32(i)), batches).arch["normal"]).tobytes() for i in range(9)}
    assert len(found) > 2
