"""Methods that draw cells: GDAS, REINFORCE and random search against enumerations."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from table import Table, batch_of, tables
from test_gates import LEVEL, accept_counts

from prdarts_jax import spaces
from prdarts_jax.search import gates
from prdarts_jax.search.methods import Gdas, RandomSearch, Reinforce
from prdarts_jax.search.step import SearchProblem, init_search, search_step, select

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TWO = spaces.SearchSpace("two", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
DRAWS = list(itertools.product(range(3), repeat=2))  # of the two edges
LOGITS = {"normal": jnp.array([[0.3, -0.8, 0.5], [1.0, 0.0, -0.5]])}
KEYS = jax.random.split(jax.random.key(0), 20_000)


def softmax_of(beta):
    exponentials = np.exp(np.asarray(beta, np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def one_hot(draw):
    return np.eye(3, dtype=np.float32)[list(draw)]


# One op of each edge --------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def weigh(method, logits, keys, progress):
    return jax.vmap(lambda key: method.weigh(logits, key, progress)["normal"])(keys)


@pytest.mark.parametrize(
    "method, progress", [(Gdas(), 0.0), (Gdas(), 0.5), (Gdas(), 1.0), (Reinforce(), 0.3)], ids=repr
)
def test_one_op_of_each_edge_is_drawn_by_its_softmax_independently(method, progress):
    logits = LOGITS | ({"baseline": jnp.float32(2.0)} if isinstance(method, Reinforce) else {})
    w = np.asarray(weigh(method, logits, KEYS, progress))
    assert set(np.unique(w)) == {0.0, 1.0}
    assert (w.sum(axis=-1) == 1).all()
    first, second = w.argmax(axis=-1).T
    counts = {draw: int(((first == draw[0]) & (second == draw[1])).sum()) for draw in DRAWS}
    p = softmax_of(LOGITS["normal"])
    accept_counts(counts, {(a, b): p[0, a] * p[1, b] for a, b in DRAWS})


@pytest.mark.parametrize("method", [Gdas(), Reinforce()], ids=repr)
def test_cell_types_have_draws_of_their_own(method):
    logits = {t: jnp.zeros((14, 8)) for t in ("normal", "reduce")}
    logits |= {"baseline": jnp.float32(0)} if isinstance(method, Reinforce) else {}
    w = method.weigh(logits, jax.random.key(3), jnp.float32(0.5))
    assert w.keys() == {"normal", "reduce"}
    assert (np.asarray(w["normal"]) != np.asarray(w["reduce"])).any()


@pytest.mark.parametrize("progress, tau", [(0.0, 10.0), (0.5, 5.05), (1.0, 0.1)])
def test_gdas_has_the_gradient_of_the_gumbel_softmax_of_the_drawn_op(monkeypatch, progress, tau):
    beta = np.random.default_rng(0).normal(size=(9, 4))
    noise = np.random.default_rng(1).gumbel(size=(9, 4))
    monkeypatch.setattr(jax.random, "gumbel", lambda key, shape=(), dtype=None, **_: jnp.array(noise, jnp.float32))

    def of_all(beta):
        return Gdas().weigh({"normal": beta}, jax.random.key(0), jnp.float32(progress))["normal"]

    w, jacobian = jax.jit(lambda beta: (of_all(beta), jax.jacrev(of_all)(beta)))(jnp.array(beta, jnp.float32))
    soft = softmax_of((beta + noise) / tau)
    expected = np.zeros((9, 4, 9, 4))
    for e in range(9):
        drawn = (beta[e] + noise[e]).argmax()
        np.testing.assert_array_equal(w[e], np.eye(4)[drawn])
        for o in range(4):
            expected[e, drawn, e, o] = soft[e, drawn] * ((drawn == o) - soft[e, o]) / tau
    np.testing.assert_allclose(jacobian, expected, rtol=1e-3, atol=1e-6)


# REINFORCE ------------------------------------------------------------------------------------------------------------

LOSSES = np.random.default_rng(2).uniform(0.5, 4.0, 9)


def surrogate(logits, draw, loss):
    total, _ = Reinforce().objective(loss, logits, {"normal": draw}, jnp.float32(0.5))
    return total


surrogate_slopes = jax.jit(jax.vmap(jax.grad(surrogate), in_axes=(None, 0, 0)))


@pytest.mark.parametrize("baseline", [0.0, 2.3, -5.0])
def test_the_expectation_of_the_estimate_is_the_gradient_of_the_expected_loss(baseline):
    draws = np.stack([one_hot(draw) for draw in DRAWS])
    with jax.enable_x64(True):
        logits = {"normal": jnp.array(LOGITS["normal"], jnp.float64), "baseline": jnp.array(baseline, jnp.float64)}
        slopes = jax.device_get(surrogate_slopes(logits, draws, LOSSES))
    p = softmax_of(LOGITS["normal"])
    joint = np.array([p[0, a] * p[1, b] for a, b in DRAWS])
    expected = np.zeros((2, 3))
    for probability, loss, draw in zip(joint, LOSSES, draws, strict=True):
        expected += probability * loss * (draw - p)  # d p(draw) = p(draw) (draw - p)
    np.testing.assert_allclose(np.tensordot(joint, slopes["normal"], 1), expected, rtol=1e-6, atol=1e-9)
    # The square of the error pulls the baseline to the mean of the losses.
    np.testing.assert_allclose(slopes["baseline"], baseline - LOSSES, rtol=1e-6)


def test_a_step_of_reinforce_is_the_estimate_of_the_draw_that_was_made():
    problem = SearchProblem(Table(TWO), Reinforce(start_baseline=2.0), optax.set_to_zero(), optax.sgd(1.0), 10)
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(0), batch_of(0.0)["image"])
    state = state.replace(arch=state.arch | LOGITS)
    black = tables(TWO)[0]["normal"][0]
    losses = {draw: 1 + sum(black[e, o] for e, o in enumerate(draw)) + 2 * 0.25 for draw in DRAWS}
    step = jax.jit(search_step, static_argnums=0)
    seen = set()
    for seed in range(12):
        before = state.replace(key=jax.random.key(seed))
        after, metrics = step(problem, before, batch_of(0.0), batch_of(0.0))
        draw = min(DRAWS, key=lambda draw: abs(losses[draw] - float(metrics["val_loss"])))
        assert losses[draw] == pytest.approx(float(metrics["val_loss"]), rel=1e-5)
        error = losses[draw] - 2.0
        moved = np.asarray(before.arch["normal"] - after.arch["normal"])
        expected = error * (one_hot(draw) - softmax_of(LOGITS["normal"]))
        np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)
        assert float(after.arch["baseline"]) == pytest.approx(losses[draw], rel=1e-5)
        assert float(metrics["baseline"]) == 2.0
        seen.add(draw)
    assert len(seen) > 3


def test_the_policy_is_what_is_reported_and_derived():
    logits = {t: jnp.array([[5.0, 1.0, 2.0], [0.0, 2.0, 1.0]]) for t in ("normal", "reduce")}
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)
    method, logits = Reinforce(), logits | {"baseline": jnp.float32(1)}
    activation = method.activation(logits, jnp.float32(0))
    assert activation.keys() == {"normal", "reduce"}
    np.testing.assert_allclose(activation["reduce"], softmax_of(logits["reduce"]), rtol=1e-5)
    # 0.67 of the second edge's policy is a skip connection, and 0.05 of the first's the convolution.
    assert method.derive(space, logits).normal == (("skip_connect", 1), ("sep_conv_3x3", 0))


# Random search --------------------------------------------------------------------------------------------------------


def drawn_cells(space, candidates, count=20_000):
    choose = jax.jit(jax.vmap(lambda key: gates.choose_cell(key, space, candidates)))
    return np.asarray(choose(KEYS[:count]))


def test_random_cells_of_a_space_with_two_inputs_a_node_are_uniform():
    space = spaces.SearchSpace("small", ("skip_connect", "none", "sep_conv_3x3"), nodes=4)
    chosen = drawn_cells(space, jnp.ones(space.shape, bool))
    assert chosen.dtype == bool
    cells = [
        frozenset(zip(((0, 2), (1, 2), *inputs), ops, strict=True))
        for inputs in itertools.combinations(((0, 3), (1, 3), (2, 3)), 2)
        for ops in itertools.product(("skip_connect", "sep_conv_3x3"), repeat=4)
    ]
    rows, counts = np.unique(chosen, axis=0, return_counts=True)
    named = [frozenset((space.edges[e], space.ops[o]) for e, o in np.argwhere(row)) for row in rows]
    accept_counts(dict(zip(named, counts.tolist(), strict=True)), dict.fromkeys(cells, 1 / len(cells)))


def test_random_cells_of_nas_bench_201_have_one_of_five_ops_on_every_edge_uniformly():
    space = spaces.nas_bench_201()
    chosen = drawn_cells(space, jnp.ones(space.shape, bool))
    assert (chosen.sum(axis=-1) == 1).all()
    ops = chosen.argmax(axis=-1)
    for a, b in itertools.combinations(range(6), 2):
        counts = np.bincount(5 * ops[:, a] + ops[:, b], minlength=25)
        assert scipy.stats.chisquare(counts).pvalue > LEVEL / 15


def test_random_cells_have_candidates_only():
    space = spaces.s1()
    for t in space.cell_types:
        chosen = drawn_cells(space, jnp.array(space.candidates(t)), 2000)
        assert not chosen[:, ~space.candidates(t)].any()
        for node in range(2, 6):
            edges = [e for e, (_, target) in enumerate(space.edges) if target == node]
            assert (chosen[:, edges].any(axis=-1).sum(axis=-1) == 2).all()
        assert (chosen.sum(axis=-1) <= 1).all()
        assert (chosen.any(axis=0) == space.candidates(t)).all()


SMALL = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3)


def cell_loss(op_weights, pixel):
    black, white = tables(SMALL)
    return 1 + sum(
        np.sum(w * ((1 - pixel) * black[t][0] + pixel * white[t][0])) + np.sum((0.5 * w) ** 2)
        for t, w in op_weights.items()
    )


def test_after_an_epoch_the_cell_of_the_smallest_mean_loss_becomes_the_logits():
    problem = SearchProblem(
        Table(SMALL), RandomSearch(samples=600, space=SMALL), optax.set_to_zero(), optax.set_to_zero(), 10
    )
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(0), batch_of(0.0)["image"])
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), batch_of(0.0, 0.2), batch_of(1.0, 0.8))
    found = jax.jit(select, static_argnums=0)(problem, state, batches)

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
    genotype = problem.method.derive(SMALL, jax.device_get(found.arch))
    for t in best:
        entries = {(SMALL.ops[o], SMALL.edges[e][0]) for e, o in np.argwhere(best[t])}
        assert set(getattr(genotype, t)) == entries
        np.testing.assert_array_equal(problem.method.activation(found.arch, 1.0)[t], best[t])
    for before, after in ((state.params, found.params), (state.opt_state, found.opt_state)):
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_cells_of_another_epoch_are_other_cells():
    problem = SearchProblem(
        Table(SMALL), RandomSearch(samples=1, space=SMALL), optax.set_to_zero(), optax.set_to_zero(), 99
    )
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(0), batch_of(0.0)["image"])
    batches = jax.tree.map(lambda a: a[None], batch_of(0.0))
    choose = jax.jit(select, static_argnums=0)
    found = {
        np.asarray(choose(problem, state.replace(step=jnp.int32(i)), batches).arch["normal"]).tobytes()
        for i in range(9)
    }
    assert len(found) > 2
