"""The cost term: the cost of the cell that would be derived, with the slope of what drawn cells cost on average."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import refused

from prdarts_jax import ops, spaces
from prdarts_jax.nets import costs
from prdarts_jax.search import gates, terms
from prdarts_jax.spaces import SearchSpace, discretizations, genotypes

SMALL = SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=4)
# Two of the edges into the last node have only `none`.
FEW = SearchSpace("few", SMALL.ops, nodes=4, edge_ops=(3 * (SMALL.ops,) + 2 * (("none",),),) * 2)
OF_SPACE = {
    space.name: costs.of_network(space, channels=4, cells=3, image_shape=(8, 8, 3))
    for space in (SMALL, spaces.s2(), spaces.nas_bench_201())
}


def logits_of(space, seed):
    rng = np.random.default_rng(seed)
    values = {t: rng.normal(size=space.shape).astype(np.float32) for t in space.cell_types}
    return {t: np.where(space.candidates(t), a, -np.inf) for t, a in values.items()}


def softmax(logits):
    return {t: jax.nn.softmax(jnp.asarray(a)) for t, a in logits.items()}


def value(term, space, logits):
    return term(terms.View(space, logits, softmax(logits), jnp.float32(0)), None, jnp.float32(0))


def mean_of_draws(space, activation, of_space):
    """Over all entries that a node may draw, or ops that an edge may, each with its probability."""
    total = of_space.fixed
    for t, cost in of_space.arrays().items():
        weights = np.array(activation[t], np.float64)
        places = [[edge] for edge in range(len(space.edges))]
        if space.entries_per_node:
            nodes = range(space.inputs, space.nodes)
            places = [[e for e, (_, target) in enumerate(space.edges) if target == node] for node in nodes]
        for edges in places:
            drawn = list(itertools.product(edges, range(len(space.ops))))
            if space.entries_per_node:
                drawn = [(edge, op) for edge, op in drawn if ops.group(space.ops[op]) != "none"]
            chances = np.array([weights[at] for at in drawn])
            mean = np.dot(chances, [cost[at] for at in drawn]) / chances.sum()
            total += mean * (space.entries_per_node or 1)
    return total


@pytest.mark.parametrize("space", [SMALL, spaces.s2(), spaces.nas_bench_201()], ids=lambda space: space.name)
def test_it_is_the_excess_of_the_derived_cell_and_its_slope_that_of_the_mean_of_drawn_cells(space):
    of_space = OF_SPACE[space.name]
    for seed in range(2):
        logits = logits_of(space, seed)
        derived = of_space.of(discretizations.strongest()(space, softmax(logits)))
        expected = mean_of_draws(space, softmax(logits), of_space)
        target = derived / 1.25
        term = terms.expected_cost(2.0, target, of_space)
        found, metrics = value(term, space, logits)
        assert found == pytest.approx(2.0 * 0.25, rel=1e-5)
        assert metrics["cost"] == pytest.approx(derived, rel=1e-5)
        assert metrics["expected_cost"] == pytest.approx(expected, rel=1e-5)

        slope = jax.grad(lambda logits, term=term: value(term, space, logits)[0])(logits)
        rng, step = np.random.default_rng(seed), 1e-2
        for t in space.cell_types:
            direction = np.where(np.isfinite(logits[t]), rng.normal(size=space.shape), 0.0).astype(np.float32)
            ends = [
                mean_of_draws(space, softmax(logits | {t: logits[t] + h * direction}), of_space) for h in (step, -step)
            ]
            central = 2.0 * (ends[0] - ends[1]) / (2 * step * target)
            assert np.vdot(slope[t], direction) == pytest.approx(central, rel=2e-2, abs=1e-4)

        within, _ = value(terms.expected_cost(2.0, derived * 1.001, of_space), space, logits)
        flat = jax.grad(lambda logits: value(terms.expected_cost(2.0, derived * 1.001, of_space), space, logits)[0])  # noqa: B023
        assert within == 0 and all((a == 0).all() for a in flat(logits).values())


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("space", [SMALL, FEW, spaces.darts(), spaces.nas_bench_201()], ids=lambda space: space.name)
def test_the_strongest_ops_are_those_of_the_derived_cell(space, distinct):
    rng = np.random.default_rng(0)
    score = np.where(space.candidates("normal"), rng.normal(size=(20, *space.shape)), -np.inf).astype(np.float32)
    kept = jax.vmap(lambda score: gates.strongest_ops(space, score, distinct))(score)
    for one, found in zip(score, np.asarray(kept), strict=True):
        scores = dict.fromkeys(space.cell_types, one)
        chosen = discretizations.chosen(space, dict.fromkeys(space.cell_types, found))
        # Both list a node's entries by falling score, or op and edge; the order says nothing of the cost.
        assert entries(chosen) == entries(discretizations.strongest(distinct_inputs=distinct)(space, scores))


def entries(genotype):
    return {t: sorted(of_type) for t, of_type in genotypes.cells(genotype).items()}


@pytest.mark.parametrize(
    "field, value, others",
    [
        ("ops", "('none', 'sep_conv_3x3', 'skip_connect')", {"ops": ("none", "sep_conv_3x3", "skip_connect")}),
        ("nodes", "5", {"nodes": 5}),
        ("cell_types", "('normal',)", {"cell_types": ("normal",)}),
    ],
)
def test_costs_of_another_space_are_refused(field, value, others):
    space = dataclasses.replace(SMALL, **others)
    message = f"costs.space.{field}={getattr(SMALL, field)} must be {value}, as in the space of the search"
    with refused(message):
        terms.expected_cost(1.0, 1.0, OF_SPACE["small"])(terms.View(space, {}, {}, None), {}, None)
