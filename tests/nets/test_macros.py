"""The supernet that a space has."""

import dataclasses

import pytest

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
    with pytest.raises(
        ValueError, match=r"has inputs=1 and cell_types=.*, but must have 2 and .* in Supernet; the other"
    ):
        nets.supernet_of(dataclasses.replace(spaces.nas_bench_201(), macro="darts"))
