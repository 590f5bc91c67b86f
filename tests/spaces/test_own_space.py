"""Spaces of the user's own topology go through all that this package does with a space."""

import dataclasses

import numpy as np
import pytest

from prdarts_jax import spaces
from prdarts_jax.spaces import discretizations, genotypes, reference_cells, tabular

EDGES = spaces.SearchSpace(
    "five_nodes",
    ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"),
    nodes=5,
    inputs=1,
    cell_types=("normal",),
    entries_per_node=0,
    macro="nas_bench_201",
)
ENTRIES = spaces.SearchSpace("two_nodes", ("skip_connect", "nor_conv_3x3", "noise"), nodes=4)
SPACES = (EDGES, dataclasses.replace(EDGES, name="two_nodes", nodes=2), ENTRIES)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}_{space.nodes}")
def test_random_cells_strongest_ops_and_their_json(space, tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(20):
        cell = reference_cells.random(space, generator)
        assert isinstance(cell, space.genotype_class)
        (tmp_path / "genotype.json").write_text(genotypes.to_json(cell))
        assert genotypes.load(tmp_path / "genotype.json") == genotypes.find(genotypes.to_json(cell)) == cell
        scores = {t: generator.normal(size=space.shape) for t in space.cell_types}
        for cell_type, entries in genotypes.cells(cell).items():
            for op, source, target in entries:
                scores[cell_type][space.edges.index((source, target)), space.ops.index(op)] += 100
        assert entries_of(discretizations.strongest()(space, scores)) == entries_of(cell)
        assert set(genotypes.depth(cell)) == set(genotypes.skip_share(cell)) == set(space.cell_types)
    assert set(genotypes.skip_share(reference_cells.all_skip(space)).values()) == {1.0}
    assert genotypes.depth(reference_cells.all_skip(space))["normal"] == (space.nodes - 1 if space.inputs == 1 else 1)
    assert not tabular.covers(space)


def entries_of(genotype):
    """Without the order of a node's entries."""
    return {t: set(entries) for t, entries in genotypes.cells(genotype).items()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 2}, "must have ops, inputs and more nodes than inputs, but has ops=.*, inputs=2 and nodes=2"),
        ({"ops": ()}, "must have ops, inputs and more nodes than inputs, but has ops=.., inputs=2"),
        (
            {"edge_ops": (((("none",),) * 3),)},
            "must have the candidates of each of 5 edges for each of 2 cell types",
        ),
    ],
)
def test_a_space_that_is_none_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ENTRIES, **fields)
