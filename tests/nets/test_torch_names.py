"""Checkpoints of PyTorch without PyTorch: variables come back, the names of NAS-Bench-201, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_identical

from prdarts_jax import ops
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.spaces import genotypes

CHANNELS, CLASSES = 4, 5


def network_of(name="PRDARTS", form="cifar", auxiliary=True):
    sizes = {"channels": CHANNELS, "cells": 3, "num_classes": CLASSES}
    return discrete.network(genotypes.named(name), form=form, auxiliary=auxiliary, **sizes)


@functools.cache
def shapes_of(name, form, auxiliary):
    shapes = discrete.shapes_of(network_of(name, form, auxiliary), (1, *2 * (32 if form == "cifar" else 224,), 3))
    return {collection: shapes[collection] for collection in ("params", "batch_stats")}


ROUND_TRIPS = (
    ("PRDARTS", "cifar", True),
    ("PRDARTS", "imagenet", True),
    ("PCDARTS_IMAGENET", "imagenet", False),
    ("NASNet", "cifar", False),
    ("AmoebaNet", "cifar", True),
    ("FAIRDARTS_A", "cifar", True),
)


@pytest.mark.parametrize("name, form, auxiliary", ROUND_TRIPS)
def test_variables_come_back_bit_for_bit(name, form, auxiliary):
    leaves, structure = jax.tree.flatten(shapes_of(name, form, auxiliary))
    rng = np.random.default_rng(0)
    variables = structure.unflatten([jnp.abs(rng.normal(size=leaf.shape).astype(np.float32)) for leaf in leaves])
    state = torch_weights.to_torch({**variables, "auxiliary": {}}, network_of(name, form, auxiliary))
    assert_identical(torch_weights.load(state, network_of(name, form, auxiliary)), variables)
    if auxiliary:  # which a network without a head neither reads nor writes
        headless = network_of(name, form, auxiliary=False)
        without = torch_weights.load(state, headless)
        assert set(variables["params"]) - set(without["params"]) == {"auxiliary_head"}
        assert list(torch_weights.to_torch(variables, headless)) == [n for n in state if "auxiliary" not in n]


def test_an_op_without_names_in_pytorch_is_named(own_registry):
    ops.register("mine", group="conv")(ops.find("nor_conv_3x3").build)
    mine = genotypes.Genotype((("mine", 0), ("none", 1)), (2,), (("skip_connect", 0),) * 2, (2,))
    with pytest.raises(ValueError, match="op 'mine' has weights at stride 1 whose names in PyTorch are not registered"):
        torch_weights.load({}, network_of().clone(genotype=mine))


def test_other_arguments_are_refused():
    for convert in (torch_weights.load, torch_weights.to_torch):
        with pytest.raises(ValueError, match="network='PRDARTS' must be of type DiscreteNetwork or DiscreteNetwork201"):
            convert({}, "PRDARTS")
        with pytest.raises(ValueError, match="image_channels=0 must be from 1 to"):
            convert({}, network_of(), image_channels=0)


def test_the_names_of_nas_bench_201_are_the_benchmarks():
    """As its authors' networks have them (one cell a stage, so that cells 1 and 3 are the residual blocks)."""
    cell = genotypes.EdgeGenotype(("nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1"))
    network, shape = discrete.network(cell, channels=4, cells=1, num_classes=CLASSES), (1, 8, 8, 3)
    variables = discrete.init_variables(network, jax.random.key(0), shape)
    state = torch_weights.to_torch(variables, network)
    weights = {"stem.0": (4, 3, 3, 3), "classifier": (CLASSES, 16), "lastact.0": (16,), "stem.1": (4,)}
    for k, c in ((0, 4), (2, 8), (4, 16)):
        weights |= {f"cells.{k}.layers.0.op.1": (c, c, 3, 3), f"cells.{k}.layers.2.op.1": (c, c, 1, 1)}
        weights |= dict.fromkeys((f"cells.{k}.layers.0.op.2", f"cells.{k}.layers.2.op.2"), (c,))
    for k, c in ((1, 4), (3, 8)):
        weights |= {f"cells.{k}.conv_a.op.1": (2 * c, c, 3, 3), f"cells.{k}.conv_b.op.1": (2 * c, 2 * c, 3, 3)}
        weights |= dict.fromkeys((f"cells.{k}.conv_a.op.2", f"cells.{k}.conv_b.op.2"), (2 * c,))
        weights[f"cells.{k}.downsample.1"] = (2 * c, c, 1, 1)
    found = {name.removesuffix(".weight"): array.shape for name, array in state.items() if name.endswith(".weight")}
    assert found == weights
    norms = {name for name, shape in weights.items() if len(shape) == 1}
    assert {name.rpartition(".")[0] for name in state if name.endswith("running_var")} == norms
    assert_identical(torch_weights.load(state, network), variables)
