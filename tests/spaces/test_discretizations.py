"""Discretizations against enumerations and the papers' own wording."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from shared import refused, regroup

from prdarts_jax import spaces
from prdarts_jax.spaces import discretizations, genotypes
from prdarts_jax.spaces.discretizations import above, limited_skips, strongest

NODE_SPACES = [name for name, make in spaces.NAMED.items() if len(make().edges) == 14]
BENCH = spaces.nas_bench_201()
ALL = (strongest(), strongest(distinct_inputs=False), above(0.5), limited_skips(2))


def random_scores(space, seed):
    """Of any sign; `none`, where there is one, is the strongest of all in the normal cell."""
    generator = np.random.default_rng(seed)
    scores = {cell: generator.normal(size=space.shape) for cell in space.cell_types}
    scores["normal"][:, space.op_indices("none")] += 5
    return scores


def offers(space, cell, scores, node):
    """(score, op, source) of everything that the node may take."""
    allowed = space.candidates(cell)
    return [
        (scores[edge][i], op, source)
        for edge, (source, target) in enumerate(space.edges)
        for i, op in enumerate(space.ops)
        if target == node and allowed[edge][i] and not op.startswith("none") and scores[edge][i] != -np.inf
    ]


def entries_of(node, kept):
    """The node's two entries of the offers it keeps: what is missing is `none` from its lowest free inputs."""
    free = sorted(set(range(node)) - {source for _, _, source in kept})
    return [(op, source) for _, op, source in kept] + [("none", source) for source in free[: 2 - len(kept)]]


def brute_force(space, cell, scores, distinct_inputs):
    """Of all sets of at most two offers that leave none free to add, in order, that of the largest sum."""
    entries = []
    for node in range(2, space.nodes):
        candidates = offers(space, cell, scores, node)
        pairs = [
            (first, second)
            for first, second in itertools.permutations(candidates, 2)
            if first[0] > second[0] and not (distinct_inputs and first[2] == second[2])
        ]
        pairs = pairs or [(offer,) for offer in candidates] or [()]
        entries += entries_of(node, max(pairs, key=lambda pair: sum(offer[0] for offer in pair)))
    return tuple(entries)


def darts_rule(space, scores):
    """Best op of every edge, then the two strongest edges of every node, as DARTS words it."""
    entries = []
    for node in range(2, 6):
        rows = [edge for edge, (_, target) in enumerate(space.edges) if target == node]
        best = {edge: 1 + int(np.argmax(scores[edge][1:])) for edge in rows}
        for _ in range(2):
            edge = max(best, key=lambda e: scores[e][best[e]])
            entries.append((space.ops[best.pop(edge)], space.edges[edge][0]))
    return tuple(entries)


def test_they_are_values():
    assert len({*ALL, strongest(True), above(0.5), limited_skips(2)}) == len(ALL)


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("distinct_inputs", [False, True])
def test_strongest_equals_brute_force(name, distinct_inputs):
    space = spaces.named(name)
    for seed in range(5):
        scores = random_scores(space, seed)
        found = strongest(distinct_inputs)(space, scores)
        assert found.normal_concat == found.reduce_concat == (2, 3, 4, 5)
        for cell in ("normal", "reduce"):
            assert getattr(found, cell) == brute_force(space, cell, scores[cell], distinct_inputs)
            if name == "darts" and distinct_inputs:
                assert getattr(found, cell) == darts_rule(space, scores[cell])
            for op, source, target in genotypes.cells(found)[cell]:
                assert space.candidates(cell)[space.edges.index((source, target)), space.ops.index(op)]


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("distinct_inputs", [False, True])
def test_strongest_never_chooses_minus_infinity(name, distinct_inputs):
    space, gaps = spaces.named(name), 0
    for seed in range(10):
        scores = random_scores(space, seed)
        absent = np.random.default_rng(seed).random((2, *space.shape)) < 0.8
        scores = {cell: np.where(absent[i], -np.inf, scores[cell]) for i, cell in enumerate(space.cell_types)}
        found = strongest(distinct_inputs)(space, scores)
        for cell in ("normal", "reduce"):
            assert getattr(found, cell) == brute_force(space, cell, scores[cell], distinct_inputs)
            gaps += sum(op == "none" for op, _ in getattr(found, cell))
    assert gaps > 0
    empty = strongest(distinct_inputs)(space, {cell: np.full(space.shape, -np.inf) for cell in space.cell_types})
    assert empty.normal == empty.reduce == (("none", 0), ("none", 1)) * 4


def test_ties_go_to_the_lower_edge_then_the_lower_op():
    tied = {cell: np.ones((14, 8)) for cell in ("normal", "reduce")}
    free = strongest(distinct_inputs=False)(spaces.darts(), tied)
    assert free.normal == (("skip_connect", 0), ("sep_conv_3x3", 0)) * 4
    distinct = strongest(distinct_inputs=True)(spaces.darts(), tied)
    assert distinct.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 4
    assert strongest()(BENCH, {"normal": np.ones((6, 5))}).ops == ("none",) * 6


@pytest.mark.parametrize("seed", range(5))
def test_a_nas_bench_201_cell_is_the_best_op_of_every_edge(seed):
    scores = np.random.default_rng(seed).normal(size=(6, 5))
    best = genotypes.EdgeGenotype(tuple(max(zip(row, BENCH.ops, strict=True))[1] for row in scores))
    for discretization in (strongest(), strongest(distinct_inputs=False), above(100.0)):
        assert discretization(BENCH, {"normal": jnp.asarray(scores)}) == best


@pytest.mark.parametrize("discretization", ALL, ids=str)
def test_scores_that_cannot_be_ranked_are_refused(discretization):
    scores = random_scores(spaces.darts(), 0)
    with refused("scores['reduce'] has shape (14, 7), but the space 'darts' needs (edges, ops) = (14, 8)"):
        discretization(spaces.darts(), scores | {"reduce": np.zeros((14, 7))})
    with refused("scores must have arrays of the cell types normal, reduce, but lack 'reduce'"):
        discretization(spaces.darts(), {"normal": scores["normal"]})
    scores["normal"][3, 2] = np.nan
    with refused(
        "scores['normal'][3, 2]=nan, but every score must be a number; a search whose logits become nan "
        "needs a smaller config.logits.learning_rate"
    ):
        discretization(spaces.darts(), scores)


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("threshold", [-0.5, 0.85, 1.5, 9.0])
def test_above_keeps_what_passes_the_threshold(name, threshold):
    """Fair DARTS: an edge has its best op if that is above the threshold, a node its two best edges."""
    space = spaces.named(name)
    for seed in range(3):
        scores = random_scores(space, seed)
        found = above(threshold)(space, scores)
        for cell in space.cell_types:
            expected = []
            for node in range(2, 6):
                best = {}
                for offer in offers(space, cell, scores[cell], node):
                    best[offer[2]] = max(best.get(offer[2], offer), offer)
                passing = sorted((offer for offer in best.values() if offer[0] > threshold), reverse=True)
                expected += entries_of(node, passing[:2])
            assert getattr(found, cell) == tuple(expected)
    if threshold == 9:
        assert found.normal == (("none", 0), ("none", 1)) * 4


def test_chosen_ops_are_the_genotype_and_what_is_missing_is_none():
    space = spaces.darts()
    choice = {t: np.zeros(space.shape, bool) for t in space.cell_types}
    skip, conv = space.ops.index("skip_connect"), space.ops.index("sep_conv_3x3")
    choice["normal"][space.edges.index((1, 2)), conv] = True
    choice["normal"][space.edges.index((2, 3)), [skip, conv]] = True
    genotype = discretizations.chosen(space, choice)
    assert genotype.normal[:2] == (("sep_conv_3x3", 1), ("none", 0))
    assert genotype.normal[2:4] == (("skip_connect", 2), ("sep_conv_3x3", 2))
    assert {op for op, _ in genotype.normal[4:] + genotype.reduce} == {"none"}


def test_a_score_at_the_threshold_is_not_above_it():
    scores = {t: np.full((14, 8), 0.85) for t in ("normal", "reduce")}
    scores["normal"][3, 2] = 0.86
    found = above(0.85)(spaces.darts(), scores)
    assert [entry for entry in found.normal if entry[0] != "none"] == [("sep_conv_3x3", 1)]


def skips_of(genotype):
    return sum(op == "skip_connect" for op, _, _ in genotypes.cells(genotype)["normal"])


def removed_one_by_one(space, scores, most):
    """P-DARTS' search for at most `most` skips, with brute force as its derivation: the sequence of cells."""
    scores = scores.copy()
    skip = space.ops.index("skip_connect")
    while True:
        entries = brute_force(space, "normal", scores, True)
        chosen = [(scores[space.edges.index((s, i // 2 + 2)), skip], s, i // 2 + 2) for i, (op, s) in
                  enumerate(entries) if op == "skip_connect"]  # fmt: skip
        if len(chosen) <= most:
            return entries
        _, source, target = min(chosen)
        scores[space.edges.index((source, target)), skip] = -np.inf


@pytest.mark.parametrize("name", [name for name in NODE_SPACES if "skip_connect" in spaces.named(name).ops])
def test_limited_skips_removes_the_weakest_first(name):
    space, changed = spaces.named(name), 0
    for seed, most in itertools.product(range(3), range(4)):
        scores = random_scores(space, seed)
        for cell in space.cell_types:
            scores[cell][:, space.ops.index("skip_connect")] += 1
        before = {cell: scores[cell].copy() for cell in scores}
        plain, found = strongest()(space, scores), limited_skips(most)(space, scores)
        assert found.normal == removed_one_by_one(space, scores["normal"], most)
        assert skips_of(found) <= most and found.reduce == plain.reduce
        changed += found != plain
        for cell in scores:  # the caller's scores stay as they were
            np.testing.assert_array_equal(scores[cell], before[cell])
    assert changed > 0


def test_limited_skips_in_nas_bench_201():
    scores = np.zeros((6, 5))
    scores[:, 1] = (3, 1, 2, 6, 5, 4)
    scores[:, 3] = 0.5
    skip, conv = "skip_connect", "nor_conv_3x3"
    assert limited_skips(2)(BENCH, {"normal": scores}).ops == (conv, conv, conv, skip, skip, conv)
    assert skips_of(limited_skips(0)(BENCH, {"normal": scores})) == 0


def test_limited_skips_stops_where_nothing_else_is_left():
    space = spaces.SearchSpace("skips", ("none", "skip_connect"))
    scores = {t: np.arange(28.0).reshape(14, 2) for t in space.cell_types}
    found = limited_skips(2)(space, scores)
    assert "none" not in {op for op, _ in found.normal} and skips_of(found) == 8
    assert limited_skips(0)(spaces.s4(), random_scores(spaces.s4(), 0))


def test_the_group_of_an_op_decides_and_not_its_name(monkeypatch):
    regroup(monkeypatch, max_pool_3x3="none", avg_pool_3x3="skip")
    space = spaces.SearchSpace("own", ("avg_pool_3x3", "max_pool_3x3", "skip_connect", "sep_conv_3x3"), nodes=3)
    scores = {t: np.array([[3.0, 9.0, 1.0, 0.0], [1.0, 9.0, 4.0, 2.0]]) for t in space.cell_types}
    assert strongest()(space, scores).normal == (("skip_connect", 1), ("avg_pool_3x3", 0))
    assert limited_skips(1)(space, scores).normal == (("skip_connect", 1), ("sep_conv_3x3", 0))
    assert limited_skips(0)(space, scores).normal == (("sep_conv_3x3", 1), ("sep_conv_3x3", 0))
