"""Perturbations of op weights (SDARTS): the ball in which they stay, their law, and the ascent against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from shared import LEVEL, SHUFFLED, logits_of, softmax_of
from table import Table, batch_of, jit_init, jit_step

from prdarts_jax.search import methods, smoothing
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.schedules import Linear

KEYS = jax.random.split(jax.random.key(0), 2000)


def test_a_shift_keeps_the_sum_of_an_edge_and_the_ops_that_do_not_run():
    weights = np.array([[0.5, 0.3, 0.2], [0.0, 0.9, 0.6], [0.0, 0.2, 0.0], [0.1, 0.1, 0.0]], np.float32)
    shift = np.array([[0.1, -0.2, 0.1], [0.3, -1.0, 0.0], [0.3, -0.1, 0.3], [-0.2, -0.3, 0.3]], np.float32)
    expected = [[0.6, 0.1, 0.3], [0.0, 0.0, 1.5], [0.0, 0.2, 0.0], [0.1, 0.1, 0.0]]
    np.testing.assert_allclose(smoothing.shifted(weights, shift), expected, rtol=1e-5)


def test_random_shifts_are_uniform_and_grow_with_the_search():
    method = methods.sdarts_rs()
    weights = {t: jnp.full(SHUFFLED.shape, 0.2) for t in SHUFFLED.cell_types}  # five ops: no shift is below -0.2
    for progress, radius in ((0.0, 0.03), (0.5, 0.165)):
        drawn = jax.jit(jax.vmap(lambda key, p=progress: method.smoothing(weights, None, key, jnp.float32(p))))(KEYS)
        of_types = [np.asarray(drawn[t], np.float64) for t in SHUFFLED.cell_types]
        for w in of_types:
            np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-5)
            # The ratio of two ops of an edge is that of the shifted weights.
            ratio = w[:, 0, 0] / w[:, 0, 1]
            rng = np.random.default_rng(0)
            other = (0.2 + rng.uniform(-radius, radius, 20000)) / (0.2 + rng.uniform(-radius, radius, 20000))
            assert scipy.stats.ks_2samp(ratio, other).pvalue > LEVEL / 4
        assert abs(np.corrcoef(of_types[0][:, 0, 0], of_types[1][:, 0, 0])[0, 1]) < 0.1


def test_the_ascent_finds_the_largest_loss_of_the_ball():
    """A quadratic loss of three ops on each of two edges, beside all corners and a grid of the ball."""
    rng = np.random.default_rng(0)
    weights = {"normal": jnp.array(softmax_of(rng.normal(size=(2, 3))), jnp.float32)}
    a = jnp.array(rng.normal(size=(2, 3)), jnp.float32)

    def loss(w):
        return jnp.sum(a * w["normal"]) + 0.2 * jnp.sum(jnp.square(w["normal"][0] - w["normal"][1]))

    adversary = smoothing.AdversarialSmoothing(Linear(0.1, 0.1), steps=7)
    grid = np.array(list(itertools.product(np.linspace(-0.1, 0.1, 5), repeat=6)), np.float32).reshape(-1, 2, 3)
    losses = jax.jit(jax.vmap(lambda s: loss({"normal": smoothing.shifted(weights["normal"], s)})))(grid)
    found = jax.jit(lambda key: adversary(weights, jax.grad(loss), key, jnp.float32(0)))
    plain, most = float(loss(weights)), float(jnp.max(losses))
    for seed in range(5):
        moved = found(jax.random.key(seed))
        assert plain + 0.97 * (most - plain) < float(loss(moved)) < most + 1e-5
        np.testing.assert_allclose(moved["normal"].sum(1), 1, rtol=1e-5)


def test_an_op_that_starts_at_0_can_come_back():
    """Eight ops of weight 1/8 and a radius of 0.3: the best corner of the ball, for a linear loss, is found by trying
    all. In a tenth of the edges the ascent may end beside it."""
    rng = np.random.default_rng(0)
    a = jnp.array(rng.normal(size=(20, 8)), jnp.float32)
    weights = {"normal": jnp.full((20, 8), 0.125)}
    adversary = smoothing.AdversarialSmoothing(Linear(0.3, 0.3), steps=7)
    corners = jnp.array(list(itertools.product((-0.3, 0.3), repeat=8)), jnp.float32)
    best = jax.jit(jax.vmap(lambda s: jnp.sum(a * smoothing.shifted(weights["normal"], jnp.tile(s, (20, 1))), axis=1)))
    most = np.asarray(best(corners)).max(axis=0)

    def gradient(w):  # an op that does not run has none
        return {"normal": jnp.where(w["normal"] != 0, a, 0.0)}

    moved = jax.jit(lambda key: adversary(weights, gradient, key, jnp.float32(0)))(jax.random.key(0))["normal"]
    reached, plain = np.asarray(jnp.sum(a * moved, axis=1)), np.asarray(jnp.mean(a, axis=1))
    assert np.median((reached - plain) / (most - plain)) > 0.85
    # The op with the largest slope comes back on every edge. `RandomSmoothing` shows where the ascent starts.
    start = smoothing.RandomSmoothing(Linear(0.3, 0.3))(weights, None, jax.random.key(0), jnp.float32(0))["normal"]
    best = np.arange(20), np.argmax(a, axis=1)
    away = np.asarray(start)[best] == 0
    assert away.sum() > 3 and (np.asarray(moved)[best][away] > 0).all()


def problem_of(method):
    return SearchProblem(Table(SHUFFLED, 2), method, optax.sgd(0.1), optax.set_to_zero(), 5)


@pytest.mark.parametrize("name", ["sdarts_rs", "sdarts_adv"])
def test_a_step_updates_the_weights_with_perturbed_op_weights_and_the_logits_with_their_own(name):
    """The gradient of the supernet's weights v is 2 v w^2, so the step tells the op weights of both layers."""
    method = methods.find(name)(end_radius=0.1, start_radius=0.1)
    problem, plain = problem_of(method), problem_of(Method())
    state = jit_init(problem, jax.random.key(1), batch_of(0.0)["image"])
    state = state.replace(arch=logits_of(0))
    (after, metrics), (_, usual) = (jit_step(p, state, batch_of(0.0), batch_of(1.0)) for p in (problem, plain))
    assert float(metrics["val_loss"]) == float(usual["val_loss"])  # logits come first, by the op weights of DARTS
    for t in SHUFFLED.cell_types:
        w, v = softmax_of(state.arch[t]), np.asarray(state.params[f"v_{t}"], np.float64)
        moved = np.sqrt(np.maximum(v - np.asarray(after.params[f"v_{t}"]), 0) / (0.1 * 2 * v))
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-3)  # all layers have the same op weights
        np.testing.assert_allclose(moved[0].sum(1), 1, rtol=1e-3)
        low, high = np.maximum(w - 0.1, 0), w + 0.1
        scale = np.array([low.sum(1), high.sum(1)])[:, :, None]
        assert (moved[0] >= low / scale[1] - 1e-3).all() and (moved[0] <= high / scale[0] + 1e-3).all()
        assert np.abs(moved[0] - w).max() > 0.02
    if name == "sdarts_adv":
        assert float(metrics["train_loss"]) > float(usual["train_loss"])
