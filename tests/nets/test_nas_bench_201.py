"""NAS-Bench-201's supernet: its published size, its blocks, the two executors, weights of each layer, a search step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xla_kernels as xla
from plain_executor import in_supernets
from trees import assert_near

from prdarts_jax.nets import discrete
from prdarts_jax.nets.nas_bench_201 import ResidualBlock, Supernet201
from prdarts_jax.nets.supernet import init_logits
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem, SearchState
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import SearchSpace

SMALL = SearchSpace(
    "small", ("none", "skip_connect", "nor_conv_1x1"), nodes=3, inputs=1, cell_types=("normal",), entries_per_node=0
)
NET = Supernet201(space=SMALL, channels=2, cells=1, num_classes=3)
LABELS = jnp.array([0, 1, 2, 0])


def images():
    return jax.random.normal(jax.random.key(1), (4, 7, 6, 3))


@functools.cache
def variables():
    start = discrete.init_variables(NET, jax.random.key(0), images().shape)  # compiles faster than NET.init
    return start | {"arch": {"normal": init_logits(jax.random.key(4), SMALL, "normal")}}


def op_weights():
    """Those of each layer, one op of each edge not executed."""
    weights = jax.random.uniform(jax.random.key(2), (3, *SMALL.shape), minval=0.2)
    return jnp.where(jnp.arange(9).reshape(SMALL.shape) % 4 == 1, 0, weights)


def run_once(net, variables, op_weights, images):
    """Class logits, and the gradients of the loss in parameters and op weights."""

    def loss(params, op_weights):
        rest = {**variables, "params": params}
        y = net.apply(rest, images, {"normal": op_weights}, train=True, mutable=["batch_stats"])[0]
        return -jnp.mean(jax.nn.log_softmax(y)[jnp.arange(len(y)), LABELS]), y

    gradients, y = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], op_weights)
    return {"logits": y, "gradients": gradients}


run = jax.jit(run_once, static_argnums=0)


def repeated(weights):
    return jnp.stack([weights] * 3)


@jax.jit
def evaluate(variables, op_weights, images):
    return NET.apply(variables, images, {"normal": op_weights}, train=False)


def sizes(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def test_weights_beside_those_of_the_candidates_are_as_many_as_the_benchmark_says():
    net = Supernet201()
    shapes = jax.eval_shape(functools.partial(net.init, train=True), jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    cells = {name: tree for name, tree in shapes["params"].items() if name.startswith("cell_")}
    assert net.layers == {"normal": 15} and len(cells) == 15
    # Of skip connections alone the benchmark's network has 0.073306 million weights.
    assert sizes(shapes["params"]) - sizes(cells) == 73_306
    assert [sizes(cells[f"cell_{k}"]) for k in (0, 5, 14)] == [6 * 10 * width**2 for width in (16, 32, 64)]
    assert {t: a.shape for t, a in shapes["arch"].items()} == {"normal": (6, 5)}


def test_two_blocks_halve_the_image_and_double_the_width():
    net = NET.clone(cells=2)

    def outputs(key, x):
        return net.init_with_output(key, x, train=True, capture_intermediates=True, mutable=True)[1]["intermediates"]

    found = jax.eval_shape(outputs, jax.random.key(0), images())
    shapes = [found[f"cell_{k}"]["__call__"][0].shape[1:] for k in range(6)]
    assert shapes == [(7, 6, 2)] * 2 + [(4, 3, 4)] * 2 + [(2, 2, 8)] * 2
    assert net.layers == {"normal": 6}


def test_a_residual_block_is_the_benchmarks():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 2))
    params = variables()["params"]["block_1"]
    block = ResidualBlock(running_statistics=False, axis_name=None)
    y = jax.jit(functools.partial(block.apply, train=True))({"params": params}, x)

    @jax.jit
    def expected(params, x):
        h, _ = xla.batch_norm(xla.conv(jnp.maximum(x, 0), params["conv_0"]["kernel"], (2, 2)))
        h, _ = xla.batch_norm(xla.conv(jnp.maximum(h, 0), params["conv_1"]["kernel"]))
        pooled = x.reshape(2, 3, 2, 4, 2, 2).mean((2, 4))  # not of what the ReLU leaves, and not normalised
        return h + xla.pointwise_conv(pooled, params["shortcut"]["kernel"])

    np.testing.assert_allclose(y, expected(params, x), atol=1e-5)


def test_both_executors_agree():
    arguments = variables(), op_weights(), images()
    loop = run(NET, *arguments)
    with in_supernets():
        plain = jax.jit(functools.partial(run_once, NET))(*arguments)
    assert loop["logits"].shape == (4, 3)
    assert_near(loop, plain)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(plain["gradients"]))


@pytest.mark.parametrize("layer", range(3))
def test_each_layer_reads_its_own_weights(layer):
    weights = op_weights().at[layer, :, 2].set(0)  # without its convolutions
    dparams = run(NET, variables(), weights, images())["gradients"][0]
    trained = {k for k in range(3) if any(np.any(a) for a in jax.tree.leaves(dparams[f"cell_{k}"]))}
    assert trained == set(range(3)) - {layer}


def test_a_cell_leads_from_its_first_node_to_its_last():
    def skips(*edges):
        return evaluate(variables(), repeated(jnp.zeros(SMALL.shape).at[jnp.array(edges), 1].set(1)), images())

    to_the_middle, past_it, onwards = range(3)
    np.testing.assert_allclose(skips(to_the_middle, onwards), skips(past_it), rtol=1e-4, atol=1e-7)
    assert jnp.abs(skips(past_it) - skips(past_it)[0]).max() > 1e-3
    np.testing.assert_array_equal(skips(to_the_middle), skips(onwards))  # nothing comes through


def test_a_search_step_moves_weights_and_logits_and_reports_the_alignment_of_the_layers():
    problem = SearchProblem(NET, methods.darts(), optax.sgd(0.1), optax.adam(0.1), total_steps=3)
    # Its start, less what is not needed here of its random numbers.
    start = SearchState(
        step=jnp.zeros((), jnp.int32),
        opt_state=problem.optimizer.init({name: variables()[name] for name in ("params", "arch")}),
        key=jax.random.key(3),
        **variables(),
    )
    batch = {"image": images(), "label": LABELS}
    state, metrics = jax.jit(search_step, static_argnums=0)(problem, start, batch, batch)
    assert all(jnp.isfinite(value) for value in metrics.values()) and 0 < abs(metrics["alignment_val"]) <= 1
    moved = jax.tree.map(lambda old, new: float(jnp.abs(old - new).max()), start.params, state.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert (jnp.abs(state.arch["normal"] - start.arch["normal"]) > 0.05).all()
