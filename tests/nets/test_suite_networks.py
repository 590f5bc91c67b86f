"""What the spaces of confopt's suite need of networks: a skip connection beside every op, last nodes, any width."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import one_genotype
import pytest

from prdarts_jax import spaces
from prdarts_jax.nets import encoded, executor, sizes
from prdarts_jax.nets.program import EdgeGroup
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.spaces import genotypes, reference_cells

OPS = ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3")


def test_beside_every_op_the_sum_has_a_skip_connection_of_weight_1():
    """The op `none` included: its weight takes nothing from the skip connection."""
    edges = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    plain, beside = (
        EdgeGroup(edges, names, channels=3, stride=1, pool_norm=True)
        for names in (OPS, tuple(f"{op}_with_skip" for op in OPS))
    )
    params = plain.init_params(jax.random.key(0))
    states = jnp.zeros((4, 2, 6, 6, 3)).at[:2].set(jax.random.normal(jax.random.key(1), (2, 2, 6, 6, 3)))
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(2), (5, 4)))
    expected, _ = executor.execute(plain, params, None, None, states, weights.at[:, 1].add(1))
    named = {f"{op}_with_skip": of_op for op, of_op in params.items()}
    found, _ = executor.execute(beside, named, None, None, states, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_network_of_last_nodes_and_odd_width_is_that_of_its_genotype():
    ops = tuple(f"{op}_with_skip" for op in OPS)
    space = spaces.SearchSpace("small", ops, nodes=5, outputs=2)
    network = encoded.network(space, channels=3, cells=3, num_classes=5)
    genotype = reference_cells.random(space, np.random.default_rng(0))
    assert genotype.normal_concat == genotype.reduce_concat == (3, 4)
    assert encoded.space_of([genotype]).concat == space.concat == (3, 4)
    shape = (4, 9, 8, 3)
    drawn = encoded.init_variables(network, jax.random.key(0), shape)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: a + rng.uniform(0.05, 0.2, a.shape).astype("f"), drawn)
    images = jax.random.normal(jax.random.key(1), shape)
    one = one_genotype.discrete_network(network, genotype)
    own = one_genotype.to_discrete(network, genotype, variables, shape)
    given = variables | {"genotype": space.encode(genotype)}
    for train in (True, False):
        expected = jax.jit(functools.partial(one.apply, train=train, mutable=["batch_stats"]))(own, images)
        found = jax.jit(functools.partial(network.apply, train=train, mutable=["batch_stats"]))(given, images)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    assert one.channels == 3 and expected[0].shape == (4, 5)
    others = dataclasses.replace(genotype, normal_concat=(2, 3, 4))
    with pytest.raises(ValueError, match=r"normal cell must have 5 nodes and concatenate \(3, 4\) in the space small"):
        space.encode(others)


# Numbers of weights, counted in the networks of confopt's code at commit 13bde40 --------------------------------------

NETWORKS = {"deep": ("darts", 7, 18), "wide": ("darts", 18, 4), "single_cell": ("single_cell", 26, 1)}
SUPERNETS = {
    "deep": {"": 991_392, "_no_skip": 983_552, "_all_skip": 999_232},
    "wide": {"": 1_399_168, "_no_skip": 1_347_328, "_all_skip": 1_451_008},
    "single_cell": {"": 1_002_960, "_no_skip": 959_696, "_all_skip": 1_046_224},
}
ENTRIES = (
    *(("skip_connect", 0), ("dil_conv_3x3", 0), ("dil_conv_3x3", 2), ("dil_conv_5x5", 1)),
    *(("sep_conv_3x3", 3), ("sep_conv_3x3", 2), ("sep_conv_5x5", 0), ("skip_connect", 3)),
    *(("skip_connect", 5), ("dil_conv_3x3", 1), ("dil_conv_3x3", 6), ("dil_conv_5x5", 5)),
    *(("sep_conv_3x3", 0), ("sep_conv_3x3", 6), ("sep_conv_5x5", 8), ("skip_connect", 1)),
)
POOLS = (("max_pool_3x3", 0), ("avg_pool_3x3", 1)) * 4


@pytest.mark.parametrize("name", SUPERNETS)
def test_supernets_have_as_many_weights_as_there(name):
    """But where an edge halves the image, each of eight ops has a skip connection, and there they have one together."""
    space, channels, cells = NETWORKS[name]
    for suffix, count in SUPERNETS[name].items():
        net = Supernet(spaces.named(space + suffix), channels=channels, cells=cells)
        init = functools.partial(net.init, train=True)
        params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))["params"]
        halving = sum(source < 2 for source, _ in net.space.edges)
        widths = [2 * channels, 4 * channels][: net.layers["reduce"]]
        more = 7 * halving * sum(width**2 for width in widths) if suffix == "_all_skip" else 0
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count + more


@pytest.mark.parametrize(
    "name, entries, suffix, count",
    [
        ("deep", ENTRIES[:8], "", 146_128),
        ("deep", ENTRIES[:8], "_with_skip", 150_384),
        ("deep", POOLS, "_with_skip", 59_496),
        ("wide", ENTRIES[:8], "", 202_078),
        ("wide", ENTRIES[:8], "_with_skip", 228_862),
        ("single_cell", ENTRIES, "", 82_248),
        ("single_cell", ENTRIES, "_with_skip", 101_904),
    ],
)
def test_networks_of_cells_have_as_many_weights_as_there(name, entries, suffix, count):
    space, channels, cells = NETWORKS[name]
    entries, concat = tuple((op + suffix, source) for op, source in entries), spaces.named(space).concat
    genotype = genotypes.Genotype(entries, concat, entries, concat)
    assert sizes.describe(genotype, channels=channels, cells=cells)["params"] == count
