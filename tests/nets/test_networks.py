"""Discrete networks: their published sizes, what drop-path and the auxiliary head do, and which statistics count."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import prdarts_jax
from prdarts_jax import ops, spaces
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, encoded, sizes
from prdarts_jax.nets.layers import AuxiliaryHead, Layer
from prdarts_jax.nets.program import EdgeGroup
from prdarts_jax.spaces import genotypes

# Zhou et al. (2020) and Liu et al. (2019): what the authors' PyTorch networks have, counted there.
PUBLISHED = {
    "PRDARTS": (3444814, 476426, 529769088, 4981312, 1262312, 543374400),
    "DARTS_V1": (3169414, 476426, 500987520, 4510432, 1262312, 505864704),
    "DARTS_V2": (3349342, 476426, 528359040, 4718752, 1262312, 529911552),
}
MIXED = genotypes.Genotype(
    (("skip_connect", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 2), ("skip_connect", 1)),
    (2, 3),
    (("skip_connect", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2), ("skip_connect", 2)),
    (3,),
)
TINY = {"channels": 4, "cells": 3, "num_classes": 5}


@pytest.mark.parametrize("name", ("PRDARTS", "DARTS_V2", pytest.param("DARTS_V1", marks=pytest.mark.slow)))
def test_sizes_are_those_published(name):
    genotype = genotypes.named(name)
    cifar, imagenet = prdarts_jax.describe(genotype), prdarts_jax.describe(genotype, "imagenet")
    assert (*cifar.values(), *imagenet.values()) == PUBLISHED[name]


def test_sizes_for_cifar_100_are_those_published():
    assert prdarts_jax.describe(genotypes.named("PRDARTS"), num_classes=100)["params"] == 3496744


def test_size_of_a_nas_bench_201_network_is_that_of_the_benchmark():
    """The largest of its networks has 1.531546 million weights and 220.12 million multiply-adds there."""
    size = prdarts_jax.describe(genotypes.EdgeGenotype(("nor_conv_3x3",) * 6))
    assert size["params"] == 1_531_546 and round(size["macs"] / 1e6, 2) == 220.12


def test_a_nas_bench_201_network_has_the_weights_that_are_described():
    cell = genotypes.EdgeGenotype(("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "none", "avg_pool_3x3", "none"))
    for fields in ({}, {"channels": 4, "cells": 2, "num_classes": 3}):
        network = prdarts_jax.network(cell, **fields)
        shapes = discrete.shapes_of(network, (1, 32, 32, 3))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        assert count == prdarts_jax.describe(cell, **fields)["params"]
    with pytest.raises(
        ValueError, match="form='imagenet' and auxiliary=False must be 'cifar' and False for the network"
    ):
        prdarts_jax.network(cell, form="imagenet")


def test_multiply_adds_of_the_other_ops():
    """NASNet's ops by the formula k l C D per output position (C = 8, 1 reduction cell of 16 px to 8 px)."""
    genotype = genotypes.Genotype(
        (("sep_conv_7x7", 0), ("skip_connect", 1)), (2,), (("sep_conv_7x7", 0), ("conv_7x1_1x7", 1)), (2,)
    )
    found = sizes.describe(genotype, channels=8, cells=1, num_classes=3, image_shape=(16, 16, 3))["macs"]
    c, inside, out = 16, 16 * 16, 8 * 8
    stem, preprocess = 9 * 3 * 24 * inside, 2 * 24 * c * inside
    sep = 2 * (49 * c + c * c) * out
    row, column = 7 * c * c * 16 * 8, 7 * c * c * out  # the first halves the columns, the second the rows
    assert found == stem + preprocess + sep + row + column + c * 3


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form='mnist' must be one of cifar, imagenet"):
        discrete.network(MIXED, form="mnist")


@functools.cache
def built(form="cifar", **fields):
    network = discrete.network(MIXED, form=form, **TINY, **dict(fields))
    images = jax.random.normal(jax.random.key(1), (6, 32, 32, 3))
    return network, discrete.init_variables(network, jax.random.key(0), images.shape), images


@functools.cache
def compiled(network, **options):
    return jax.jit(functools.partial(network.apply, **options))


def apply(network, variables, images, **options):
    return compiled(network, **options)(variables, images)


def test_variables_from_one_draw_are_those_of_init():
    network, found, images = built(auxiliary=True)
    variables = jax.jit(functools.partial(network.init, train=True))(jax.random.key(4), images)
    variables = {name: variables[name] for name in found}
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(variables), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
        if a.ndim == 1:
            np.testing.assert_array_equal(a, b)
        else:  # both uniform up to 1 / sqrt(fan-in)
            limit = 1 / np.sqrt(np.prod(a.shape[:-1]))
            assert max(np.abs(a).max(), np.abs(b).max()) <= limit * (1 + 1e-6)
            if a.size >= 100:
                assert scipy.stats.kstest(np.asarray(a).ravel(), "uniform", (-limit, 2 * limit)).pvalue > 1e-5
                assert scipy.stats.kstest(np.asarray(b).ravel(), "uniform", (-limit, 2 * limit)).pvalue > 1e-5


@pytest.mark.parametrize("form", discrete.FORMS)
def test_in_testing_an_image_is_classified_by_itself(form):
    network, variables, images = built(form)
    logits = apply(network, variables, images, train=False)
    among_others = apply(network, variables, jnp.roll(3 * images, 1, axis=0).at[2].set(images[2]), train=False)
    assert logits.shape == (6, 5) and jnp.abs(logits - among_others)[3:].max() > 1e-3
    np.testing.assert_allclose(logits[2], among_others[2], rtol=1e-4, atol=1e-5)


def test_in_training_the_batch_counts_and_running_statistics_move():
    network, variables, images = built()
    logits, updated = apply(network, variables, images, train=True, mutable="batch_stats")
    other = apply(network, variables, images.at[3:].multiply(3), train=True, mutable="batch_stats")[0]
    assert np.abs(logits - other)[:3].max() > 1e-3
    stem = jax.lax.conv(
        images.transpose(0, 3, 1, 2), variables["params"]["stem_conv_0"]["kernel"].transpose(3, 2, 0, 1), (1, 1), "SAME"
    )
    moments = updated["batch_stats"]["stem_norm_0"]["moments"]
    np.testing.assert_allclose(moments["mean"], 0.1 * stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moments["var"], 0.9 + 0.1 * stem.var((0, 2, 3), ddof=1), rtol=1e-3)


def test_the_auxiliary_head_speaks_in_training_only_and_leaves_the_logits_alone():
    network, variables, images = built(auxiliary=True)
    plain = network.clone(auxiliary=False)
    logits, updated = apply(network, variables, images, train=True, mutable=("batch_stats", "auxiliary"))
    assert updated["auxiliary"]["logits"].shape == (6, 5)
    np.testing.assert_array_equal(logits, apply(plain, variables, images, train=True, mutable="batch_stats")[0])
    tested, updated = apply(network, variables, images, train=False, mutable="auxiliary")
    assert "auxiliary" not in updated
    np.testing.assert_array_equal(tested, apply(plain, variables, images, train=False))


@pytest.mark.parametrize("height, width", [(8, 8), (7, 7), (16, 13), (2, 5)])
def test_the_auxiliary_head_sees_every_pixel_of_features_of_any_size(height, width):
    head = AuxiliaryHead(3, jnp.float32, None)
    x = jax.random.uniform(jax.random.key(0), (2, height, width, 4))

    @jax.jit
    def slopes(x):
        variables = head.init(jax.random.key(1), x, train=True)
        return jax.grad(lambda x: head.apply(variables, x, train=False)[:, 0].sum())(x)

    assert (slopes(x) != 0).any(axis=(0, 3)).all()


def test_the_auxiliary_head_refuses_features_of_one_pixel():
    network = discrete.network(MIXED, **TINY, auxiliary=True)
    with pytest.raises(ValueError, match="auxiliary head needs features of 2x2 pixels or more, but these have 1x1"):
        jax.eval_shape(functools.partial(network.init, train=True), jax.random.key(0), jnp.zeros((2, 4, 4, 3)))
    assert sizes.describe(MIXED, **TINY, image_shape=(4, 4, 3))["aux_params"] == 0


class Cells(nn.Module):
    """Both cells of a genotype on the same inputs, paths multiplied by what is given."""

    @nn.compact
    def __call__(self, s, keep):
        shared = {"channels": 4, "reduction_before": False, "axis_name": None}
        normal = discrete.DiscreteCell(MIXED.normal, MIXED.normal_concat, reduction=False, **shared, name="normal")
        reduce = discrete.DiscreteCell(MIXED.reduce, MIXED.reduce_concat, reduction=True, **shared, name="reduce")
        return [cell(s, s, keep, train=False) for cell in (normal, reduce)]


def test_drop_path_cuts_all_paths_of_an_image_but_identities():
    s = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    ones = jnp.ones((4, 2))
    variables = jax.jit(Cells().init)(jax.random.key(1), s, ones)
    run = jax.jit(Cells().apply)
    normal, reduce = run(variables, s, ones)
    untouched, _ = run(variables, s, None)
    np.testing.assert_allclose(normal, untouched, rtol=1e-4, atol=1e-6)
    cut_normal, cut_reduce = run(variables, s, ones.at[:, 0].set(0.0))
    # Of an image without paths a reduction cell keeps nothing: its skips of stride 2 are convolutions, and that
    # between its nodes has nothing to pass on.
    assert np.abs(reduce[0]).max() > 0.1 and np.abs(cut_reduce[0]).max() == 0
    np.testing.assert_array_equal(cut_reduce[1], reduce[1])
    np.testing.assert_array_equal(cut_normal[1], normal[1])
    # A normal cell keeps its identities: node 2 is the first input, node 3 the second.
    doubled, _ = run(variables, s, ones.at[:, 0].set(2.0))
    np.testing.assert_allclose(
        doubled[0, ..., :4] - cut_normal[0, ..., :4], 2 * (normal - cut_normal)[0, ..., :4], 1e-4, 1e-5
    )
    assert np.abs(cut_normal[0]).max() > 0.1


def test_drop_path_needs_its_rng():
    network, variables, images = built()
    options = {"train": True, "mutable": "batch_stats"}
    without = apply(network, variables, images, **options, drop_path=0.5)[0]
    np.testing.assert_array_equal(without, apply(network, variables, images, **options)[0])
    dropped = jax.jit(functools.partial(network.apply, **options, drop_path=0.5, rngs={"drop_path": jax.random.key(3)}))
    assert np.abs(dropped(variables, images)[0] - without).max() > 1e-3


# Entries of `none` and of noise ---------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1))
def one_cell(entries, reduction, s):
    """(parameters, output, gradient in the inputs of its squares' sum) of a cell; equal layers start equal."""
    cell = discrete.DiscreteCell(entries, (2,), 4, reduction, reduction_before=False, axis_name=None)
    variables = jax.eval_shape(functools.partial(cell.init, train=True), jax.random.key(0), *s, None)
    variables = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size)).reshape(a.shape), variables)

    def total(s):
        y = cell.apply(variables, *s, None, train=True, mutable="batch_stats")[0]
        return jnp.sum(y**2), y

    gradient, y = jax.grad(total, has_aux=True)(s)
    return variables["params"], y, gradient


@pytest.mark.parametrize("reduction", (False, True))
def test_an_entry_of_none_adds_nothing_and_has_no_weights(reduction):
    s = tuple(jax.random.normal(jax.random.key(i), (2, 5, 6, 4)) for i in range(2))
    none, conv, pool = ("none", 1), ("sep_conv_3x3", 0), ("max_pool_3x3", 1)
    params, both, _ = one_cell((conv, pool), reduction, s)
    _, left, gradient = one_cell((conv, none), reduction, s)
    _, right, _ = one_cell((("none", 0), pool), reduction, s)
    np.testing.assert_allclose(left + right, both, atol=1e-5)
    assert np.abs(gradient[0]).max() > 0 and np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], np.zeros_like(s[1]))
    assert "op_0" in params
    params, nothing, gradient = one_cell((none, none), reduction, s)
    assert set(params) == {"preprocess_0", "preprocess_1"}
    np.testing.assert_array_equal(nothing, np.zeros_like(both))
    np.testing.assert_array_equal(gradient, np.zeros_like(s))


def test_noise_is_new_in_every_step_and_the_same_when_a_step_is_taken_again():
    """Of a network that sees nothing but noise, whose weights stay."""
    entries = (("noise", 0), ("noise", 1))
    network = discrete.network(genotypes.Genotype(entries, (2,), entries, (2,)), channels=2, cells=1, num_classes=3)
    problem = training.TrainProblem(network, optax.sgd(0.0), total_steps=3)
    batch = {"image": jnp.ones((4, 8, 8, 1)), "label": jnp.array([0, 1, 2, 0])}
    variables = discrete.init_variables(network, jax.random.key(0), batch["image"].shape)
    step = jax.jit(training.train_step, static_argnums=0)
    losses, state = [], training.init_training(problem, jax.random.key(1), variables)
    again = float(step(problem, state, batch)[1]["train_loss"])
    for _ in range(3):
        state, metrics = step(problem, state, batch)
        losses.append(float(metrics["train_loss"]))
    assert losses[0] == again and len(set(losses)) == 3
    tested = apply(network, variables, batch["image"], train=False)
    np.testing.assert_array_equal(apply(network, variables, 9 * batch["image"], train=False), tested)


def test_two_entries_of_noise_are_not_the_same_noise_in_a_test_either():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            noise = ops.candidate("noise", channels=2, stride=1)
            return [Layer(noise, 2, None, name=f"op_{i}")(x, train=False) for i in range(2)]

    one, other = Pair().apply({}, jnp.ones((2, 8, 8, 2)))
    assert np.abs(one - other).max() > 0.1


def test_cells_of_noise_are_not_the_same_noise_in_a_test_either(monkeypatch):
    space = spaces.SearchSpace("noise", ("none", "noise"), nodes=3)
    network, keys = encoded.network(space, channels=2, cells=2, num_classes=3), []
    draw = EdgeGroup.init_draws
    monkeypatch.setattr(EdgeGroup, "init_draws", lambda group, key, *a: keys.append(key) or draw(group, key, *a))
    cell = genotypes.Genotype([("noise", 0), ("noise", 1)], [2], [("noise", 0), ("noise", 1)], [2])
    images = jnp.ones((2, 8, 8, 1))
    variables = encoded.init_variables(network, jax.random.key(0), images.shape) | {"genotype": space.encode(cell)}
    keys.clear()
    network.apply(variables, images, train=False)
    data = {jax.random.key_data(key).tobytes() for key in keys}
    assert len(data) == len(keys) == 2


def test_an_array_of_an_op_of_ones_own_starts_as_in_a_search(own_registry):
    @ops.register("scaled", group="conv")
    def build(channels, stride):
        shapes = {"layer_scale": (channels,), "var": ()}
        return ops.Op(lambda p, stats, x, norm: (p["layer_scale"] * x[:, ::stride, ::stride] + p["var"], {}), shapes)

    cell = genotypes.Genotype([("none", 0), ("none", 1)], [2], [("scaled", 0), ("none", 1)], [2])
    network = discrete.network(cell, channels=2, cells=1, num_classes=3)
    params = discrete.init_variables(network, jax.random.key(0), (1, 8, 8, 1))["params"]["cell_0"]["op_0"]["conv"]
    jax.tree.map(np.testing.assert_array_equal, params, {"layer_scale": jnp.ones(4), "var": jnp.zeros(())})
    jax.tree.map(np.testing.assert_array_equal, params, ops.init_params(jax.random.key(0), build(4, 2).shapes))


@pytest.mark.parametrize(
    "make, fields, message",
    [
        (discrete.DiscreteNetwork, {"genotype": "PRDARTS"}, "^genotype='PRDARTS' must be of type Genotype"),
        (
            discrete.DiscreteNetwork201,
            {"genotype": genotypes.named("PRDARTS")},
            "^genotype=.* must be of type EdgeGeno",
        ),
        (discrete.network, {"channels": 4.0}, "^channels=4.0 must be of type int"),
        (discrete.network, {"num_classes": True}, "^num_classes=True must be of type int"),
        (discrete.network, {"auxiliary": "yes"}, "^auxiliary='yes' must be of type bool"),
    ],
)
def test_fields_of_another_type_are_refused(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**{"genotype": genotypes.named("PRDARTS")} | fields)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"channels": 0}, "^channels=0 must be from 1 to"),
        ({"cells": -3}, "^cells=-3 must be from 1 to"),
        ({"num_classes": 0}, "^num_classes=0 must be from 1 to"),
        ({"image_shape": (8, 8)}, r"^image_shape=\(8, 8\) must be \(height, width, channels\), each at least 1$"),
        ({"image_shape": (8, 0, 3)}, r"^image_shape=\(8, 0, 3\) must be"),
        ({"image_shape": (8.5, 8, 3)}, r"^image_shape=\(8.5, 8, 3\) must be"),
        ({"image_shape": 8}, "^image_shape=8 must be"),
    ],
)
@pytest.mark.parametrize("cell", ["DARTS_V2", genotypes.EdgeGenotype(["skip_connect"] * 6)])
def test_impossible_sizes_are_refused(cell, given, message):
    cell = genotypes.named(cell) if isinstance(cell, str) else cell
    with pytest.raises(ValueError, match=message):
        sizes.describe(cell, **given)
    with pytest.raises(ValueError, match="^dtype='float16' must be float32 or bfloat16$"):
        discrete.network(cell, dtype="float16")


def test_a_batch_spread_over_an_axis_counts_as_one():
    network, variables, images = built()
    expected, updated = apply(network, variables, images, train=True, mutable="batch_stats")
    spread = network.clone(axis_name="data")
    run = jax.jit(
        jax.vmap(functools.partial(spread.apply, variables, train=True, mutable="batch_stats"), axis_name="data")
    )
    found, stats = run(images.reshape(2, 3, 32, 32, 3))
    np.testing.assert_allclose(found.reshape(6, 5), expected, rtol=1e-3, atol=1e-4)
    # Each half's unbiased variance is that of the whole.
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(updated), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-3, atol=1e-5)


def test_bfloat16_keeps_weights_and_logits_in_float32():
    network, variables, images = built()
    half = network.clone(dtype=jnp.bfloat16)
    logits = apply(half, variables, images, train=False)
    assert logits.dtype == jnp.float32
    shapes = jax.eval_shape(functools.partial(half.init, train=True), jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    expected = apply(network, variables, images, train=False)
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()
