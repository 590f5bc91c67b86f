"""Costs of ops add up to the size of the network that a cell becomes."""

import numpy as np
import pytest

from prdarts_jax import spaces
from prdarts_jax.nets import costs, sizes
from prdarts_jax.spaces import genotypes, reference_cells


@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize(
    "space, network",
    [
        ("darts", {"channels": 8, "cells": 5, "image_shape": (9, 10, 1), "num_classes": 7}),
        ("darts", {"channels": 8, "cells": 4, "form": "imagenet", "image_shape": (64, 64, 3)}),
        ("s2", {"channels": 4, "cells": 1}),
        ("nas_bench_201", {"channels": 4, "cells": 2, "image_shape": (7, 7, 3)}),
    ],
)
def test_costs_add_up_to_the_size_of_the_network(space, network, kind):
    space, rng = spaces.named(space), np.random.default_rng(0)
    of_space = costs.of_network(space, kind, **network)
    for _ in range(5):
        genotype = reference_cells.random(space, rng)
        assert of_space.of(genotype) == sizes.describe(genotype, **network)[kind]
    assert hash(of_space) == hash(costs.of_network(space, kind, **network))


def test_a_cell_of_another_space_has_no_cost():
    of_space = costs.of_network(spaces.nas_bench_201(), channels=4, cells=1)
    for genotype, message in (
        (
            genotypes.EdgeGenotype(["sep_conv_3x3"] * 6),
            r"op 'sep_conv_3x3' on the edge \(0, 1\) of the normal cell must be one",
        ),
        (genotypes.EdgeGenotype(["skip_connect"] * 10), "must have 4 nodes and .* but has 5 nodes"),
        (genotypes.named("DARTS_V2"), "must be of the type EdgeGenotype in the space nas_bench_201"),
    ):
        with pytest.raises(ValueError, match=message):
            of_space.of(genotype)
    with pytest.raises(ValueError, match="kind='flops' must be one of params, macs, latency"):
        costs.of_network(spaces.nas_bench_201(), "flops")


def test_latencies_are_measured_for_each_op_that_is_executed():
    space = spaces.nas_bench_201()
    of_space = costs.of_network(space, "latency", channels=4, cells=1, image_shape=(4, 4, 3))
    (latencies,) = of_space.arrays().values()
    assert of_space.fixed > 0
    np.testing.assert_array_equal(latencies > 0, [[op != "none" for op in space.ops]] * 6)
