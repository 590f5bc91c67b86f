"""A genotype as data: equal to its discrete network, values, gradients and running statistics; what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import one_genotype
import optax
import pytest
from chex import assert_trees_all_close

from prdarts_jax import ops, spaces
from prdarts_jax.nets import encoded
from prdarts_jax.spaces import genotypes, reference_cells

FIELDS = {"channels": 4, "cells": 3, "num_classes": 5}
IMAGES = (4, 32, 32, 3)
SPACE = spaces.SearchSpace("small", ("max_pool_3x3", "skip_connect", "dil_conv_3x3"), nodes=4)


@pytest.fixture(scope="module")
def network():
    return encoded.network(SPACE, drop_path=True, auxiliary=True, **FIELDS)


@pytest.fixture(scope="module")
def variables(network):
    """Of all ops, each statistic and each scale of its own."""
    drawn = encoded.init_variables(network, jax.random.key(0), IMAGES)
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + generator.uniform(0.05, 0.2, a.shape).astype("f"), drawn)


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(1)
    return {"image": generator.normal(size=IMAGES).astype("f"), "label": generator.integers(0, 5, IMAGES[0])}


def objective(network, drop_path, params, others, batch):
    """As in `train_step`: the loss with the auxiliary head's, and what is updated."""
    logits, updated = network.apply(
        {"params": params, **others},
        batch["image"],
        train=True,
        drop_path=drop_path,
        rngs={"draws": jax.random.key(2), "drop_path": jax.random.key(2)},
        mutable=["batch_stats", "auxiliary"],
    )
    auxiliary = jax.tree.leaves(updated["auxiliary"])
    losses = [optax.softmax_cross_entropy_with_integer_labels(a, batch["label"]).mean() for a in (logits, *auxiliary)]
    return losses[0] + 0.4 * losses[1], (logits, *auxiliary, updated["batch_stats"])


@pytest.fixture(scope="module")
def of_encoded(network):
    """Compiled once for all genotypes: ((loss, aux), gradient), and the logits of a test."""
    gradient = jax.jit(jax.value_and_grad(functools.partial(objective, network, 0.5), has_aux=True))
    return gradient, jax.jit(functools.partial(network.apply, train=False, drop_path=0.5))


@pytest.fixture
def plain_drop_path(monkeypatch):
    """Drop-path that cuts all paths of the images 1 and 2: then the discrete network draws what the other does."""

    def factors(key, probability, shape):
        return jnp.broadcast_to(jnp.where(probability > 0, jnp.array([2.0, 0.0, 0.0, 2.0]), 1.0), shape)

    monkeypatch.setattr(ops, "drop_path_factors", factors)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_equal_to_the_discrete_network(seed, network, variables, batch, of_encoded, plain_drop_path):
    genotype = reference_cells.random(SPACE, np.random.default_rng(seed))
    one = one_genotype.discrete_network(network, genotype)
    own = one_genotype.to_discrete(network, genotype, variables, IMAGES)
    weights = {"genotype": SPACE.encode(genotype)}
    of_all, test_all = of_encoded
    of_one = jax.jit(jax.value_and_grad(functools.partial(objective, one, 0.5), has_aux=True))

    (loss, (logits, auxiliary, stats)), gradient = of_all(
        variables["params"], {"batch_stats": variables["batch_stats"], **weights}, batch
    )
    expected, expected_gradient = of_one(own["params"], {"batch_stats": own["batch_stats"]}, batch)
    found = one_genotype.to_discrete(network, genotype, {"params": gradient, "batch_stats": stats}, IMAGES)
    assert_trees_all_close((loss, (logits, auxiliary, found["batch_stats"])), expected, rtol=1e-5, atol=1e-5)
    assert_trees_all_close(found["params"], expected_gradient, rtol=1e-5, atol=1e-5)
    assert_trees_all_close(
        test_all(variables | weights, batch["image"]),
        jax.jit(functools.partial(one.apply, train=False, drop_path=0.5))(own, batch["image"]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_ops_that_are_not_chosen_stay_as_they_are(network, variables, batch, of_encoded):
    genotype = reference_cells.random(SPACE, np.random.default_rng(0))
    others = {"batch_stats": variables["batch_stats"], "genotype": SPACE.encode(genotype)}
    (_, (_, _, stats)), gradient = of_encoded[0](variables["params"], others, batch)
    zeros = jax.tree.map(np.zeros_like, {"params": gradient, "batch_stats": stats})
    own = one_genotype.to_discrete(network, genotype, {"params": gradient, "batch_stats": stats}, IMAGES)
    # Nothing is left of the gradient once that of the genotype's network is taken out.
    assert_trees_all_close(gradient, one_genotype.from_discrete(network, genotype, own, zeros)["params"], atol=0)
    moved = jax.tree.map(np.subtract, stats, variables["batch_stats"])
    chosen = one_genotype.from_discrete(network, genotype, jax.tree.map(np.ones_like, own), zeros)["batch_stats"]
    assert_trees_all_close(jax.tree.map(lambda a, where: a * (1 - where), moved, chosen), zeros["batch_stats"], atol=0)


def test_weights_move_out_and_in(network, variables):
    genotype = reference_cells.random(SPACE, np.random.default_rng(3))
    own = one_genotype.to_discrete(network, genotype, variables, IMAGES)
    shapes = jax.eval_shape(
        lambda: one_genotype.discrete_network(network, genotype).init(jax.random.key(0), jnp.zeros(IMAGES), train=True)
    )
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, {n: dict(shapes[n]) for n in own})
    blank = jax.tree.map(jnp.zeros_like, variables)
    there_and_back = one_genotype.from_discrete(network, genotype, own, blank)
    assert_trees_all_close(one_genotype.to_discrete(network, genotype, there_and_back, IMAGES), own, atol=0)
    kept = sum(leaf.size for leaf in jax.tree.leaves(own))
    assert sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(there_and_back)) == kept


def test_the_smallest_space_of_a_cell_of_none_alone_has_an_op_that_computes():
    genotype = genotypes.EdgeGenotype(("none",) * 6)
    space = encoded.space_of([genotype])
    assert space.ops == ("none", "skip_connect") and not space.encode(genotype)["normal"].any()


def test_drop_path_spares_identities_alone():
    """Each op on an edge of its own: the mean over many images tells which are cut."""
    for name in SPACE.ops:
        for stride in (1, 2):
            op = ops.candidate(name, channels=2, stride=stride, dropout="nonskip")
            assert ("keep" in op.draws) == ((name, stride) != ("skip_connect", 1))


def test_equal_to_the_discrete_network_of_nas_bench_201(monkeypatch):
    """Values, gradients and running statistics; of the ops that are not chosen there is no gradient."""
    monkeypatch.setattr(
        ops, "drop_path_factors", lambda key, probability, shape: jnp.where(probability > 0, 2.0, 1.0) * jnp.ones(shape)
    )
    space, images = spaces.nas_bench_201(), (2, 8, 8, 3)
    network = encoded.network(space, drop_path=True, channels=2, cells=1, num_classes=3)
    genotype = genotypes.EdgeGenotype(("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "none", "avg_pool_3x3"))
    one, code = one_genotype.discrete_network(network, genotype), {"genotype": space.encode(genotype)}
    rng = np.random.default_rng(0)
    image = rng.normal(size=images).astype("f")
    drawn = encoded.init_variables(network, jax.random.key(0), images)
    variables = jax.tree.map(lambda a: a + rng.uniform(0.05, 0.2, a.shape).astype("f"), drawn)
    own = one_genotype.to_discrete(network, genotype, variables, images)

    def results(network, variables, others):
        def loss(params):
            given = {"params": params, "batch_stats": variables["batch_stats"], **others}
            rngs = {"draws": jax.random.key(2), "drop_path": jax.random.key(2)}
            out, updated = network.apply(given, image, train=True, drop_path=0.5, rngs=rngs, mutable="batch_stats")
            return jnp.sum(jnp.sin(out)), (out, updated["batch_stats"])

        (_, (out, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {"params": gradient, "batch_stats": stats}, out, network.apply(variables | others, image, train=False)

    found = jax.jit(functools.partial(results, network))(variables, code)
    expected = jax.jit(functools.partial(results, one))(own, {})
    of_one = one_genotype.to_discrete(network, genotype, found[0], images)
    assert_trees_all_close((of_one, *found[1:]), expected, rtol=1e-5, atol=1e-5)
    blank = jax.tree.map(jnp.zeros_like, found[0])
    there = one_genotype.from_discrete(network, genotype, of_one, blank)
    assert_trees_all_close(there["params"], found[0]["params"], atol=0)


def test_an_entry_that_is_none_is_no_op():
    """Also where the space has no op `none`, as discretizations fill up a node."""
    filled = dataclasses.replace(GENOTYPE, normal=(("none", 0), *GENOTYPE.normal[1:]))
    weights = SPACE.encode(filled)["normal"]
    assert weights.sum() == len(GENOTYPE.normal) - 1


GENOTYPE = reference_cells.random(SPACE, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (genotypes.EdgeGenotype(("none",)), "must be of the type Genotype in the space small"),
        (
            dataclasses.replace(GENOTYPE, normal_concat=(2,)),
            r"normal cell must have 4 nodes and concatenate \(2, 3\) in",
        ),
        (
            dataclasses.replace(GENOTYPE, normal=(("sep_conv_7x7", 0), *GENOTYPE.normal[1:])),
            r"'sep_conv_7x7' on the edge \(0, 2\) of the normal cell must be one of the space small: ",
        ),
        (
            dataclasses.replace(GENOTYPE, reduce=(("max_pool_3x3", 0),) * 2 + GENOTYPE.reduce[2:]),
            "max_pool_3x3 twice on",
        ),
    ],
)
def test_what_the_space_does_not_have_is_refused(genotype, message):
    with pytest.raises(ValueError, match=message):
        SPACE.encode(genotype)


def test_what_is_no_candidate_of_its_edge_is_refused():
    space = dataclasses.replace(SPACE, edge_ops=(((SPACE.ops[-1],),) * len(SPACE.edges),) * 2)
    with pytest.raises(ValueError, match=f"must be one of the space small: {SPACE.ops[-1]}$"):
        space.encode(GENOTYPE)
    with pytest.raises(ValueError, match="of the normal cell must be one of the space s1: "):
        spaces.s1().encode(genotypes.named("DARTS_V2"))
