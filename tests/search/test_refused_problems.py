"""What does not fit into a search is refused in one sentence: supernets, methods, optimizers, candidates, batches."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import refused

from prdarts_jax import nets, spaces
from prdarts_jax.search import methods
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, cross_entropy, init_search
from prdarts_jax.search.relaxations import AuxiliarySkip, Softmax
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


class Sharp(Softmax):
    """A relaxation that is no dataclass, as a user might write one."""

    def __init__(self, sharpness):
        super().__init__()
        object.__setattr__(self, "sharpness", sharpness)


@dataclasses.dataclass(frozen=True)
class Sharper(Softmax):
    """As it should be; what follows from the fields need not be one."""

    sharpness: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "double", 2 * self.sharpness)

    @functools.cached_property
    def half(self):
        return self.sharpness / 2


@pytest.mark.parametrize(
    "relaxation, name", [(Sharp(2.0), "relaxation"), (AuxiliarySkip(relaxation=Sharp(2.0)), "relaxation.relaxation")]
)
def test_a_part_that_is_equal_to_a_different_one_is_refused(relaxation, name):
    assert Sharp(1.0) == Sharp(2.0)  # so the compiled function of one would be taken for the other
    with pytest.raises(ValueError, match=f"^{name}=.* must have sharpness as fields, .* before the class Sharp$"):
        Method(relaxation=relaxation)


def test_parts_that_differ_in_their_fields_are_different():
    found = [Sharper(sharpness=1.0), Sharper(sharpness=2.0)]
    assert [relaxation.half for relaxation in found] == [0.5, 1.0]
    assert len({Method(relaxation=relaxation) for relaxation in found}) == 2


def test_a_supernet_without_what_its_method_changes_is_refused():
    with refused("supernet=Net must have the field partial, since its method needs partial=4"):
        problem_of(Net(), methods.pc_darts())


def test_layers_are_aligned_in_normal_cells():
    space = dataclasses.replace(SPACE, cell_types=("cell",))
    other = type("Other", (nn.Module,), {"space": space, "layers": {"cell": 1}})()
    with refused("supernet=Other must have cells of the type 'normal', whose gradients its method aligns"):
        problem_of(other, methods.lambda_darts())
    problem_of(Net(), methods.lambda_darts())


@pytest.mark.parametrize(
    "attributes, lacks",
    [
        ({"space": SPACE}, "the attribute layers"),
        ({"layers": {"normal": 1}}, "the attribute space"),
        ({"space": SPACE, "layers": {"reduce": 1}}, "the number of its normal cells in its attribute layers"),
        ({"space": SPACE, "layers": 3}, "the number of its normal cells in its attribute layers"),
    ],
)
def test_a_supernet_without_layers_or_space_is_refused(attributes, lacks):
    with refused(f"supernet=Lacking must have {lacks}"):
        problem_of(type("Lacking", (nn.Module,), attributes)())


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("supernet", Net, "of type Module; did you mean Net"),
        ("weight_optimizer", optax.sgd, "an optimizer of optax, such as"),
        ("weight_optimizer", 0.1, "an optimizer of optax, such as"),
        ("arch_optimizer", None, "an optimizer of optax, such as"),
        ("total_steps", "3", "of type int"),
        ("total_steps", 3.0, "of type int"),
        ("total_steps", 0, "from 1 to"),
        ("loss", "cross_entropy", "of type function"),
    ],
)
def test_a_part_of_another_kind_is_refused(field, value, allowed):
    sgd = optax.sgd(0.1)
    parts = {"supernet": Net(), "method": Method(), "weight_optimizer": sgd, "arch_optimizer": sgd, "total_steps": 1}
    with pytest.raises(ValueError, match=f"^{field}=.* must be {allowed}"):
        SearchProblem(**parts | {field: value})


def test_a_supernet_that_is_not_what_its_method_needs_is_refused():
    fields = {"space": spaces.nas_bench_201(), "channels": 4, "cells": 1, "num_classes": 3}
    needs = "^supernet=Supernet201 has partial=1, but its method needs partial=4$"
    with pytest.raises(ValueError, match=needs):
        problem_of(nets.supernet_of(**fields), methods.pc_darts())
    problem_of(nets.supernet_of(**fields, partial=4), methods.pc_darts())


def test_what_is_no_method_of_one_search_is_refused():
    with pytest.raises(ValueError, match="^method=.* must be of type Method"):
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


def states(candidates=None):
    return init_search(problem_of(Net()), jax.random.key(0), BATCH["image"], candidates)


ALL = np.ones(SPACE.shape, bool)


@pytest.mark.parametrize(
    "candidates, form",
    [
        ({}, "{}"),
        (ALL, "bool[3, 2]"),
        ({"normal": ALL[0]}, "{'normal': bool[2]}"),
        ({"normal": ALL[:1]}, "{'normal': bool[1, 2]}"),
        ({"normal": ALL.astype(float)}, "{'normal': float64[3, 2]}"),
        ({"normal": ALL.tolist()}, "{'normal': list}"),
        ({"normal": ALL, "reduce": ALL}, "{'normal': bool[3, 2], 'reduce': bool[3, 2]}"),
    ],
)
def test_candidates_of_another_form_are_refused(candidates, form):
    with refused(f"candidates={form} must be {{'normal': bool[3, 2]}}"):
        states(candidates)


def test_an_edge_without_a_candidate_is_refused_unless_traced():
    lacking = {"normal": ALL & [[True], [False], [True]]}
    message = (
        "candidates['normal'] must have one or more ops of the space for each edge, but has none for the edge (0, 2)"
    )
    with refused(message):
        states(lacking)
    on_device = jax.tree.map(jnp.asarray, lacking)
    with refused(message):
        jax.eval_shape(lambda: states(on_device))
    jax.eval_shape(states, lacking)


def step_with(train=BATCH, val=BATCH, **fields):
    """The shapes of a step's metrics."""
    problem = SearchProblem(Net(), Method(), optax.sgd(0.1), optax.adam(0.01), 10, **fields)
    state = jax.eval_shape(functools.partial(init_search, problem), jax.random.key(0), BATCH["image"])
    return jax.eval_shape(lambda state: search_step(problem, state, train, val)[1], state)


@pytest.mark.parametrize(
    "batch, form",
    [
        ((BATCH["image"], BATCH["label"]), "tuple"),
        ({"label": BATCH["label"]}, "{'label': int32[2]}"),
        ({"image": jnp.float32(1), "label": 0}, "{'image': float32[], 'label': int}"),
        ({"image": [[1.0, 2.0]]}, "{'image': list}"),
    ],
)
def test_a_batch_without_images_is_refused(batch, form):
    for name in ("train", "val"):
        with refused(f"{name}_batch={form} must be a dict with an 'image', an array [B, ...]"):
            step_with(**{name: batch})


@pytest.mark.parametrize(
    "labels, form",
    [
        (jnp.zeros(2), "float32[2]"),
        (jnp.zeros((2, 3), jnp.int32), "int32[2, 3]"),
        (jnp.zeros((2, 1), jnp.int32), "int32[2, 1]"),
        (jnp.zeros(3, jnp.int32), "int32[3]"),
        ([0, 1], "list"),
    ],
)
def test_labels_of_another_form_are_refused(labels, form):
    for name in ("train", "val"):
        with refused(
            f"batch={{'image': float32[2, 4], 'label': {form}}} must have a 'label' of 2 integers, one for each image"
        ):
            step_with(**{name: BATCH | {"label": labels}})
    with refused("batch={'image': float32[2, 4]} must have a 'label' of 2 integers, one for each image"):
        step_with(val={"image": BATCH["image"]})


def test_labels_without_a_class_make_the_loss_nan():
    logits = jnp.array([[1.0, 2.0, 3.0]])
    for dtype in (jnp.int32, jnp.int8, jnp.uint8):
        found = [cross_entropy(logits, {"label": jnp.full(1, label, dtype)})[0] for label in (0, 2, 3, 100)]
        np.testing.assert_allclose(found, [2.4076059, 0.4076059, np.nan, np.nan])
    for label in (-1, -3, -4, -(2**31)):
        loss, accuracy = cross_entropy(logits, {"label": jnp.array([label])})
        assert np.isnan(loss) and accuracy == 0


def test_a_loss_of_the_users_own_reads_what_it_likes():
    def squared(logits, batch):
        error = jnp.mean((logits - batch["target"]) ** 2)
        return error, -error

    batch = {"image": BATCH["image"], "target": jnp.full((2, 3), 7.0)}
    problem = SearchProblem(Net(), Method(), optax.sgd(0.0), optax.sgd(0.0), 10, loss=squared)
    assert hash(problem) != hash(problem_of(Net()))
    state = init_search(problem, jax.random.key(0), batch["image"])
    _, metrics = search_step(problem, state, batch, batch)
    logits = batch["image"] @ state.params["Dense_0"]["kernel"]
    for half in ("train", "val"):
        np.testing.assert_allclose(metrics[f"{half}_loss"], np.mean((logits - 7) ** 2), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"{half}_accuracy"], -metrics[f"{half}_loss"])


@pytest.mark.parametrize(
    "returned, shapes", [(lambda logits: logits[0, 0], r"\(\)"), (lambda logits: (logits, 0.0), r"\(\(2, 3\), \(\)\)")]
)
def test_a_loss_that_returns_something_else_is_refused(returned, shapes):
    with pytest.raises(
        ValueError, match=rf"^loss=<function .*> must return \(loss, accuracy\), two numbers, but returns {shapes}"
    ):
        step_with(loss=lambda logits, batch: returned(logits))
