"""The gates and the choice of ops, whose frequencies are tested against their laws."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from shared import LEVEL, accept_counts, counted, law_of_the_released_choice, logistic

from prdarts_jax import spaces
from prdarts_jax.search import gates

A, B = -0.1, 1.1
BETAS, TAUS = (-2.0, 0.0, 0.5, 3.0), (0.1, 1.0, 2.5)
GRID = list(itertools.product(BETAS, TAUS))
DRAWS = 40_000

hard_concrete = jax.jit(gates.hard_concrete)


@pytest.fixture(scope="module")
def drawn():
    """The gates drawn for every (beta, tau) of the grid, with keys of their own."""
    keys = jax.random.split(jax.random.key(0), len(GRID))
    return {
        (beta, tau): np.asarray(hard_concrete(key, jnp.full(DRAWS, beta), tau), np.float64)
        for key, (beta, tau) in zip(keys, GRID, strict=True)
    }


@pytest.mark.parametrize("beta, tau", GRID)
def test_gates_are_0_and_1_as_often_as_the_closed_forms_say(drawn, beta, tau):
    g = drawn[beta, tau]
    assert g.min() >= 0 and g.max() <= 1
    nonzero = logistic(beta - tau * math.log(-A / B))
    one = logistic(beta - tau * math.log((1 - A) / (B - 1)))
    for count, probability in (((g != 0).sum(), nonzero), ((g == 1).sum(), one)):
        assert scipy.stats.binomtest(int(count), DRAWS, probability).pvalue > LEVEL / (2 * len(GRID))


@pytest.mark.parametrize("beta, tau", GRID)
def test_gates_between_0_and_1_follow_the_closed_form(drawn, beta, tau):
    def cdf(x):
        return logistic(tau * np.log((x - A) / (B - x)) - beta)

    between = drawn[beta, tau][(drawn[beta, tau] > 0) & (drawn[beta, tau] < 1)]
    assert len(between) > 500
    law = scipy.stats.kstest(between, lambda x: (cdf(x) - cdf(0.0)) / (cdf(1.0) - cdf(0.0)))
    assert law.pvalue > LEVEL / len(GRID)


def test_the_gates_of_a_draw_are_independent():
    keys = jax.random.split(jax.random.key(1), 8000)
    g = jax.jit(jax.vmap(lambda key: gates.hard_concrete(key, jnp.zeros((2, 2)), 1.0)))(keys)
    open_gates = np.asarray(g > 0.5).reshape(-1, 4)  # each with probability 1/2
    outcomes = [tuple(np.flatnonzero(row).tolist()) for row in itertools.product((0, 1), repeat=4)]
    accept_counts(counted(open_gates), dict.fromkeys(outcomes, 1 / 16))


def test_the_gradient_of_a_gate_is_0_where_clipped_and_that_of_the_sigmoid_elsewhere():
    tau = 0.7
    beta = jnp.linspace(-3, 3, 5000)
    g, slope = jax.jit(
        lambda beta: (
            gates.hard_concrete(jax.random.key(2), beta, tau),
            jax.grad(lambda beta: gates.hard_concrete(jax.random.key(2), beta, tau).sum())(beta),
        )
    )(beta)
    g, slope = np.asarray(g, np.float64), np.asarray(slope)
    clipped = (g == 0) | (g == 1)
    assert 1000 < clipped.sum() < 4500
    np.testing.assert_array_equal(slope[clipped], 0)
    gbar = (g - A) / (B - A)
    np.testing.assert_allclose(slope[~clipped], ((B - A) * gbar * (1 - gbar) / tau)[~clipped], rtol=1e-4)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    "probability, ratio", [(gates.activation_probability, 1 / 11), (gates.saturation_probability, 11.0)]
)
def test_the_probabilities_are_the_closed_forms(probability, ratio, tau):
    beta = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(probability(jnp.array(beta), tau), logistic(beta - tau * np.log(ratio)), rtol=1e-5)


def test_a_random_choice_takes_two_ops_an_edge_uniformly_and_independently_of_the_other_edges():
    keys = jax.random.split(jax.random.key(3), 20_000)
    chosen = np.asarray(jax.jit(jax.vmap(lambda key: gates.choose_random(key, jnp.ones((2, 5), bool))))(keys))
    assert chosen.shape == (20_000, 2, 5) and chosen.dtype == bool
    assert (chosen.sum(-1) == 2).all()
    both = {
        first + tuple(5 + op for op in second): 1 / 100
        for first in itertools.combinations(range(5), 2)
        for second in itertools.combinations(range(5), 2)
    }
    accept_counts(counted(chosen.reshape(-1, 10)), both)


choose_largest = jax.jit(
    jax.vmap(gates.choose_largest, in_axes=(0, None, None, None, None)), static_argnums=4
)  # the draws of a test share one compilation
KEYS = jax.random.split(jax.random.key(4), 10_000)


@functools.cache
def chosen_largest(edge_gates, drop, k=2):
    """bool[draws, ops]: the choices on one edge, beside another whose gates are in the opposite order."""
    pair = jnp.array([edge_gates[::-1], edge_gates])
    chosen = np.asarray(choose_largest(KEYS, pair, jnp.ones(pair.shape, bool), drop, k))
    assert chosen.dtype == bool and (chosen.sum(-1) == k).all()
    return chosen[:, 1]


def test_without_drops_the_largest_gates_are_chosen():
    distinct = (0.3, 0.0, 1.0, 0.2, 0.7)
    assert set(counted(chosen_largest(distinct, 0.0))) == {(2, 4)}
    assert set(counted(chosen_largest(distinct, 0.0, k=3))) == {(0, 2, 4)}


def test_ties_are_broken_uniformly():
    for tied, ops in (((1.0, 0.4, 1.0, 0.0, 1.0), (0, 2, 4)), ((0.0,) * 5, range(5))):
        pairs = list(itertools.combinations(ops, 2))
        accept_counts(counted(chosen_largest(tied, 0.0)), dict.fromkeys(pairs, 1 / len(pairs)))
    for second in (0, 2, 3, 4):  # the largest is safe, the others share the second place
        assert chosen_largest((0.0, 0.5, 0.0, 0.0, 0.0), 0.0)[:, second].any()


def test_ties_are_broken_by_one_order_for_all_edges():
    """So edges with equal gates choose alike: of 14 edges an op is chosen by all or by none."""
    chosen = gates.choose_largest(jax.random.key(8), jnp.ones((14, 8)), jnp.ones((14, 8), bool), 0.0)
    assert set(np.asarray(chosen).sum(axis=0)) == {0, 14}


# 1 - 1 ties with a gate that was clipped to 0, and a large gate stays ahead of a small one when both are pushed.
@pytest.mark.parametrize("edge_gates", [(1.0, 1.0, 0.7, 0.3, 0.0), (0.0, 1.0, 0.0, 0.0, 0.6), (1.0,) * 5])
def test_with_drops_every_pair_is_chosen_as_often_as_the_released_rule_says(edge_gates):
    law = law_of_the_released_choice(edge_gates, 0.4)
    assert sum(law.values()) == pytest.approx(1)
    accept_counts(counted(chosen_largest(edge_gates, 0.4)), law)


def test_straight_through_is_exactly_0_or_1_with_the_gradient_of_the_gates():
    g = jax.random.uniform(jax.random.key(5), (20, 8))
    chosen = gates.choose_random(jax.random.key(6), jnp.ones(g.shape, bool))
    scale = jax.random.normal(jax.random.key(7), g.shape)
    weights = gates.straight_through(chosen, g)
    np.testing.assert_array_equal(weights, np.asarray(chosen, np.float32))
    slope = jax.grad(lambda g: jnp.sum(scale * gates.straight_through(chosen, g)))(g)
    np.testing.assert_array_equal(np.asarray(slope)[chosen], np.asarray(scale)[chosen])


def drawn_cells(space, candidates, count=20_000):
    choose = jax.jit(jax.vmap(lambda key: gates.choose_cell(key, space, candidates)))
    return np.asarray(choose(jax.random.split(jax.random.key(0), count)))


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


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_cells_drawn_by_weights_follow_them(scale):
    """An op in proportion to its weight, two of three inputs one after another in proportion to their sums."""
    space = spaces.SearchSpace("small", ("skip_connect", "none", "sep_conv_3x3"), nodes=4)
    weights = jnp.array([[1, 9, 3], [0, 1, 2], [1, 0, 1], [0, 2, 1], [2, 0, 1]], float)
    draw = jax.jit(jax.vmap(lambda key: gates.draw_cell(key, space, scale * weights)))
    chosen = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    assert not chosen[:, np.asarray(weights) == 0].any() and not chosen[:, :, 1].any()
    assert chosen[:, :2].any(axis=2).all()
    of_first = chosen[chosen[:, 0].any(axis=1), 0]
    accept_counts(counted(of_first), {(0,): 1 / 4, (2,): 3 / 4})
    strength = {2: 2, 3: 1, 4: 3}
    law = {}
    for first, second in itertools.permutations(strength, 2):
        pair = tuple(sorted((first, second)))
        law[pair] = law.get(pair, 0) + strength[first] / 6 * strength[second] / (6 - strength[first])
    pairs = [tuple((np.flatnonzero(row) + 2).tolist()) for row in chosen[:, 2:].any(axis=2)]
    accept_counts({pair: pairs.count(pair) for pair in law}, law)


def test_cells_of_nas_bench_201_drawn_by_weights_have_an_op_on_each_edge_that_has_a_weight():
    space = spaces.nas_bench_201()
    weights = jnp.ones(space.shape).at[2].set(0).at[0].set(jnp.array([4, 0, 1, 0, 0]))
    draw = jax.jit(jax.vmap(lambda key: gates.draw_cell(key, space, weights)))
    chosen = np.asarray(draw(jax.random.split(jax.random.key(0), 5000)))
    np.testing.assert_array_equal(chosen.sum(axis=2), np.broadcast_to([1, 1, 0, 1, 1, 1], (5000, 6)))
    accept_counts(counted(chosen[:, 0]), {(0,): 4 / 5, (2,): 1 / 5})
    accept_counts(counted(chosen[:, 5]), {(op,): 1 / 5 for op in range(5)})
