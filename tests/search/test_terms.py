"""The terms, and what methods minimise with them, against loops over edges and ops."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import SHUFFLED, logistic, logits_of, objective, slope_of, softmax_of, two_an_edge

from prdarts_jax import spaces
from prdarts_jax.search import methods, terms

KINDS = {
    "none": "none",
    "skip_connect": "skip",
    "sep_conv_3x3": "conv",
    "sep_conv_5x5": "conv",
    "dil_conv_3x3": "conv",
    "dil_conv_5x5": "conv",
    "avg_pool_3x3": "pool",
    "max_pool_3x3": "pool",
}
SPACES = [spaces.darts(), SHUFFLED]


def by_edge(space, values):
    """{(source, target): {op: value}} of an array [edges, ops]."""
    rows = iter(np.asarray(values, np.float64))
    return {(s, t): dict(zip(space.ops, next(rows), strict=True)) for t in range(2, space.nodes) for s in range(t)}


def group_loop(*kinds):
    """The mean over the ops of some kinds, of those that count."""

    def mean(space, probability, counts):
        p, c = by_edge(space, probability), by_edge(space, counts)
        counted = [p[edge][op] for edge in space.edges for op in space.ops if c[edge][op] and KINDS[op] in kinds]
        return sum(counted) / len(counted) if counted else 0.0

    return mean


def path_loop(space, probability, _):
    p = by_edge(space, probability)
    product = 1.0
    for t in range(2, space.nodes):
        product *= sum(p[t - 1, t][op] for op in space.ops if KINDS[op] == "conv")
    return product


def chosen_path_loop(space, probability, chosen):
    p, c = by_edge(space, probability), by_edge(space, chosen)
    means = []
    for t in range(2, space.nodes):
        selected = [p[t - 1, t][op] for op in space.ops if KINDS[op] == "conv" and c[t - 1, t][op]]
        if selected:
            means.append(sum(selected) / len(selected))
    return float(np.prod(means)) if means else 0.0


# Loops of (space, probability, the candidates or the chosen ops).
PAPER = {
    "l_skip": (terms.skip_sparsity(1.0), group_loop("skip")),
    "l_nonskip": (terms.nonskip_sparsity(1.0), group_loop("none", "conv", "pool")),
    "l_path": (terms.path_depth(1.0), path_loop),
}


def of_groups(*kinds):
    return terms.group_sparsity(1.0, "metric", *kinds, chosen=True), group_loop(*kinds)


RELEASED = {
    "l_skip": (terms.skip_sparsity(1.0, chosen=True), group_loop("skip")),
    "l_nonskip": of_groups("none", "conv"),
    "l_pool": of_groups("pool"),
    "l_path": (terms.path_depth(1.0, chosen=True), chosen_path_loop),
}


def compiled(space, named):
    """{term: (value, gradient in the probabilities)}, one compilation for all terms."""

    def all_terms(probability, mask):
        return {
            name: jax.value_and_grad(lambda p, term=term: term.of_cell(space, p, mask, mask))(probability)
            for name, (term, _) in named.items()
        }

    return jax.jit(all_terms)


def only(space, *ops, edges=None):
    """bool[edges, ops]: these ops, on all edges or on those given."""
    return np.array([[op in ops and (edges is None or e in edges) for op in space.ops] for e in space.edges])


def draws(space):
    """Choices by name, the corner cases among them."""
    no_chain = two_an_edge(space, 3)
    for e, (s, t) in enumerate(space.edges):
        if s == t - 1:
            no_chain[e] = [KINDS[op] in ("skip", "pool") for op in space.ops]
    return {
        "some": two_an_edge(space, 0),
        "others": two_an_edge(space, 1),
        "no skip and no pool": only(space, "sep_conv_3x3", "none"),
        "nothing but skips and pools": only(space, "skip_connect", "max_pool_3x3"),
        "two convolutions everywhere": only(space, "sep_conv_3x3", "dil_conv_5x5"),
        "no convolution on the chain": no_chain,
        "one convolution on one edge of the chain": only(space, "dil_conv_5x5", edges=[(2, 3)]),
        "a convolution off the chain only": only(space, "dil_conv_5x5", edges=[(0, 2)]),
        "nothing": only(space),
    }


def probabilities(space, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, space.shape).astype(np.float32)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("named", [PAPER, RELEASED], ids=["paper", "released"])
def test_the_terms_of_the_paper_and_those_of_the_released_code(named, space):
    p, found = probabilities(space), compiled(space, named)
    counts = draws(space) if named is RELEASED else {"all": np.ones(space.shape, bool)}
    for draw, mask in counts.items():
        for name, (value, slope) in found(p, mask).items():
            loop = named[name][1]
            np.testing.assert_allclose(value, loop(space, p, mask), rtol=1e-5, err_msg=f"{name}, {draw}")
            expected = slope_of(lambda p, loop=loop, mask=mask: loop(space, p, mask), p)
            np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-8, err_msg=f"{name}, {draw}")


@pytest.mark.parametrize("space", [spaces.s1(), SHUFFLED], ids=lambda space: space.name)
def test_the_paper_s_averages_are_over_the_candidates_of_an_edge(space):
    paper = compiled(space, PAPER)
    candidates = space.candidates("normal") if space.edge_ops else two_an_edge(space, 4)
    for mask in (candidates, only(space, "sep_conv_3x3"), only(space, "skip_connect"), only(space)):
        p = np.where(mask, probabilities(space), 0)  # what is no candidate has a probability of 0
        for name, (value, slope) in paper(p, mask).items():
            np.testing.assert_allclose(value, PAPER[name][1](space, p, mask), rtol=1e-5, err_msg=name)
            if name != "l_path":
                np.testing.assert_array_equal(np.asarray(slope)[~mask], 0)
                assert np.isfinite(slope).all()


def test_the_zero_one_loss_is_minus_the_mean_square_of_the_distance_to_a_half_of_the_candidates():
    p, mask = probabilities(SHUFFLED), two_an_edge(SHUFFLED, 5)
    expected = -sum((float(p[place]) - 0.5) ** 2 for place in np.ndindex(*p.shape) if mask[place]) / mask.sum()
    value, slope = jax.value_and_grad(lambda p: terms.zero_one(1.0).of_cell(SHUFFLED, p, mask, mask))(jnp.array(p))
    assert float(value) == pytest.approx(expected, rel=1e-5) and expected < 0
    np.testing.assert_allclose(slope, np.where(mask, -2 * (p - 0.5) / mask.sum(), 0), rtol=1e-4, atol=1e-8)


def test_values_worked_out_by_hand():
    space = SHUFFLED  # sep3, max, skip, dil5, none; edges 02 12 03 13 23; chain 12 23
    p = jnp.array(
        [
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.2, 0.1, 0.5, 0.4, 0.1],
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.9, 0.1, 1.0, 0.6, 0.1],
        ]
    )
    everything = jnp.ones(space.shape, bool)

    def value(term, mask):
        return float(term.of_cell(space, p, mask, mask))

    assert value(terms.skip_sparsity(1.0), everything) == pytest.approx(3 / 5)
    assert value(terms.nonskip_sparsity(1.0), everything) == pytest.approx((2.0 + 0.1 + 0.3 + 0.8 + 0.5) / 20)
    assert value(terms.path_depth(1.0), everything) == pytest.approx((0.2 + 0.4) * (0.9 + 0.6))
    chosen = only(space, "sep_conv_3x3", "dil_conv_5x5", edges=[(2, 3)]) | only(space, "dil_conv_5x5", edges=[(1, 2)])
    assert value(terms.path_depth(1.0, chosen=True), chosen) == pytest.approx(0.4 * 0.75)
    assert value(of_groups("none", "conv")[0], chosen) == pytest.approx((0.4 + 0.9 + 0.6) / 3)


# What methods minimise ------------------------------------------------------------------------------------------------

# Large and different weights, so that a term which is missing or mixed up shows.
LAMBDAS = {"lambda_skip": 0.7, "lambda_nonskip": 0.4, "lambda_path": 0.9}
METHODS = {
    "paper": methods.pr_darts(start_temperature=4.0, **LAMBDAS),
    "released": methods.pr_darts_released(**LAMBDAS),
}
START = {"paper": 4.0, "released": 1.0}
CHOSEN = {t: jnp.array(two_an_edge(SHUFFLED, seed), jnp.float32) for seed, t in enumerate(spaces.CELL_TYPES)}


def objective_loop(form, val_loss, logits, op_weights, progress, lambda_path=LAMBDAS["lambda_path"]):
    """Both forms of the outer objective, and {name: value} of the terms, in double precision."""
    tau = START[form] + (0.1 - START[form]) * progress
    p = {t: logistic(np.asarray(beta, np.float64) - tau * math.log(0.1 / 1.1)) for t, beta in logits.items()}

    counts = {t: np.asarray(w) == 1 if form == "released" else np.ones(w.shape, bool) for t, w in op_weights.items()}
    loops = {"paper": PAPER, "released": RELEASED}[form]
    found = {name: np.mean([loop(SHUFFLED, p[t], counts[t]) for t in p]) for name, (_, loop) in loops.items()}
    if form == "paper":
        penalty = 0.7 * found["l_skip"] + 0.4 * found["l_nonskip"]
    else:
        penalty = 0.7 * max(found["l_skip"] - 0.2, 0)
        penalty += 0.4 * max(found["l_nonskip"] - 0.2, 0) + 0.4 * max(found["l_pool"] - 0.2, 0)
    return val_loss + penalty - lambda_path * found["l_path"], found


@functools.partial(jax.jit, static_argnums=0)
def objective_and_slopes(method, val_loss, logits, op_weights, progress):
    """((total, metrics), gradients in the validation loss and in the logits), compiled once a method."""

    def total(val_loss, logits):
        return objective(method, SHUFFLED, val_loss, logits, op_weights, progress)

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(val_loss, logits)


def check_objective(form, logits, op_weights, progress):
    (total, metrics), (dloss, dlogits) = objective_and_slopes(METHODS[form], 1.5, logits, op_weights, progress)
    expected, found = objective_loop(form, 1.5, logits, op_weights, progress)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(dloss, 1)
    assert metrics.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    for t in logits:
        expected = slope_of(
            lambda beta, t=t: objective_loop(form, 1.5, logits | {t: beta}, op_weights, progress)[0], logits[t]
        )
        np.testing.assert_allclose(dlogits[t], expected, rtol=1e-3, atol=1e-6, err_msg=t)
    return found


@pytest.mark.parametrize("form", METHODS)
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_the_objective_of_pr_darts_and_its_gradient_are_those_of_the_loops(form, progress):
    check_objective(form, logits_of(0), CHOSEN, progress)


def test_below_the_threshold_the_released_groups_cost_nothing():
    rare = {t: beta - 4 for t, beta in logits_of(1, scale=0.1).items()}
    found = check_objective("released", rare, CHOSEN, 1.0)
    assert 0 < max(found["l_skip"], found["l_nonskip"], found["l_pool"]) < 0.2


def test_the_released_threshold_is_subtracted_from_the_average_of_the_cell_types():
    logits = {"normal": jnp.full(SHUFFLED.shape, -4.0), "reduce": jnp.full(SHUFFLED.shape, 4.0)}
    found = check_objective("released", logits, dict.fromkeys(logits, CHOSEN["normal"]), 1.0)
    assert 0.4 < found["l_skip"] < 0.6  # one type is far below the threshold, the average above it


def test_a_draw_without_skips_pools_or_convolutions_has_a_finite_objective():
    nothing = dict.fromkeys(spaces.CELL_TYPES, jnp.zeros(SHUFFLED.shape))
    assert set(check_objective("released", logits_of(2), nothing, 0.5).values()) == {0.0}
    check_objective("released", logits_of(2), nothing | {"reduce": CHOSEN["reduce"]}, 0.5)


def test_the_gates_alone_have_no_reward_for_depth():
    both = METHODS["paper"]
    weights = {"lambda_skip": 0.7, "lambda_nonskip": 0.4, "start_temperature": 4.0}
    alone = {
        "paper": methods.pr_darts_gates(**weights),
        "released": dataclasses.replace(METHODS["released"], terms=METHODS["released"].terms[:-1]),
    }
    assert alone["paper"] == dataclasses.replace(both, terms=both.terms[:-1])
    for form, method in alone.items():
        total, metrics = objective(method, SHUFFLED, 1.5, logits_of(0), CHOSEN, 0.4)
        expected, _ = objective_loop(form, 1.5, logits_of(0), CHOSEN, 0.4, lambda_path=0.0)
        assert float(total) == pytest.approx(expected, rel=1e-5) and "l_path" not in metrics


def test_the_path_alone_is_darts_with_a_reward_for_depth():
    method, logits = methods.pr_darts_path(lambda_path=0.9), logits_of(0)
    assert method.relaxation == dataclasses.replace(methods.darts().relaxation, initial=0.5, noise=0.0)
    weights = {t: softmax_of(beta) for t, beta in logits.items()}
    depth = np.mean([path_loop(SHUFFLED, w, None) for w in weights.values()])
    total, metrics = objective(method, SHUFFLED, 1.5, logits, weights, 0.4)
    assert float(total) == pytest.approx(1.5 - 0.9 * depth, rel=1e-5)
    assert float(metrics["l_path"]) == pytest.approx(depth, rel=1e-5) and len(metrics) == 1


def test_fair_darts_pushes_sigmoids_to_0_or_1():
    logits = logits_of(0, scale=2.0)
    p = {t: logistic(np.asarray(beta, np.float64)) for t, beta in logits.items()}
    (total, metrics), (_, slope) = objective_and_slopes(methods.fair_darts(), 1.5, logits, logits, 0.5)
    l_01 = -np.mean([np.mean((q - 0.5) ** 2) for q in p.values()])
    assert float(metrics["l_01"]) == pytest.approx(l_01, rel=1e-5)
    assert float(total) == pytest.approx(1.5 + 10 * l_01, rel=1e-5)
    for t, q in p.items():
        np.testing.assert_allclose(slope[t], 10 * -2 * (q - 0.5) * q * (1 - q) / (2 * q.size), rtol=1e-3, atol=1e-7)


def test_a_method_without_terms_minimises_the_validation_loss():
    for method in (methods.darts(), methods.gdas(), methods.lambda_darts()):
        (total, metrics), (dloss, dlogits) = objective_and_slopes(method, 1.5, logits_of(4), logits_of(5), 0.3)
        assert (float(total), float(dloss), metrics) == (1.5, 1.0, {})
        assert not any(d.any() for d in dlogits.values())


# The score function of REINFORCE

TWO = spaces.SearchSpace("two", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))


@pytest.mark.parametrize("baseline", [0.0, 2.3, -5.0])
def test_the_expectation_of_the_score_function_is_the_gradient_of_the_expected_loss(baseline):
    draws = np.array([np.eye(3)[list(draw)] for draw in itertools.product(range(3), repeat=2)])  # of the two edges
    losses, beta = np.random.default_rng(2).uniform(0.5, 4.0, 9), np.array([[0.3, -0.8, 0.5], [1.0, 0.0, -0.5]])

    def surrogate(logits, draw, loss):
        return terms.score_function(terms.View(TWO, logits, {}, loss), {"normal": draw}, jnp.float32(0.5))[0]

    with jax.enable_x64(True):
        logits = {"normal": jnp.array(beta), "baseline": jnp.array(baseline)}
        slopes = jax.device_get(jax.vmap(jax.grad(surrogate), in_axes=(None, 0, 0))(logits, draws, losses))
    p = softmax_of(beta)
    joint = np.prod(np.sum(draws * p, axis=2), axis=1)
    # d p(draw) = p(draw) (draw - p)
    expected = sum(q * loss * (draw - p) for q, loss, draw in zip(joint, losses, draws, strict=True))
    np.testing.assert_allclose(np.tensordot(joint, slopes["normal"], 1), expected, rtol=1e-6, atol=1e-9)
    # The square of the error pulls the baseline to the mean of the losses.
    np.testing.assert_allclose(slopes["baseline"], baseline - losses, rtol=1e-6)
