"""What the named methods derive from logits, against enumerations and the papers' rules in words."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from shared import logistic, logits_of, softmax_of

from prdarts_jax import spaces
from prdarts_jax.search import methods

CELL_TYPES = spaces.CELL_TYPES
SMALL = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)


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


def two_edges_of_a_node(space, weights):
    """Per edge the best op other than none, then per node the two edges where it is largest."""
    cell = []
    for node in range(2, space.nodes):
        best = [
            max((weights[e, o], op, s) for o, op in enumerate(space.ops) if op != "none")
            for e, (s, target) in enumerate(space.edges)
            if target == node
        ]
        cell += [(op, s) for _, op, s in sorted(best, reverse=True)[:2]]
    return tuple(cell)


def pc_weights(space, beta, edge_beta):
    shares = np.exp(np.asarray(edge_beta, np.float64))
    totals = [sum(shares[i] for i, (_, other) in enumerate(space.edges) if other == t) for _, t in space.edges]
    return softmax_of(beta) * (shares / totals)[:, None]


@pytest.mark.parametrize("distinct_inputs", [True, False])
@pytest.mark.parametrize(
    "name, scores",
    [
        ("pr_darts", logistic),
        ("pr_darts_gates", logistic),
        ("pr_darts_released", softmax_of),
        ("pr_darts_path", softmax_of),
    ],
)
def test_derivation_of_pr_darts(name, scores, distinct_inputs):
    method, space = methods.find(name)(distinct_inputs=distinct_inputs), spaces.darts()
    shared_edges = none_is_largest = 0
    for seed in range(10):
        logits = logits_of(seed, space.shape, scale=2.0)
        found = method.derive(space, logits)
        for t in CELL_TYPES:
            beta = np.asarray(logits[t], np.float64)
            cell = getattr(found, t)
            assert cell == two_of_a_node(space, scores(beta), distinct_inputs)
            shared_edges += sum(a[1] == b[1] for a, b in zip(cell[::2], cell[1::2], strict=True))
            none_is_largest += (beta.argmax(axis=1) == 0).sum()
        assert found.normal_concat == found.reduce_concat == (2, 3, 4, 5)
    assert none_is_largest > 0 and (shared_edges > 0) == (not distinct_inputs)


def test_the_paper_ranks_probabilities_and_the_released_code_the_softmax_of_each_edge():
    logits = dict.fromkeys(CELL_TYPES, jnp.array([[-5.0, 3.0, 2.9], [-5.0, 1.0, -5.0]]))
    names = [name for name in methods.NAMED if "pr_darts" in name]
    found = {name: methods.find(name)(distinct_inputs=False).derive(SMALL, logits).normal for name in names}
    assert found["pr_darts"] == found["pr_darts_gates"] == (("skip_connect", 0), ("sep_conv_3x3", 0))
    assert found["pr_darts_released"] == found["pr_darts_path"] == (("skip_connect", 1), ("skip_connect", 0))


def test_large_logits_are_still_told_apart():
    """Their probabilities all round to 1."""
    logits = {t: jnp.array([[0.0, 40.0, 41.0], [90.0, 43.0, 42.0]]) for t in CELL_TYPES}
    found = methods.pr_darts().derive(SMALL, logits)
    assert found.reduce == (("skip_connect", 1), ("sep_conv_3x3", 0))


def test_darts_pc_darts_and_reinforce_derive_the_two_edges_of_the_largest_weights():
    space, by_ops_alone = spaces.darts(), 0
    for seed in range(10):
        edges = {f"{t}_edges": beta[:, 0] for t, beta in logits_of(seed + 99, space.shape, scale=2.0).items()}
        logits = logits_of(seed, space.shape, scale=2.0) | edges | {"baseline": jnp.float32(1)}
        of_ops, of_both = (methods.find(name)().derive(space, logits) for name in ("darts", "pc_darts"))
        for t in CELL_TYPES:
            assert getattr(of_ops, t) == two_edges_of_a_node(space, softmax_of(logits[t]))
            assert getattr(of_both, t) == two_edges_of_a_node(space, pc_weights(space, logits[t], edges[f"{t}_edges"]))
        assert methods.reinforce().derive(space, logits) == of_ops
        by_ops_alone += of_both == of_ops
    assert by_ops_alone < 10


def test_gdas_derives_the_two_ops_of_the_largest_weights():
    space = spaces.darts()
    logits = logits_of(0, space.shape, scale=2.0)
    found = methods.gdas().derive(space, logits)
    for t in CELL_TYPES:
        assert getattr(found, t) == two_of_a_node(space, softmax_of(logits[t]), distinct_inputs=False)


def test_fair_darts_derives_what_is_above_the_threshold_and_at_most_two_edges_a_node():
    space = dataclasses.replace(SMALL, nodes=4)
    # Edges 02 12 03 13 23; the sigmoids of 1.7 and 1.8 are 0.846 and 0.858.
    beta = jnp.array([[9.0, 1.8, 1.7], [0.0, 1.7, 1.0], [0.0, 2.0, 3.0], [9.0, 4.0, 0.0], [0.0, 2.5, 2.6]])
    found = methods.fair_darts().derive(space, dict.fromkeys(CELL_TYPES, beta))
    assert found.normal == (("skip_connect", 0), ("none", 1), ("skip_connect", 1), ("sep_conv_3x3", 0))
    at_half = methods.fair_darts(threshold=0.5).derive(space, dict.fromkeys(CELL_TYPES, beta))
    assert at_half.reduce == (("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 1), ("sep_conv_3x3", 0))


def test_p_darts_derives_at_most_two_skips_in_the_normal_cell():
    space, skips = spaces.darts(), dict.fromkeys(CELL_TYPES, 0)
    for seed in range(10):
        logits = {t: beta.at[:, 1].add(1.5) for t, beta in logits_of(seed, space.shape).items()}
        found, of_darts = methods.p_darts().derive(space, logits), methods.darts().derive(space, logits)
        assert [op for op, _ in found.normal].count("skip_connect") <= 2 and found.reduce == of_darts.reduce
        kept = {(i // 2, entry) for i, entry in enumerate(of_darts.normal) if entry[0] != "skip_connect"}
        assert kept <= {(i // 2, entry) for i, entry in enumerate(found.normal)}
        for t in CELL_TYPES:
            skips[t] += [op for op, _ in getattr(of_darts, t)].count("skip_connect")
    assert min(skips.values()) > 30
