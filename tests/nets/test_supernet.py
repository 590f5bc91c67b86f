"""The supernet: how many weights, which collections, the two executors, weights of each layer, running statistics,
what is drawn."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from plain_executor import in_supernets
from shared import refused, sparse_weights
from trees import assert_near

from prdarts_jax.nets import discrete
from prdarts_jax.nets.supernet import Supernet, init_logits
from prdarts_jax.spaces import SearchSpace

SMALL = SearchSpace("small", ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3"), nodes=3)
# Cell 0 is normal, 1 and 2 are reductions, the latter after a reduction.
DARTS = Supernet(space=SMALL, channels=2, cells=3, num_classes=3)
RELEASED = DARTS.clone(pool_norm=False, head_norm=True, running_statistics=False)
LABELS = jnp.array([0, 1, 2, 0])


@functools.cache
def images(net):
    """Even images for DARTS, odd ones (7, 4 and 2 pixels in the three cells) for the other."""
    size = 8 if net.pool_norm else 7
    return jax.random.normal(jax.random.key(1), (4, size, size, 3))


@functools.cache
def variables(net):
    if net is RELEASED:  # compiles faster than net.init
        arch = {t: init_logits(jax.random.key(k), SMALL, t) for k, t in enumerate(SMALL.cell_types)}
        return discrete.init_variables(net, jax.random.key(0), images(net).shape) | {"arch": arch}
    return jax.jit(functools.partial(net.init, train=True))(jax.random.key(0), images(net))


def repeated(cell_type, weights):
    return np.repeat(np.float32(weights)[None], DARTS.layers[cell_type], axis=0)


def run_once(net, variables, op_weights, x):
    """Class logits, running statistics after the pass, and the gradients of the loss."""

    def loss(params, op_weights, x):
        y, new = net.apply({**variables, "params": params}, x, op_weights, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(y)[jnp.arange(len(x)), LABELS]), (y, new.get("batch_stats"))

    gradients, (y, stats) = jax.grad(loss, (0, 1, 2), has_aux=True)(variables["params"], op_weights, x)
    return {"logits": y, "batch_stats": stats, "gradients": gradients}


run = jax.jit(run_once, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(net, variables, op_weights, x):
    return net.apply(variables, x, op_weights, train=False)


# Weights and collections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net, count",
    (
        (Supernet(), 1_930_618),
        (Supernet(cells=6, pool_norm=False, head_norm=True, running_statistics=False), 1_323_002),
    ),
)
def test_weights_are_as_many_as_the_authors_networks_have(net, count):
    shapes = jax.eval_shape(functools.partial(net.init, train=True), jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert sum(math.prod(a.shape) for a in jax.tree.leaves(shapes["params"])) == count
    assert {t: a.shape for t, a in shapes["arch"].items()} == {"normal": (14, 8), "reduce": (14, 8)}
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    assert set(shapes) == {"params", "arch"} | ({"batch_stats"} if net.running_statistics else set())


def test_logits_start_small_and_parameters_as_pytorch_starts_them():
    start = variables(DARTS)
    logits = np.concatenate([a.ravel() for a in start["arch"].values()])
    assert 0 < np.abs(logits).max() < 5e-3
    assert not np.array_equal(start["arch"]["normal"], start["arch"]["reduce"])
    stage = start["params"]["cell_0"]["stage_0"]
    for kernel, fan_in in (
        (start["params"]["stem"]["kernel"], 27),
        (stage["dil_conv_3x3"]["depthwise_0"], 9),
        (stage["dil_conv_3x3"]["pointwise_0"], 2),
    ):
        assert 0.6 < np.abs(kernel).max() * math.sqrt(fan_in) <= 1


@pytest.mark.parametrize("cells, reductions", ((6, {2, 4}), (8, {2, 5}), (4, {1, 2})))
def test_cells_at_one_and_two_thirds_halve_the_image_and_double_the_width(cells, reductions):
    net = Supernet(space=SMALL, channels=2, cells=cells)

    def outputs(key, x):
        return net.init_with_output(key, x, train=True, capture_intermediates=True, mutable=True)[1]["intermediates"]

    found = jax.eval_shape(outputs, jax.random.key(0), jnp.zeros((2, 13, 8, 3)))
    height, width, channels = 13, 8, 2
    for k in range(cells):
        if k in reductions:
            height, width, channels = (height + 1) // 2, width // 2, 2 * channels
        assert found[f"cell_{k}"]["__call__"][0].shape == (2, height, width, channels)  # one intermediate node


# What it computes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", (DARTS, RELEASED), ids=("darts", "released"))
def test_both_executors_agree(net):
    arguments = variables(net), sparse_weights(DARTS), images(net)
    loop = run(net, *arguments)
    with in_supernets():
        plain = jax.jit(functools.partial(run_once, net))(*arguments)
    assert loop["logits"].shape == (4, 3)
    assert_near(loop["logits"], plain["logits"])
    assert_near(loop["gradients"], plain["gradients"])
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(plain["gradients"]))
    # What is not executed keeps its statistics, which the plain executor knows only from the weights as well. Some
    # means are 0 but for rounding: those of what has just been normalised.
    assert_near(loop["batch_stats"], plain["batch_stats"], absolute=1e-6)


def test_op_weights_are_by_default_the_softmax_of_the_logits():
    start = variables(DARTS)
    arch = jax.tree.map(lambda a: 1000 * np.asarray(a), start["arch"])
    given = {t: repeated(t, np.exp(a) / np.exp(a).sum(1, keepdims=True)) for t, a in arch.items()}
    found = evaluate(DARTS, {**start, "arch": arch}, None, images(DARTS))
    np.testing.assert_allclose(found, evaluate(DARTS, start, given, images(DARTS)), rtol=1e-4, atol=1e-5)
    assert np.abs(np.subtract(found, evaluate(DARTS, start, None, images(DARTS)))).max() > 1e-3


def test_the_gradient_in_the_logits_is_the_sum_of_those_in_each_layers_weights():
    start, x = variables(RELEASED), images(RELEASED)
    arch = jax.tree.map(lambda a: 1000 * a, start["arch"])

    def loss(arch):
        y = RELEASED.apply({**start, "arch": arch}, x, train=True)
        return -jnp.mean(jax.nn.log_softmax(y)[jnp.arange(len(x)), LABELS])

    weights, to_logits = jax.vjp(lambda arch: jax.tree.map(jax.nn.softmax, arch), arch)
    per_layer = run(RELEASED, start, {t: repeated(t, w) for t, w in weights.items()}, x)["gradients"][1]
    summed = {t: jnp.sum(g, axis=0) for t, g in per_layer.items()}
    assert_near(jax.jit(jax.grad(loss))(arch), to_logits(summed)[0])
    assert np.abs(np.diff(per_layer["reduce"], axis=0)).max() > 1e-4


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form='cifar10' must be one of cifar, imagenet"):
        Supernet(form="cifar10")


def test_images_without_a_batch_axis_are_refused():
    with refused("images of the shape (8, 8, 3) must be of the shape (B, H, W, channels)"):
        jax.eval_shape(functools.partial(DARTS.init, train=True), jax.random.key(0), jnp.zeros((8, 8, 3)))


def test_op_weights_of_another_shape_are_refused():
    weights = sparse_weights(DARTS) | {"reduce": np.ones(SMALL.shape)}
    with refused("op_weights['reduce'] of the shape (2, 4) must be of the shape (layers, edges, ops), here (2, 2, 4)"):
        jax.eval_shape(functools.partial(DARTS.apply, train=False), variables(DARTS), images(DARTS), weights)


@pytest.mark.parametrize("layer", (0, 1))
def test_each_layer_reads_its_own_weights(layer):
    weights = sparse_weights(DARTS)
    weights["reduce"][layer] = 0
    dparams = run(RELEASED, variables(RELEASED), weights, images(RELEASED))["gradients"][0]
    # The cell of that layer gives out zeros whatever its parameters are, and the last hides all before it.
    trained = {k for k in range(3) if any(np.any(a) for a in jax.tree.leaves(dparams[f"cell_{k}"]))}
    assert trained == ({0, 2} if layer == 0 else set())


# Running statistics -------------------------------------------------------------------------------------------------


def test_a_training_pass_moves_the_statistics_of_executed_ops_a_tenth():
    start, weights = jax.device_get(variables(DARTS)), sparse_weights(DARTS)
    shifted = jax.tree.map(lambda a: a + np.float32(0.5), start["batch_stats"])
    once, again = (
        jax.device_get(run(DARTS, {**start, "batch_stats": stats}, weights, images(DARTS))["batch_stats"])
        for stats in (start["batch_stats"], shifted)
    )

    # Training normalises by the batch whatever the statistics: with new = 0.9 old + 0.1 batch both give the same batch.
    batch = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, once, start["batch_stats"])
    same = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, again, shifted)
    for name in start["batch_stats"]:
        for number, (path, old) in enumerate(jax.tree_util.tree_leaves_with_path(start["batch_stats"][name])):
            op = next((o for o in SMALL.ops if any(getattr(k, "key", None) == o for k in path)), None)
            b, s, new = (jax.tree.leaves(tree[name])[number] for tree in (batch, same, once))
            executed = np.ones(len(old), bool)
            if op is not None:
                cell_type = "normal" if name == "cell_0" else "reduce"
                executed = weights[cell_type][0, :, SMALL.ops.index(op)] != 0
            np.testing.assert_array_equal(new[~executed], old[~executed])
            np.testing.assert_allclose(b[executed], s[executed], atol=1e-4)
            assert not np.allclose(b[executed], old[executed], atol=1e-3)


def test_statistics_are_those_of_the_batch():
    start = variables(DARTS)
    new = run(DARTS, start, sparse_weights(DARTS), images(DARTS))["batch_stats"]["stem_norm"]["moments"]
    pixels = np.lib.stride_tricks.sliding_window_view(
        np.pad(images(DARTS), ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    stem = np.einsum("bhwcuv,uvcd->bhwd", pixels, start["params"]["stem"]["kernel"]).reshape(-1, 6)
    np.testing.assert_allclose(new["mean"], 0.1 * stem.mean(0), atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * stem.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics_of_every_op():
    start, weights = jax.device_get(variables(DARTS)), jax.tree.map(np.ones_like, sparse_weights(DARTS))
    y = evaluate(DARTS, start, weights, images(DARTS))
    # An image's logits do not depend on the others of its batch.
    others = images(DARTS) * np.array([1, 3, 3, 3], np.float32)[:, None, None, None]
    np.testing.assert_allclose(evaluate(DARTS, start, weights, others)[0], y[0], atol=1e-5)
    leaves, tree = jax.tree.flatten(start["batch_stats"])
    for i in range(len(leaves)):
        moved = tree.unflatten([a + np.float32(0.3) * (i == j) for j, a in enumerate(leaves)])
        assert not np.allclose(evaluate(DARTS, {**start, "batch_stats": moved}, weights, images(DARTS)), y, atol=1e-6)


def test_without_running_statistics_evaluation_uses_the_batch():
    start, weights = variables(RELEASED), sparse_weights(DARTS)
    trained = run(RELEASED, start, weights, images(RELEASED))
    assert trained["batch_stats"] is None
    np.testing.assert_allclose(evaluate(RELEASED, start, weights, images(RELEASED)), trained["logits"], atol=1e-5)


def test_statistics_that_are_not_mutable_stay():
    start, weights = variables(DARTS), sparse_weights(DARTS)
    before = jax.tree.map(np.array, start)
    y = jax.eval_shape(functools.partial(DARTS.apply, train=True), start, images(DARTS), weights)
    assert y.shape == (4, 3)  # no new variables beside it, and no error
    jax.tree.map(np.testing.assert_array_equal, start, before)


# Precision ------------------------------------------------------------------------------------------------------------


def test_bfloat16_computes_near_and_leaves_everything_that_lasts_in_float32():
    coarse, start = DARTS.clone(dtype=jnp.bfloat16), variables(DARTS)
    init = jax.eval_shape(functools.partial(coarse.init, train=True), jax.random.key(0), images(DARTS))
    found = run(coarse, start, sparse_weights(DARTS), images(DARTS))
    assert {a.dtype for a in jax.tree.leaves((init, found))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))
    expected = run(DARTS, start, sparse_weights(DARTS), images(DARTS))
    error = np.abs(np.subtract(found["logits"], expected["logits"])).max()
    assert 1e-6 < error < 0.1  # near, and not float32 in disguise


# Draws ----------------------------------------------------------------------------------------------------------------

# The first two cells are normal. What is not dropped of a skip connection is hardly ever 0.
SKIPS = SearchSpace("skips", ("skip_connect",), nodes=3)
DROPPING = Supernet(space=SKIPS, channels=2, cells=6, num_classes=3, dropout="skip")


@functools.partial(jax.jit, static_argnums=0)
def two_cells(net, variables, key, rate, x):
    """What the first two cells give, the first with two skip connections that are added up."""
    ones = {t: jnp.ones((layers, *SKIPS.shape)) for t, layers in net.layers.items()}
    rngs = {"draws": key}
    options = {"train": True, "dropout_rate": rate, "rngs": rngs, "capture_intermediates": True}
    found = net.apply(variables, x, ones, **options, mutable=["intermediates"])[1]["intermediates"]
    return jnp.stack([found[f"cell_{k}"]["__call__"][0] for k in (0, 1)])


@functools.cache
def any_variables():
    shapes = jax.eval_shape(functools.partial(DROPPING.init, train=True), jax.random.key(0), jnp.zeros((16, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes)


def drop(seed, rate, net=DROPPING):
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 3))
    return np.asarray(two_cells(net, any_variables(), jax.random.key(seed), rate, x))


def test_dropout_is_another_in_each_layer_edge_and_step():
    first, second = drop(0, 0.7) == 0, drop(1, 0.7) == 0
    for one, other in ((first[0], first[1]), (first[0], second[0]), (first[1], second[1])):
        # Two edges drop by themselves, and two layers or steps too.
        assert scipy.stats.binomtest(int(one.sum()), one.size, 0.49).pvalue > 1e-4
        assert scipy.stats.binomtest(int((one & other).sum()), one.size, 0.49**2).pvalue > 1e-4
    np.testing.assert_array_equal(first, drop(0, 0.7) == 0)


def test_at_rate_0_or_without_dropout_nothing_is_dropped():
    undisturbed = drop(0, 0.0, DROPPING.clone(dropout=""))
    np.testing.assert_array_equal(drop(0, 0.0), undisturbed)
    assert (undisturbed != 0).mean() > 0.99


def test_the_stem_for_imagenet_halves_the_image_three_times():
    """To 3 C / 2, 3 C and 3 C channels; the first cell, here a reduction, has one input of double the size."""
    net, x = Supernet(space=SMALL, form="imagenet", channels=4, cells=1), jnp.zeros((2, 64, 40, 3))
    variables = jax.eval_shape(functools.partial(net.init, train=True), jax.random.key(0), x)
    kernels = [variables["params"][f"stem_conv_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(3, 3, 3, 6), (3, 3, 6, 12), (3, 3, 12, 12)] and "stem" not in variables["params"]
    run = functools.partial(net.apply, train=False, capture_intermediates=True)
    found = jax.eval_shape(run, variables, x)[1]["intermediates"]
    shapes = [found[name]["__call__"][0].shape for name in ("stem_norm_0", "stem_norm_1", "stem_norm_2", "cell_0")]
    assert shapes == [(2, 32, 20, 6), (2, 16, 10, 12), (2, 8, 5, 12), (2, 4, 3, 8)]
    inputs = [found["cell_0"][f"preprocess_{i}"]["__call__"][0].shape for i in range(2)]
    assert inputs == [(2, 8, 5, 8)] * 2
