"""Derivation against enumerations and the papers' own wording."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from prdarts_jax import spaces
from prdarts_jax.spaces import derivation, genotypes

NODE_SPACES = [name for name in spaces.NAMED if name != "nas_bench_201"]
BENCH = spaces.nas_bench_201()


def random_scores(space, seed):
    """Of any sign; `none`, where there is one, is the strongest of all in the normal cell."""
    generator = np.random.default_rng(seed)
    scores = {cell: generator.normal(size=space.shape) for cell in space.cell_types}
    scores["normal"][:, [i for i, op in enumerate(space.ops) if op == "none"]] += 5
    return scores


def offers(space, cell, scores, node):
    """(score, op, source) of everything that the node may take."""
    allowed = space.candidates(cell)
    return [
        (scores[edge][i], op, source)
        for edge, (source, target) in enumerate(space.edges)
        for i, op in enumerate(space.ops)
        if target == node and allowed[edge][i] and op != "none" and scores[edge][i] != -np.inf
    ]


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
        best = max(pairs, key=lambda pair: sum(offer[0] for offer in pair))
        used = [source for _, _, source in best]
        unused = [source for source in range(node) if source not in used]
        entries += [(op, source) for _, op, source in best]
        entries += [("none", source) for source in unused[: 2 - len(best)]]
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


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("distinct_inputs", [False, True])
def test_derive_equals_brute_force(name, distinct_inputs):
    space = spaces.named(name)
    for seed in range(5):
        scores = random_scores(space, seed)
        found = derivation.derive(space, scores, distinct_inputs=distinct_inputs)
        assert found.normal_concat == found.reduce_concat == (2, 3, 4, 5)
        for cell in ("normal", "reduce"):
            assert getattr(found, cell) == brute_force(space, cell, scores[cell], distinct_inputs)
            if name == "darts" and distinct_inputs:
                assert getattr(found, cell) == darts_rule(space, scores[cell])
            for op, source, target in genotypes.cells(found)[cell]:
                assert space.candidates(cell)[space.edges.index((source, target)), space.ops.index(op)]


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("distinct_inputs", [False, True])
def test_derive_never_chooses_minus_infinity(name, distinct_inputs):
    space, gaps = spaces.named(name), 0
    for seed in range(10):
        scores = random_scores(space, seed)
        absent = np.random.default_rng(seed).random((2, *space.shape)) < 0.8
        scores = {cell: np.where(absent[i], -np.inf, scores[cell]) for i, cell in enumerate(space.cell_types)}
        found = derivation.derive(space, scores, distinct_inputs=distinct_inputs)
        for cell in ("normal", "reduce"):
            assert getattr(found, cell) == brute_force(space, cell, scores[cell], distinct_inputs)
            gaps += sum(op == "none" for op, _ in getattr(found, cell))
    assert gaps > 0
    nothing = {cell: np.full(space.shape, -np.inf) for cell in space.cell_types}
    empty = derivation.derive(space, nothing, distinct_inputs=distinct_inputs)
    assert empty.normal == empty.reduce == (("none", 0), ("none", 1)) * 4


def test_derive_lets_two_ops_share_an_edge_only_when_asked():
    scores = np.zeros((14, 8), np.float32)
    scores[1, 2], scores[1, 3], scores[0, 6] = 3, 2, 1
    both = {"normal": jnp.asarray(scores), "reduce": scores.tolist()}
    free = derivation.derive(spaces.darts(), both, distinct_inputs=False)
    assert free.normal[:2] == (("sep_conv_3x3", 1), ("sep_conv_5x5", 1))
    distinct = derivation.derive(spaces.darts(), both, distinct_inputs=True)
    assert distinct.reduce[:2] == (("sep_conv_3x3", 1), ("avg_pool_3x3", 0))


def test_derive_breaks_ties_to_the_lower_edge_then_the_lower_op():
    tied = {cell: np.ones((14, 8)) for cell in ("normal", "reduce")}
    free = derivation.derive(spaces.darts(), tied, distinct_inputs=False)
    assert free.normal == (("skip_connect", 0), ("sep_conv_3x3", 0)) * 4
    distinct = derivation.derive(spaces.darts(), tied, distinct_inputs=True)
    assert distinct.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 4
    assert derivation.derive(BENCH, {"normal": np.ones((6, 5))}, distinct_inputs=True).ops == ("none",) * 6


@pytest.mark.parametrize("seed", range(5))
def test_a_nas_bench_201_cell_is_the_best_op_of_every_edge(seed):
    scores = np.random.default_rng(seed).normal(size=(6, 5))
    best = tuple(max(zip(row, BENCH.ops, strict=True))[1] for row in scores)
    for distinct_inputs in (False, True):
        found = derivation.derive(BENCH, {"normal": jnp.asarray(scores)}, distinct_inputs=distinct_inputs)
        assert found == genotypes.EdgeGenotype(best)
    assert derivation.derive_above(BENCH, {"normal": scores}, 100.0) == found


def test_derive_refuses_scores_it_cannot_rank():
    scores = random_scores(spaces.darts(), 0)
    with pytest.raises(ValueError) as shape:
        derivation.derive(spaces.darts(), scores | {"reduce": np.zeros((14, 7))}, distinct_inputs=True)
    assert str(shape.value) == (
        "scores['reduce'] has shape (14, 7), but the space 'darts' needs (edges, ops) = (14, 8)"
    )
    scores["normal"][3, 2] = np.nan
    message = "scores['normal'][3, 2]=nan, but every score must be a number"
    with pytest.raises(ValueError) as diverged:
        derivation.derive(spaces.darts(), scores, distinct_inputs=True)
    assert str(diverged.value) == message
    with pytest.raises(ValueError) as diverged:
        derivation.derive_above(spaces.darts(), scores, 0.5)
    assert str(diverged.value) == message


def test_a_space_whose_cells_no_genotype_holds_is_refused():
    space = spaces.SearchSpace("wide", ("skip_connect",), nodes=5, entries_per_node=3)
    with pytest.raises(ValueError) as error:
        derivation.derive(space, {t: np.zeros(space.shape) for t in space.cell_types}, distinct_inputs=False)
    assert str(error.value) == "space 'wide' has inputs=2 and entries_per_node=3, but a Genotype has 2 of both"


@pytest.mark.parametrize("name", NODE_SPACES)
@pytest.mark.parametrize("threshold", [-0.5, 0.85, 1.5, 9.0])
def test_derive_above_keeps_what_passes_the_threshold(name, threshold):
    """Fair DARTS: an edge has its best op if that is above the threshold, a node its two best edges."""
    space = spaces.named(name)
    for seed in range(3):
        scores = random_scores(space, seed)
        found = derivation.derive_above(space, scores, threshold)
        for cell in space.cell_types:
            expected = []
            for node in range(2, 6):
                best = {}
                for offer in offers(space, cell, scores[cell], node):
                    best[offer[2]] = max(best.get(offer[2], offer), offer)
                passing = sorted((offer for offer in best.values() if offer[0] > threshold), reverse=True)[:2]
                unused = sorted(set(range(node)) - {source for _, _, source in passing})
                expected += [(op, source) for _, op, source in passing]
                expected += [("none", source) for source in unused[: 2 - len(passing)]]
            assert getattr(found, cell) == tuple(expected)
    if threshold == 9:
        assert found.normal == (("none", 0), ("none", 1)) * 4


def test_a_score_at_the_threshold_is_not_above_it():
    scores = {t: np.full((14, 8), 0.85) for t in ("normal", "reduce")}
    scores["normal"][3, 2] = 0.86
    found = derivation.derive_above(spaces.darts(), scores, 0.85)
    assert [entry for entry in found.normal if entry[0] != "none"] == [("sep_conv_3x3", 1)]


def skips_of(genotype, cell="normal"):
    return sum(op == "skip_connect" for op, _, _ in genotypes.cells(genotype)[cell])


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
def test_limit_skips_removes_the_weakest_first(name):
    space, changed = spaces.named(name), 0
    for seed, most in itertools.product(range(3), range(4)):
        scores = random_scores(space, seed)
        for cell in space.cell_types:
            scores[cell][:, space.ops.index("skip_connect")] += 1
        before = {cell: scores[cell].copy() for cell in scores}
        plain = derivation.derive(space, scores, distinct_inputs=True)
        found = derivation.limit_skips(space, scores, most)
        assert found.normal == removed_one_by_one(space, scores["normal"], most)
        assert skips_of(found) <= most and found.reduce == plain.reduce
        changed += found != plain
        for cell in scores:  # the caller's scores stay as they were
            np.testing.assert_array_equal(scores[cell], before[cell])
    assert changed > 0


def test_limit_skips_in_nas_bench_201():
    scores = np.zeros((6, 5))
    scores[:, 1] = (3, 1, 2, 6, 5, 4)
    scores[:, 3] = 0.5
    found = derivation.limit_skips(BENCH, {"normal": scores}, 2)
    skip, conv = "skip_connect", "nor_conv_3x3"
    assert found.ops == (conv, conv, conv, skip, skip, conv)
    assert skips_of(derivation.limit_skips(BENCH, {"normal": scores}, 0)) == 0


def test_limit_skips_stops_where_nothing_else_is_left():
    space = spaces.SearchSpace("skips", ("none", "skip_connect"))
    scores = {t: np.arange(28.0).reshape(14, 2) for t in space.cell_types}
    found = derivation.limit_skips(space, scores, 2)
    assert "none" not in {op for op, _ in found.normal} and skips_of(found) == 8
    assert derivation.limit_skips(spaces.s4(), random_scores(spaces.s4(), 0), 0)


@pytest.mark.parametrize("name", NODE_SPACES)
def test_random_cells_are_valid_uniform_and_a_function_of_the_seed(name):
    space = spaces.named(name)
    cells = [derivation.random(space, np.random.default_rng(seed)) for seed in range(300)]
    assert cells[:3] == [derivation.random(space, np.random.default_rng(seed)) for seed in range(3)]
    for t in space.cell_types:
        allowed = space.candidates(t)
        drawn = np.zeros(space.shape)
        for cell in cells:
            for op, source, target in genotypes.cells(cell)[t]:
                drawn[space.edges.index((source, target)), space.ops.index(op)] += 1
            for node in range(4):
                (_, a), (_, b) = getattr(cell, t)[2 * node : 2 * node + 2]
                assert a < b < node + 2
        may = allowed & (np.array(space.ops) != "none")
        assert drawn.sum() == 300 * 8 and not drawn[~may].any()
        # an edge of node n is one of two of n; then each of its ops is as likely as the others
        expected = may / may.sum(axis=1, keepdims=True) * [[300 * 2 / target] for _, target in space.edges]
        degrees = may.sum() - 4
        chi_squared = ((drawn - expected)[may] ** 2 / expected[may]).sum()
        assert chi_squared < degrees + 4 * np.sqrt(2 * degrees)
    pairs = [tuple(source for _, source in cell.reduce[6:]) for cell in cells]
    assert len(set(pairs)) == 10  # all pairs of five inputs


def test_random_nas_bench_201_cells_are_uniform_none_among_them():
    generator = np.random.default_rng(0)
    cells = [derivation.random(BENCH, generator) for _ in range(1000)]
    for edge in range(6):
        counts = np.array([sum(cell.ops[edge] == op for cell in cells) for op in BENCH.ops])
        assert ((counts - 200) ** 2 / 200).sum() < 18.5  # of five equally likely: once in a thousand times
    assert len(set(cells)) > 900


@pytest.mark.parametrize("name", ["darts", "darts_no_none", "s2", "s3"])
def test_all_skip(name):
    skip = derivation.all_skip(spaces.named(name))
    assert skip.normal == skip.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 4
    assert skip.normal_concat == (2, 3, 4, 5)
    assert genotypes.skip_share(skip) == {"normal": 1.0, "reduce": 1.0}


def test_all_skip_of_nas_bench_201():
    assert derivation.all_skip(BENCH).ops == ("skip_connect",) * 6


def test_all_skip_takes_the_edges_that_may_skip():
    ops, pool = ("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)
    edges = (ops, ops, pool, ops, ops)
    space = spaces.SearchSpace("part", ops, nodes=4, edge_ops=(edges, edges))
    assert derivation.all_skip(space).normal == tuple(("skip_connect", source) for source in (0, 1, 1, 2))


@pytest.mark.parametrize("name, cell", [("s1", "reduce"), ("s4", "normal")])
def test_a_space_without_such_a_cell_says_so(name, cell):
    with pytest.raises(ValueError) as error:
        derivation.all_skip(spaces.named(name))
    assert str(error.value) == (
        f"space {name!r} has no cell of skip connections alone: node 2 of the {cell} cell has 0 edges that may be "
        "skip_connect, but needs 2"
    )
