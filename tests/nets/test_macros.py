"""The supernet that a space has, and what supernets refuse."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from shared import refused

from prdarts_jax import nets, spaces


def test_a_space_names_its_supernet_and_fields_that_this_one_lacks_are_left_out():
    fields = {"channels": 4, "cells": 2, "head_norm": True}
    assert nets.supernet_of(spaces.s2(), **fields) == nets.Supernet(spaces.s2(), **fields)
    found = nets.supernet_of(spaces.nas_bench_201(), **fields)
    assert found == nets.Supernet201(spaces.nas_bench_201(), channels=4, cells=2)
    assert found.layers == {"normal": 6}


def test_unknown_macros_and_fields_are_refused():
    with pytest.raises(ValueError, match="space.macro='tower' must be one of darts, nas_bench_201"):
        nets.supernet_of(dataclasses.replace(spaces.s2(), macro="tower"))
    with pytest.raises(ValueError, match="fields chanels must be of a supernet"):
        nets.supernet_of(spaces.s2(), chanels=4)
    with refused(
        "space 'nas_bench_201', whose cells are EdgeGenotypes, must be given to pdx.Supernet201 "
        "(macro='nas_bench_201') and not to Supernet"
    ):
        nets.supernet_of(dataclasses.replace(spaces.nas_bench_201(), macro="darts"))
    with refused(
        "space 's2', whose cells are Genotypes, must be given to pdx.Supernet (macro='darts') and not to Supernet201"
    ):
        nets.Supernet201(spaces.s2())


@pytest.mark.parametrize(
    "supernet, fields",
    [
        (nets.Supernet, {"entries_per_node": 1}),
        (nets.Supernet, {"entries_per_node": 0}),
        (nets.Supernet, {"inputs": 3}),
        (nets.Supernet201, {"inputs": 1, "cell_types": ("normal",)}),
    ],
)
def test_a_space_whose_cells_no_genotype_describes_is_refused(supernet, fields):
    with pytest.raises(ValueError, match="^space 's2' has inputs=.*, but must have 2, 2 and .* or 1, 0 and .* for an"):
        supernet(dataclasses.replace(spaces.s2(), **fields))


@pytest.mark.parametrize("supernet", [nets.Supernet, nets.Supernet201])
@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("channels", "4", "of type int"),
        ("channels", 2.5, "of type int"),
        ("channels", 0, "from 1 to"),
        ("num_classes", 0, "from 1 to"),
        ("cells", 0, "from 1 to"),
        ("cells", -1, "from 1 to"),
        ("cells", "1", "of type int"),
        ("partial", 0, "from 1 to"),
        ("dtype", jnp.float16, "float32 or bfloat16"),
        ("dtype", np.dtype("float64"), "float32 or bfloat16"),
        ("dtype", "float64", "float32 or bfloat16"),
        ("dtype", None, "of type "),
        ("space", "darts", "of type SearchSpace"),
    ],
)
def test_fields_of_another_kind_are_refused(supernet, field, value, allowed):
    with pytest.raises(ValueError, match=f"^{field}=.* must be {allowed}"):
        supernet(**{field: value})


def test_a_supernet_takes_each_form_of_its_dtypes():
    for dtype in (jnp.float32, np.float32, np.dtype("float32"), "bfloat16", jnp.bfloat16, jnp.dtype(jnp.bfloat16)):
        assert nets.Supernet(dtype=dtype).clone(channels=np.int64(2)).channels == 2
