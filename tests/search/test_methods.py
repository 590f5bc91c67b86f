"""The methods against loops, enumerations and closed forms."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from test_gates import LEVEL, accept_counts, counted, law_of_the_released_choice, logistic
from test_regularizers import (
    SHUFFLED,
    chosen_group_loop,
    chosen_path_loop,
    nonskip_loop,
    path_loop,
    skip_loop,
    slope_of,
    two_an_edge,
)

from prdarts_jax import spaces
from prdarts_jax.search.methods import Darts, PRDarts
from prdarts_jax.search.step import SearchProblem

CELL_TYPES = ("normal", "reduce")
# Large and different weights, so that a term which is missing or mixed up shows.
LAMBDAS = {"lambda_skip": 0.7, "lambda_nonskip": 0.4, "lambda_path": 0.9}
PAPER = PRDarts("paper", space=SHUFFLED, start_temperature=4.0, **LAMBDAS)
RELEASED = PRDarts("released", space=SHUFFLED, start_temperature=1.0, **LAMBDAS)
FORMS = pytest.mark.parametrize("method", [PAPER, RELEASED], ids=lambda method: method.form)


def logits_of(seed, shape=SHUFFLED.shape, scale=1.0):
    rng = np.random.default_rng(seed)
    return {t: jnp.array(rng.normal(0, scale, shape), jnp.float32) for t in CELL_TYPES}


def softmax_of(beta):
    exponentials = np.exp(np.asarray(beta, np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def objective_loop(method, val_loss, logits, op_weights, progress):
    """Both forms of the outer objective, {name: value} of the terms, in double precision."""
    tau = method.start_temperature + (method.end_temperature - method.start_temperature) * progress
    p = {t: logistic(np.asarray(logits[t], np.float64) - tau * math.log(0.1 / 1.1)) for t in CELL_TYPES}
    space = method.space
    if method.form == "paper":
        terms = {
            "l_skip": np.mean([skip_loop(space, p[t]) for t in CELL_TYPES]),
            "l_nonskip": np.mean([nonskip_loop(space, p[t]) for t in CELL_TYPES]),
            "l_path": np.mean([path_loop(space, p[t]) for t in CELL_TYPES]),
        }
        penalty = method.lambda_skip * terms["l_skip"] + method.lambda_nonskip * terms["l_nonskip"]
    else:
        c = {t: np.asarray(op_weights[t]) == 1 for t in CELL_TYPES}
        terms = {
            "l_skip": np.mean([chosen_group_loop(space, p[t], c[t], ["skip"]) for t in CELL_TYPES]),
            "l_nonskip": np.mean([chosen_group_loop(space, p[t], c[t], ["none", "conv"]) for t in CELL_TYPES]),
            "l_pool": np.mean([chosen_group_loop(space, p[t], c[t], ["pool"]) for t in CELL_TYPES]),
            "l_path": np.mean([chosen_path_loop(space, p[t], c[t]) for t in CELL_TYPES]),
        }
        penalty = method.lambda_skip * max(terms["l_skip"] - 0.2, 0)
        penalty += method.lambda_nonskip * max(terms["l_nonskip"] - 0.2, 0)
        penalty += method.lambda_nonskip * max(terms["l_pool"] - 0.2, 0)
    return val_loss + penalty - method.lambda_path * terms["l_path"], terms


@functools.partial(jax.jit, static_argnums=0)
def objective(method, val_loss, logits, op_weights, progress):
    """((total, terms), gradients in the validation loss and in the logits), compiled once a method."""

    def total(val_loss, logits):
        return method.objective(val_loss, logits, op_weights, progress)

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(val_loss, logits)


def check_objective(method, logits, op_weights, progress):
    (total, metrics), (dloss, dlogits) = objective(method, 1.5, logits, op_weights, progress)
    expected, terms = objective_loop(method, 1.5, logits, op_weights, progress)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(dloss, 1)
    for name, term in terms.items():
        np.testing.assert_allclose(metrics[name], term, rtol=1e-4, err_msg=name)
    for t in CELL_TYPES:
        expected = slope_of(
            lambda beta, t=t: objective_loop(method, 1.5, logits | {t: beta}, op_weights, progress)[0], logits[t]
        )
        np.testing.assert_allclose(dlogits[t], expected, rtol=1e-3, atol=1e-6, err_msg=t)
    return terms


@FORMS
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_the_objective_and_its_gradient_are_those_of_the_loops(method, progress):
    chosen = {t: jnp.array(two_an_edge(SHUFFLED, seed), jnp.float32) for seed, t in enumerate(CELL_TYPES)}
    check_objective(method, logits_of(0), chosen, progress)


def test_below_the_threshold_the_released_groups_cost_nothing():
    rare = {t: beta - 4 for t, beta in logits_of(1, scale=0.1).items()}
    chosen = {t: jnp.array(two_an_edge(SHUFFLED, seed), jnp.float32) for seed, t in enumerate(CELL_TYPES)}
    terms = check_objective(RELEASED, rare, chosen, 1.0)
    assert 0 < max(terms["l_skip"], terms["l_nonskip"], terms["l_pool"]) < 0.2


def test_the_released_threshold_is_subtracted_from_the_average_of_the_cell_types():
    logits = {"normal": jnp.full(SHUFFLED.shape, -4.0), "reduce": jnp.full(SHUFFLED.shape, 4.0)}
    chosen = {t: jnp.array(two_an_edge(SHUFFLED, 0), jnp.float32) for t in CELL_TYPES}
    terms = check_objective(RELEASED, logits, chosen, 1.0)
    assert 0.4 < terms["l_skip"] < 0.6  # one type is far below the threshold, the average above it


def test_a_draw_without_skips_pools_or_convolutions_has_a_finite_objective():
    logits = logits_of(2)
    nothing = {t: jnp.zeros(SHUFFLED.shape) for t in CELL_TYPES}
    terms = check_objective(RELEASED, logits, nothing, 0.5)
    assert set(terms.values()) == {0.0}
    one_type = nothing | {"reduce": jnp.array(two_an_edge(SHUFFLED, 1), jnp.float32)}
    check_objective(RELEASED, logits, one_type, 0.5)


def test_the_defaults_are_the_paper_s():
    method = PRDarts()
    assert (method.form, method.space) == ("paper", spaces.darts())
    assert (method.lambda_skip, method.lambda_nonskip, method.lambda_path) == (0.01, 0.005, 0.005)
    assert (method.start_temperature, method.end_temperature) == (10.0, 0.1)
    assert (method.drop, method.threshold) == (0.4, 0.2)
    assert method.weights_first and not Darts().weights_first


@pytest.mark.parametrize("start", [10.0, 1.0])
@pytest.mark.parametrize("total_steps", [2, 7, 39_000])
def test_the_temperature_falls_linearly_from_the_first_step_to_exactly_the_last(start, total_steps):
    method = PRDarts(start_temperature=start)
    problem = SearchProblem(None, method, optax.identity(), optax.identity(), total_steps)
    progress = [float(problem.progress(jnp.int32(step))) for step in (0, total_steps - 1, total_steps)]
    assert progress == [0.0, 1.0, 1.0]
    assert float(method.temperature(jnp.float32(0.0))) == start
    assert float(method.temperature(jnp.float32(1.0))) == pytest.approx(0.1, rel=1e-5)
    assert float(method.temperature(jnp.float32(0.25))) == pytest.approx(0.75 * start + 0.025)


def test_a_search_of_one_step_has_a_progress():
    problem = SearchProblem(None, Darts(), optax.identity(), optax.identity(), 1)
    assert 0 <= float(problem.progress(jnp.int32(0))) <= 1


@functools.partial(jax.jit, static_argnums=0)
def weigh(method, logits, keys, progress):
    """(op weights, their derivatives in the logits of the same gate) for every key: {cell type: [keys, edges, ops]}."""

    def total(logits, key):
        op_weights = method.weigh(logits, key, progress)
        return sum(w.sum() for w in op_weights.values()), op_weights

    slopes, op_weights = jax.vmap(jax.grad(total, has_aux=True), in_axes=(None, 0))(logits, keys)
    return op_weights, slopes


KEYS = jax.random.split(jax.random.key(0), 4000)


@pytest.fixture(scope="module")
def draws():
    """{(form, progress): op weights and slopes} of the same logits and keys."""
    return {
        (method.form, progress): jax.device_get(weigh(method, logits_of(3), KEYS, progress))
        for method in (PAPER, RELEASED)
        for progress in (0.0, 1.0)
    }


@pytest.mark.parametrize("progress, tau", [(0.0, 4.0), (1.0, 0.1)])
def test_a_paper_draw_has_the_gates_of_at_most_two_ops_an_edge(draws, progress, tau):
    for t in CELL_TYPES:
        w, slope = (a[t].astype(np.float64) for a in draws["paper", progress])
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
def test_a_released_draw_has_exactly_two_ones_an_edge_with_the_gradient_of_their_gates(draws, progress, tau):
    for t in CELL_TYPES:
        w, slope = (a[t] for a in draws["released", progress])
        assert set(np.unique(w)) == {0.0, 1.0}
        assert (w.sum(axis=-1) == 2).all()
        of_chosen = slope[w == 1]
        assert of_chosen.min() == 0 and 0.25 / tau < of_chosen.max() <= 1.2 / (4 * tau) * (1 + 1e-5)


def test_the_released_choice_follows_the_gates_and_the_drop():
    saturated = np.where([True, True, False, False, False], 60.0, -60.0) * np.ones(SHUFFLED.shape)
    logits = {t: jnp.array(saturated, jnp.float32) for t in CELL_TYPES}
    op_weights, _ = weigh(RELEASED, logits, KEYS, 0.0)
    law = law_of_the_released_choice((1.0, 1.0, 0.0, 0.0, 0.0), 0.4)
    for t in CELL_TYPES:
        accept_counts(counted(op_weights[t][:, 3] != 0), law)


@FORMS
def test_keys_and_cell_types_have_draws_of_their_own(draws, method):
    op_weights, _ = draws[method.form, 0.0]
    first = {t: op_weights[t][:1000].reshape(1000, -1) != 0 for t in CELL_TYPES}
    for t in CELL_TYPES:
        assert len(np.unique(first[t], axis=0)) > 900
    assert (first["normal"] != first["reduce"]).any(axis=1).mean() > 0.9
    again, _ = weigh(method, logits_of(3), KEYS, 0.0)
    for t in CELL_TYPES:
        np.testing.assert_array_equal(op_weights[t], again[t])


def test_darts_weighs_with_the_softmax_whatever_the_key_and_minimises_the_validation_loss():
    logits = logits_of(4)
    first, second = (Darts().weigh(logits, key, 0.3) for key in KEYS[:2])
    for t in CELL_TYPES:
        np.testing.assert_allclose(first[t], softmax_of(logits[t]), rtol=1e-5)
        np.testing.assert_array_equal(first[t], second[t])
        np.testing.assert_array_equal(first[t], Darts().activation(logits, 0.3)[t])
    (total, metrics), (dloss, dlogits) = objective(Darts(), 1.5, logits, first, 0.3)
    assert (float(total), float(dloss), metrics) == (1.5, 1.0, {})
    assert not any(dlogits[t].any() for t in CELL_TYPES)


def test_searches_start_at_one_half_in_the_paper():
    start = PAPER.init(jax.random.key(0), logits_of(5))
    for t in CELL_TYPES:
        np.testing.assert_array_equal(start[t], np.full(SHUFFLED.shape, 0.5, np.float32))


@pytest.mark.parametrize("method", [RELEASED, Darts()], ids=["released", "darts"])
def test_searches_start_at_a_thousandth_of_a_normal_variable_elsewhere(method):
    shape = (300, 8)
    start = method.init(jax.random.key(1), {t: jnp.ones(shape) for t in CELL_TYPES})
    normal, reduce = (np.asarray(start[t]).ravel() for t in CELL_TYPES)
    for values in (normal, reduce):
        assert scipy.stats.kstest(values / 1e-3, "norm").pvalue > LEVEL / 3
    assert scipy.stats.pearsonr(normal, reduce).pvalue > LEVEL / 3


@FORMS
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_activation_is_the_probability_that_a_gate_is_not_0(method, progress):
    tau = method.start_temperature * (1 - progress) + 0.1 * progress
    probability = method.activation(logits_of(6), progress)
    for t in CELL_TYPES:
        expected = logistic(np.asarray(logits_of(6)[t], np.float64) - tau * math.log(0.1 / 1.1))
        np.testing.assert_allclose(probability[t], expected, rtol=1e-5)


def two_of_a_node(space, scores, distinct_inputs):
    """Every pair of (op, input) of a node is tried; the best by (larger score, smaller score) is kept."""
    cell = []
    for node in range(2, space.nodes):
        first_edge = sum(range(2, node))
        entries = [
            (scores[first_edge + s][o], op, s) for s in range(node) for o, op in enumerate(space.ops) if op != "none"
        ]
        pairs = [(a, b) for a in entries for b in entries if a[0] > b[0] and not (distinct_inputs and a[2] == b[2])]
        best = max(pairs, key=lambda pair: (pair[0][0], pair[1][0]))
        cell += [(op, s) for _, op, s in best]
    return tuple(cell)


@pytest.mark.parametrize("distinct_inputs", [True, False])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_derivation_of_pr_darts(form, distinct_inputs):
    method = PRDarts(form, distinct_inputs=distinct_inputs)
    space = spaces.darts()
    shared_edges = none_is_largest = 0
    for seed in range(10):
        logits = logits_of(seed, space.shape, scale=2.0)
        found = method.derive(space, logits)
        for t in CELL_TYPES:
            beta = np.asarray(logits[t], np.float64)
            scores = logistic(beta) if form == "paper" else softmax_of(beta)
            cell = getattr(found, t)
            assert cell == two_of_a_node(space, scores, distinct_inputs)
            shared_edges += sum(a[1] == b[1] for a, b in zip(cell[::2], cell[1::2], strict=True))
            none_is_largest += (beta.argmax(axis=1) == 0).sum()
        assert found.normal_concat == found.reduce_concat == (2, 3, 4, 5)
    assert none_is_largest > 0 and (shared_edges > 0) == (not distinct_inputs)


def test_the_paper_ranks_probabilities_and_the_released_code_the_softmax_of_each_edge():
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)
    beta = jnp.array([[-5.0, 3.0, 2.9], [-5.0, 1.0, -5.0]])
    logits = {t: beta for t in CELL_TYPES}
    paper, released = (PRDarts(form, space=space, distinct_inputs=False) for form in ("paper", "released"))
    assert paper.derive(space, logits).normal == (("skip_connect", 0), ("sep_conv_3x3", 0))
    assert released.derive(space, logits).normal == (("skip_connect", 1), ("skip_connect", 0))


def test_large_logits_are_still_told_apart():
    """Their probabilities all round to 1."""
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)
    logits = {t: jnp.array([[0.0, 40.0, 41.0], [90.0, 43.0, 42.0]]) for t in CELL_TYPES}
    assert PRDarts("paper", space=space, distinct_inputs=True).derive(space, logits).reduce == (
        ("skip_connect", 1),
        ("sep_conv_3x3", 0),
    )


def test_derivation_of_darts():
    """Per edge the best op other than none, then per node the two edges where it is largest."""
    space = spaces.darts()
    for seed in range(10):
        logits = logits_of(seed, space.shape, scale=2.0)
        found = Darts().derive(space, logits)
        for t in CELL_TYPES:
            beta = np.asarray(logits[t], np.float64)
            weights = softmax_of(beta)
            cell = []
            for node in range(2, 6):
                best = []
                for e, (s, target) in enumerate(space.edges):
                    if target == node:
                        weight, op = max((weights[e, o], op) for o, op in enumerate(space.ops) if op != "none")
                        best.append((weight, op, s))
                cell += [(op, s) for _, op, s in sorted(best, reverse=True)[:2]]
            assert getattr(found, t) == tuple(cell)


def test_methods_are_values_that_jit_takes_as_static_arguments():
    assert len({PRDarts(), PRDarts(), PRDarts("released"), Darts(), Darts()}) == 3
    traces = SimpleNamespace(count=0)

    @functools.partial(jax.jit, static_argnums=0)
    def temperature(method, progress):
        traces.count += 1
        return method.temperature(progress)

    values = [temperature(PRDarts(start_temperature=start), 0.0) for start in (2.0, 2.0, 3.0)]
    assert [float(value) for value in values] == [2.0, 2.0, 3.0]
    assert traces.count == 2
