"""The relaxations: where logits start, and the laws and gradients of op weights, against loops and closed forms."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from shared import (
    LEVEL,
    SHUFFLED,
    accept_counts,
    counted,
    law_of_the_released_choice,
    logistic,
    logits_of,
    softmax_of,
)

from prdarts_jax import spaces
from prdarts_jax.search import methods, relaxations
from prdarts_jax.search.schedules import Linear

CELL_TYPES = spaces.CELL_TYPES
PAPER = methods.pr_darts(start_temperature=4.0).relaxation
RELEASED = methods.pr_darts_released().relaxation
GUMBEL, POLICY = methods.gdas().relaxation, methods.reinforce().relaxation
SOFTMAX, OF_EDGES, SIGMOID = (build().relaxation for build in (methods.darts, methods.pc_darts, methods.fair_darts))
DRAWN = (PAPER, RELEASED, GUMBEL, POLICY, methods.random_search().relaxation)


def name(relaxation):
    return f"{type(relaxation).__name__} {getattr(relaxation, 'draw', '')}".strip()


# What logits start from -----------------------------------------------------------------------------------------------


def test_a_search_of_pr_darts_starts_at_one_half():
    for method in (methods.pr_darts(), methods.pr_darts_gates(), methods.pr_darts_path()):
        start = method.relaxation.init(SHUFFLED, jax.random.key(0), logits_of(5))
        for t in CELL_TYPES:
            np.testing.assert_array_equal(start[t], np.full(SHUFFLED.shape, 0.5, np.float32))


@pytest.mark.parametrize("method", sorted(methods.NAMED.keys() - {"pr_darts", "pr_darts_gates", "pr_darts_path"}))
def test_other_searches_start_at_a_thousandth_of_a_normal_variable(method):
    relaxation = methods.find(method)().relaxation
    start = relaxation.init(SHUFFLED, jax.random.key(1), {t: jnp.ones((300, 8)) for t in CELL_TYPES})
    drawn = [np.ravel(values) for values in start.values() if np.ndim(values)]
    for values in drawn:
        assert scipy.stats.kstest(values / 1e-3, "norm").pvalue > LEVEL / len(drawn)
    for a, b in itertools.combinations(drawn, 2):
        assert scipy.stats.pearsonr(a[: len(b)], b[: len(a)]).pvalue > LEVEL / 6


def test_pc_darts_has_logits_of_edges_and_reinforce_a_baseline():
    start = methods.pc_darts().relaxation.init(SHUFFLED, jax.random.key(0), logits_of(0))
    assert {t: beta.shape for t, beta in start.items()} == {
        "normal": (5, 5),
        "reduce": (5, 5),
        "normal_edges": (5,),
        "reduce_edges": (5,),
    }
    start = methods.reinforce(start_baseline=2.0).relaxation.init(SHUFFLED, jax.random.key(0), logits_of(0))
    assert start.keys() == {*CELL_TYPES, "baseline"} and float(start["baseline"]) == 2.0


# Weights without a draw -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relaxation, expected", [(SOFTMAX, softmax_of), (SIGMOID, logistic)], ids=name)
def test_weights_are_the_softmax_or_the_sigmoid_whatever_the_key(relaxation, expected):
    logits = logits_of(4, scale=2.0)
    first, second = (relaxation.weigh(SHUFFLED, logits, jax.random.key(i), jnp.float32(0.3)) for i in range(2))
    for t in CELL_TYPES:
        np.testing.assert_allclose(first[t], expected(np.asarray(logits[t], np.float64)), rtol=1e-5)
        np.testing.assert_array_equal(first[t], second[t])
        np.testing.assert_array_equal(first[t], relaxation.activation(SHUFFLED, logits, jnp.float32(0.3))[t])


def test_edge_softmax_multiplies_the_softmax_of_an_edge_s_ops_with_that_of_a_node_s_edges():
    space, rng = spaces.darts(), np.random.default_rng(0)
    logits = logits_of(0, space.shape) | {f"{t}_edges": jnp.array(rng.normal(size=14), jnp.float32) for t in CELL_TYPES}
    weights = OF_EDGES.weigh(space, logits, jax.random.key(0), jnp.float32(0))
    assert weights.keys() == set(CELL_TYPES)
    for t in CELL_TYPES:
        of_edges, expected = np.exp(np.asarray(logits[f"{t}_edges"], np.float64)), softmax_of(logits[t])
        np.testing.assert_allclose(OF_EDGES.activation(space, logits, 0.0)[t], expected, rtol=1e-5)
        for e, (_, target) in enumerate(space.edges):
            expected[e] *= of_edges[e] / sum(of_edges[i] for i, (_, other) in enumerate(space.edges) if other == target)
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)
        assert expected.sum() == pytest.approx(4)  # a node's weights add up to 1
        np.testing.assert_allclose(OF_EDGES.scores(space, logits)[t], np.log(expected), rtol=1e-4)


# Temperatures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [10.0, 1.0])
def test_the_temperature_falls_linearly(start):
    for method in (methods.pr_darts, methods.pr_darts_released, methods.gdas):
        relaxation = method(start_temperature=start, end_temperature=0.1).relaxation
        for progress, tau in ((0.0, start), (0.25, 0.75 * start + 0.025), (1.0, 0.1)):
            (found,) = relaxation.metrics(jnp.float32(progress)).values()
            assert float(found) == pytest.approx(tau, rel=1e-5)


# Draws ----------------------------------------------------------------------------------------------------------------

KEYS = jax.random.split(jax.random.key(0), 4000)


@functools.partial(jax.jit, static_argnums=(0, 1))
def weigh(relaxation, space, logits, keys, progress):
    """(op weights, their derivatives in the logits of the same gate) for every key: {cell type: [keys, edges, ops]}."""

    def total(logits, key):
        op_weights = relaxation.weigh(space, logits, key, progress)
        return sum(w.sum() for w in op_weights.values()), op_weights

    slopes, op_weights = jax.vmap(jax.grad(total, has_aux=True), in_axes=(None, 0))(logits, keys)
    return op_weights, slopes


@pytest.fixture(scope="module")
def draws():
    """{(draw, progress): op weights and slopes} of the same logits and keys."""
    return {
        (relaxation.draw, progress): jax.device_get(weigh(relaxation, SHUFFLED, logits_of(3), KEYS, progress))
        for relaxation in (PAPER, RELEASED)
        for progress in (0.0, 1.0)
    }


@pytest.mark.parametrize("progress, tau", [(0.0, 4.0), (1.0, 0.1)])
def test_a_uniform_draw_has_the_gates_of_at_most_two_ops_an_edge(draws, progress, tau):
    for t in CELL_TYPES:
        w, slope = (a[t].astype(np.float64) for a in draws["uniform", progress])
        assert w.min() >= 0 and w.max() <= 1
        assert (np.count_nonzero(w, axis=-1) <= 2).all()
        clipped = (w == 0) | (w == 1)
        np.testing.assert_array_equal(slope[clipped], 0)
        # The value determines the derivative of a hard-concrete gate: only a gate at this temperature has it.
        gbar = (w + 0.1) / 1.2
        np.testing.assert_allclose(slope[~clipped], (1.2 * gbar * (1 - gbar) / tau)[~clipped], rtol=1e-2, atol=1e-4)
        expected = 2 / 5 * logistic(np.asarray(logits_of(3)[t], np.float64) + tau * math.log(11))
        for place in np.ndindex(*SHUFFLED.shape):
            active = int(np.count_nonzero(w[:, *place]))
            pvalue = scipy.stats.binomtest(active, len(KEYS), expected[place]).pvalue
            assert pvalue > LEVEL / expected.size, (t, place)


@pytest.mark.parametrize("progress, tau", [(0.0, 1.0), (1.0, 0.1)])
def test_a_draw_of_the_largest_has_exactly_two_ones_an_edge_with_the_gradient_of_their_gates(draws, progress, tau):
    for t in CELL_TYPES:
        w, slope = (a[t] for a in draws["largest", progress])
        assert set(np.unique(w)) == {0.0, 1.0}
        assert (w.sum(axis=-1) == 2).all()
        of_chosen = slope[w == 1]
        assert of_chosen.min() == 0 and 0.25 / tau < of_chosen.max() <= 1.2 / (4 * tau) * (1 + 1e-5)


def test_the_choice_of_the_largest_follows_the_gates_and_the_drop():
    saturated = np.where([True, True, False, False, False], 60.0, -60.0) * np.ones(SHUFFLED.shape)
    op_weights, _ = weigh(RELEASED, SHUFFLED, dict.fromkeys(CELL_TYPES, jnp.array(saturated, jnp.float32)), KEYS, 0.0)
    law = law_of_the_released_choice((1.0, 1.0, 0.0, 0.0, 0.0), 0.4)
    for t in CELL_TYPES:
        accept_counts(counted(op_weights[t][:, 3] != 0), law)


@pytest.mark.parametrize("relaxation", DRAWN, ids=name)
def test_keys_and_cell_types_have_draws_of_their_own(relaxation):
    logits = relaxation.init(SHUFFLED, jax.random.key(0), logits_of(3)) | logits_of(3)
    first, again = (weigh(relaxation, SHUFFLED, logits, KEYS, 0.0)[0] for _ in range(2))
    drawn = {t: np.asarray(first[t][:1000]).reshape(1000, -1) != 0 for t in CELL_TYPES}
    seen = 900 if relaxation in (PAPER, RELEASED) else 40
    for t in CELL_TYPES:
        assert len(np.unique(drawn[t], axis=0)) > seen
        np.testing.assert_array_equal(first[t], again[t])
    assert (drawn["normal"] != drawn["reduce"]).any(axis=1).mean() > 0.9


# One op of each edge

TWO = spaces.SearchSpace("two", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
LOGITS = {"normal": jnp.array([[0.3, -0.8, 0.5], [1.0, 0.0, -0.5]]), "baseline": jnp.float32(2.0)}


@pytest.mark.parametrize("relaxation, progresses", [(GUMBEL, (0.0, 0.5, 1.0)), (POLICY, (0.3,))], ids=name)
def test_one_op_of_each_edge_is_drawn_by_its_softmax_independently(relaxation, progresses):
    logits = LOGITS if relaxation == POLICY else {"normal": LOGITS["normal"]}
    p, cells = softmax_of(LOGITS["normal"]), list(itertools.product(range(3), repeat=2))  # of the two edges
    keys = jax.random.split(jax.random.key(0), 20_000)
    for progress in progresses:
        w = np.asarray(weigh(relaxation, TWO, logits, keys, progress)[0]["normal"])
        assert set(np.unique(w)) == {0.0, 1.0}
        assert (w.sum(axis=-1) == 1).all()
        first, second = w.argmax(axis=-1).T
        counts = {(a, b): int(((first == a) & (second == b)).sum()) for a, b in cells}
        accept_counts(counts, {(a, b): p[0, a] * p[1, b] for a, b in cells})


@pytest.mark.parametrize("progress, tau", [(0.0, 10.0), (0.5, 5.05), (1.0, 0.1)])
def test_a_gumbel_draw_has_the_gradient_of_the_gumbel_softmax_of_the_drawn_op(monkeypatch, progress, tau):
    beta = np.random.default_rng(0).normal(size=(9, 4))
    noise = np.random.default_rng(1).gumbel(size=(9, 4))
    monkeypatch.setattr(jax.random, "gumbel", lambda key, shape=(), dtype=None, **_: jnp.array(noise, jnp.float32))

    def of_all(beta):
        return GUMBEL.weigh(TWO, {"normal": beta}, jax.random.key(0), jnp.float32(progress))["normal"]

    w, jacobian = jax.jit(lambda beta: (of_all(beta), jax.jacrev(of_all)(beta)))(jnp.array(beta, jnp.float32))
    soft = softmax_of((beta + noise) / tau)
    expected = np.zeros((9, 4, 9, 4))
    for e in range(9):
        drawn = (beta[e] + noise[e]).argmax()
        np.testing.assert_array_equal(w[e], np.eye(4)[drawn])
        for o in range(4):
            expected[e, drawn, e, o] = soft[e, drawn] * ((drawn == o) - soft[e, o]) / tau
    np.testing.assert_allclose(jacobian, expected, rtol=1e-3, atol=1e-6)


def test_the_activation_of_what_is_drawn_by_a_softmax_is_that_softmax():
    for relaxation in (GUMBEL, POLICY):
        logits = logits_of(0) | {"baseline": jnp.float32(1)}
        activation = relaxation.activation(SHUFFLED, logits, jnp.float32(0.5))
        assert activation.keys() == set(CELL_TYPES)
        for t in CELL_TYPES:
            np.testing.assert_allclose(activation[t], softmax_of(logits[t]), rtol=1e-5)


# Values ---------------------------------------------------------------------------------------------------------------


def test_relaxations_are_values_that_jit_takes_as_static_arguments():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def temperature(relaxation, progress):
        traces.append(relaxation)
        return relaxation.metrics(progress)["temperature"]

    found = [temperature(relaxations.HardConcrete(temperature=Linear(start, 0.1)), 0.0) for start in (2.0, 2.0, 3.0)]
    assert [float(tau) for tau in found] == [2.0, 2.0, 3.0] and len(traces) == 2
    assert len({*DRAWN, SOFTMAX, SIGMOID, relaxations.Softmax(), relaxations.Gumbel()}) == len(DRAWN) + 2
