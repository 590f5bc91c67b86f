"""Random cells against their distribution, and the cell of skip connections alone."""

import numpy as np
import pytest
from shared import refused, regroup

from prdarts_jax import spaces
from prdarts_jax.spaces import genotypes, reference_cells

NODE_SPACES = [name for name, make in spaces.NAMED.items() if len(make().edges) == 14]
BENCH = spaces.nas_bench_201()


@pytest.mark.parametrize("name", NODE_SPACES)
def test_random_cells_are_valid_uniform_and_a_function_of_the_seed(name):
    space = spaces.named(name)
    cells = [reference_cells.random(space, np.random.default_rng(seed)) for seed in range(300)]
    assert cells[:3] == [reference_cells.random(space, np.random.default_rng(seed)) for seed in range(3)]
    for t in space.cell_types:
        allowed = space.candidates(t)
        drawn = np.zeros(space.shape)
        for cell in cells:
            for op, source, target in genotypes.cells(cell)[t]:
                drawn[space.edges.index((source, target)), space.ops.index(op)] += 1
            for node in range(4):
                (_, a), (_, b) = getattr(cell, t)[2 * node : 2 * node + 2]
                assert a < b < node + 2
        may = allowed & [not op.startswith("none") for op in space.ops]
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
    cells = [reference_cells.random(BENCH, generator) for _ in range(1000)]
    for edge in range(6):
        counts = np.array([sum(cell.ops[edge] == op for cell in cells) for op in BENCH.ops])
        assert ((counts - 200) ** 2 / 200).sum() < 18.5  # of five equally likely: once in a thousand times
    assert len(set(cells)) > 900


@pytest.mark.parametrize("name", ["darts", "darts_no_none", "s2", "s3"])
def test_all_skip(name):
    skip = reference_cells.all_skip(spaces.named(name))
    assert skip.normal == skip.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 4
    assert skip.normal_concat == (2, 3, 4, 5)
    assert reference_cells.all_skip(BENCH).ops == ("skip_connect",) * 6


def test_all_skip_takes_the_edges_that_may_skip():
    ops, pool = ("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)
    edges = (ops, ops, pool, ops, ops)
    space = spaces.SearchSpace("part", ops, nodes=4, edge_ops=(edges, edges))
    assert reference_cells.all_skip(space).normal == tuple(("skip_connect", source) for source in (0, 1, 1, 2))


@pytest.mark.parametrize("name, cell", [("s1", "reduce"), ("s4", "normal")])
def test_a_space_without_such_a_cell_says_so(name, cell):
    with refused(
        f"space {name!r} has no cell of skip connections alone: node 2 of the {cell} cell has 0 edges that may be "
        "a skip connection, but needs 2"
    ):
        reference_cells.all_skip(spaces.named(name))


def test_the_group_of_an_op_decides_and_not_its_name(monkeypatch):
    regroup(monkeypatch, max_pool_3x3="none", avg_pool_3x3="skip")
    space = spaces.SearchSpace("own", ("max_pool_3x3", "none", "avg_pool_3x3"), nodes=4)
    assert reference_cells.all_skip(space).normal == (("avg_pool_3x3", 0), ("avg_pool_3x3", 1)) * 2
    drawn = reference_cells.random(space, np.random.default_rng(0))
    assert {op for op, _ in drawn.normal + drawn.reduce} == {"avg_pool_3x3"}
