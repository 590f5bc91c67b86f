"""Supernets and methods that do not fit together are refused in one sentence."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from prdarts_jax import nets, spaces
from prdarts_jax.search import methods
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_step

SPACE = spaces.SearchSpace("small", ("none", "skip_connect"), nodes=3, inputs=1, cell_types=("normal",))
BATCH = {"image": jnp.ones((2, 4)), "label": jnp.zeros(2, jnp.int32)}


class Net(nn.Module):
    """A supernet that may be wrong."""

    name_of_logits: str = "normal"
    shape: tuple[int, ...] = SPACE.shape
    output: str = "logits"

    space = SPACE

    @property
    def layers(self):
        return {"normal": 1}

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        self.variable("arch", self.name_of_logits, jnp.zeros, self.shape)
        logits = nn.Dense(3)(images)
        return {"logits": logits, "pair": (logits, logits), "flat": logits[:, 0], "half": jnp.bfloat16(logits)}[
            self.output
        ]


def problem_of(supernet, method=None):
    return SearchProblem(supernet, method or methods.darts(), optax.sgd(0.1), optax.adam(0.01), 10)


def step(supernet):
    problem = problem_of(supernet)
    state = init_search(problem, jax.random.key(0), BATCH["image"])
    return search_step(problem, state, BATCH, BATCH)


@pytest.mark.parametrize(
    "supernet, message",
    [
        (SimpleNamespace(space=SPACE), "supernet=SimpleNamespace must have the attribute layers"),
        (SimpleNamespace(layers={"normal": 1}), "supernet=SimpleNamespace must have the attribute space"),
        (
            SimpleNamespace(space=SPACE, layers={"reduce": 1}),
            "supernet=SimpleNamespace must have the number of its normal cells in its attribute layers",
        ),
        (
            SimpleNamespace(space=SPACE, layers=3),
            "supernet=SimpleNamespace must have the number of its normal cells in its attribute layers",
        ),
    ],
)
def test_a_supernet_without_layers_or_space_is_refused(supernet, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        problem_of(supernet)


def test_a_supernet_that_is_not_what_its_method_needs_is_refused():
    fields = {"space": spaces.nas_bench_201(), "channels": 4, "cells": 1, "num_classes": 3}
    needs = "^supernet=Supernet201 has partial=1, but its method needs partial=4$"
    with pytest.raises(ValueError, match=needs):
        problem_of(nets.supernet_of(**fields), methods.pc_darts())
    problem_of(nets.supernet_of(**fields, partial=4), methods.pc_darts())


def test_what_is_no_method_of_one_search_is_refused():
    with pytest.raises(ValueError, match="^method=.* must be a Method, such as "):
        problem_of(Net(), methods.darts)
    with pytest.raises(ValueError, match=r"^stages=\(Method\(.* must be Stages, such as Stage\(method, ops=4\)$"):
        Method(stages=(methods.darts(),))
    with pytest.raises(ValueError, match="^method has 3 stages: make a SearchProblem of each of their methods$"):
        problem_of(Net(), methods.p_darts())


@pytest.mark.parametrize("fields", [{"name_of_logits": "beta"}, {"shape": (2, 2)}])
def test_logits_of_another_name_or_shape_are_refused(fields):
    with pytest.raises(
        ValueError, match=r"^supernet=Net must have logits of the shape \(3, 2\) .* for normal, but has "
    ):
        step(Net(**fields))


@pytest.mark.parametrize("output, returns", [("pair", r"\(\(2, 3\), \(2, 3\)\)"), ("flat", r"\(2,\)")])
def test_an_output_that_is_no_class_logits_is_refused(output, returns):
    with pytest.raises(
        ValueError, match=rf"^supernet=Net must return class logits \[B, classes\], but returns {returns}"
    ):
        step(Net(output=output))


def test_losses_of_half_precision_are_float32():
    _, metrics = step(Net(output="half"))
    assert {name: metric.dtype for name, metric in metrics.items()} == dict.fromkeys(metrics, jnp.float32)
