"""Progressive pruning: how many candidates stay, which, and what then runs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import SHUFFLED, logits_of
from table import Table, batch_of, jit_init, jit_step

import prdarts_jax as pdx
from prdarts_jax import spaces
from prdarts_jax.nets.program import instructions, program
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.schedules import Linear


def pruned(method, keep):
    return dataclasses.replace(method, after_epoch=pdx.Pruning(Linear(*keep)))


def test_it_keeps_the_best_candidates_and_what_it_removed_stays_away():
    method = pruned(methods.darts(), (4.5, 2.0))
    problem = SearchProblem(Table(SHUFFLED), method, optax.sgd(0.1), optax.adam(0.5), total_steps=9)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    state = state.replace(arch=logits_of(0))
    gone = {t: np.zeros(SHUFFLED.shape, bool) for t in SHUFFLED.cell_types}
    prune = jax.jit(functools.partial(method.after_epoch, problem))
    for step in range(8):
        state, _ = jit_step(problem, state, batch_of(0.0), batch_of(1.0))
        if step % 2:
            before, state = state, prune(state, None)
            keep = np.ceil(4.5 - 2.5 * (step + 1) / 8)
            for t, beta in state.arch.items():
                old, kept = np.array(before.arch[t]), np.isfinite(beta)
                old[:, SHUFFLED.ops.index("none")] = -np.inf  # goes first
                np.testing.assert_array_equal(kept, np.argsort(np.argsort(-old, axis=1), axis=1) < keep)
                np.testing.assert_array_equal(np.asarray(beta)[kept], old[kept])
                assert not (kept & gone[t]).any()
                gone[t] |= ~kept
    assert all((beta.sum(1) == len(SHUFFLED.ops) - 2).all() for beta in gone.values())
    assert method.derive(SHUFFLED, jax.device_get(state.arch))


def test_nothing_is_removed_before_the_logits_are_trained_and_one_candidate_always_stays():
    method = dataclasses.replace(pruned(methods.darts(), (0.0, 0.0)), logits_start=0.5)
    problem = SearchProblem(Table(SHUFFLED), method, optax.sgd(0.1), optax.adam(0.5), total_steps=9)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    for step, number in ((3, len(SHUFFLED.ops)), (4, 1)):
        found = method.after_epoch(problem, state.replace(step=jnp.int32(step)), None)
        assert all((np.isfinite(beta).sum(axis=1) == number).all() for beta in found.arch.values())


@pytest.mark.parametrize("name", ["darts", "fair_darts"])
def test_an_edge_whose_only_candidate_is_none_keeps_it(name):
    ops, edges = ("skip_connect", "max_pool_3x3", "none"), 5
    every = (ops,) * (edges - 1) + (("none",),)
    space = spaces.SearchSpace("own", ops, nodes=4, edge_ops=(every, every))
    method = pruned(methods.NAMED[name](), (1.0, 1.0))
    problem = SearchProblem(Table(space), method, optax.sgd(0.1), optax.adam(0.5), total_steps=9)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    for beta in method.after_epoch(problem, state.replace(step=jnp.int32(4)), None).arch.values():
        assert np.isfinite(beta).sum(axis=1).tolist() == [1] * edges and np.isfinite(beta[-1, 2])


@pytest.mark.parametrize("name", ["darts", "fair_darts", "pr_darts", "drnas", "snas", "reinmax", "gdas"])
def test_what_is_removed_is_not_executed(name):
    """An epoch has as many instructions as there are candidates, or as many as the relaxation draws of them."""
    space = spaces.darts()
    method = pruned(methods.find(name)(), (4.0, 4.0))
    problem = SearchProblem(Table(space), method, optax.sgd(0.1), optax.sgd(0.1), 5)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    state = jax.jit(functools.partial(method.after_epoch, problem))(state, None)
    weights = problem.weigh(state.arch, jax.random.key(1), jnp.float32(0.5))
    ((_, group),) = program(space, False, channels=4)
    drawn = {"pr_darts": 2, "gdas": 1}.get(name, 4)
    for t, w in weights.items():
        w = np.array(w)
        assert (np.count_nonzero(w, axis=1) <= drawn).all()
        if name not in ("pr_darts",):  # a gate may be closed
            assert (np.count_nonzero(w, axis=1) == drawn).all()
        assert not w[~np.isfinite(state.arch[t])].any()
        assert int(instructions(group, jnp.array(w), end=1).starts[-1]) == np.count_nonzero(w[:, 1:])
