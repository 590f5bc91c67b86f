"""The loop that executes a cell against the plain sum, and both against the ops of the paper written with lax."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla_kernels as xla
from plain_executor import execute_by_ops
from trees import assert_near

from prdarts_jax.nets.executor import execute
from prdarts_jax.nets.program import EdgeGroup, program
from prdarts_jax.ops import kernels
from prdarts_jax.spaces import SearchSpace

# One op of each kind; `none` stands in the middle, since no place of it may be taken for granted.
OPS = ("skip_connect", "sep_conv_3x3", "none", "dil_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
CHANNELS = 2
# (reduction cell?, group of the cell, nodes)
NORMAL, SMALL, REDUCE_0, REDUCE_1 = (False, 0, 4), (False, 0, 3), (True, 0, 3), (True, 1, 4)
# Where it does not matter which ops there are: they compile fast.
FEW = SearchSpace("few", ("skip_connect", "dil_conv_3x3", "none", "max_pool_3x3"), 3)


@pytest.fixture
def optimized():
    """Within it the compiler optimizes."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def problem(kind, *, space=None, channels=CHANNELS, pool_norm=True, train=True, **fields):
    """A group of a cell and arguments for its executors; three weights of five are 0."""
    reduction, index, nodes = kind
    space = space or SearchSpace("small", OPS, nodes)
    group = program(space, reduction, channels=channels, pool_norm=pool_norm, train=train, **fields)[index][1]
    rng, key = np.random.default_rng(0), jax.random.key(0)

    def normal(*shape):
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params = jax.tree.map(lambda a: normal(*a.shape), jax.eval_shape(group.init_params, key))
    stats = None if train else jax.tree.map(lambda a: 1 + normal(*a.shape) ** 2, jax.eval_shape(group.init_stats))
    inputs = normal(2, 3, 6, 5, channels) if group.stride == 2 else None
    size = (3, 3) if group.stride == 2 else (6, 5)
    states = normal(nodes - 2 if reduction else nodes, 3, *size, channels)
    weights = rng.uniform(-1, 1, (len(group.edges), len(space.ops)))
    weights = jnp.array(np.where(np.arange(weights.size).reshape(weights.shape) % 5 % 2 == 0, 0, weights), jnp.float32)
    drawn = jax.jit(group.init_draws, static_argnums=2)(key, 0.4, 3)
    params = {name: params.get(name, {}) | drawn.get(name, {}) for name in {**params, **drawn}}
    return group, params, stats, inputs, states, weights


def cotangent(states):
    return jnp.sin(1 + jnp.arange(states.size)).reshape(states.shape).astype(states.dtype)


def loss(executor, group, params, stats, inputs, states, weights):
    result, moments = executor(group, params, stats, inputs, states, weights)
    return jnp.sum(result * cotangent(states), dtype=jnp.float32), (result, moments)


def run(executor, group, params, stats, inputs, states, weights):
    """{'states', 'moments'} and the gradient in every argument but the running statistics."""

    def of(params, inputs, states, weights):
        return loss(executor, group, params, stats, inputs, states, weights)

    gradients, (result, moments) = jax.grad(of, (0, 1, 2, 3), has_aux=True)(params, inputs, states, weights)
    return {"states": result, "moments": moments, "gradients": gradients}


run_loop = functools.partial(jax.jit(run, static_argnums=(0, 1)), execute)


def run_plain(*arguments):
    """The oracle: as many programs as there are ops, which may be slow."""
    return run(execute_by_ops, *arguments)


def executed(group, weights, name):
    return np.asarray(weights)[:, group.op_names.index(name)] != 0


def of_executed(group, weights, tree):
    """The rows of {op: tree of [edges, ...]} that were executed."""
    rows = {name: executed(group, weights, name) for name in tree}
    return {name: jax.tree.map(operator.itemgetter(rows[name]), sub) for name, sub in tree.items()}


def assert_same_run(group, weights, found, expected):
    assert_near(found["states"], expected["states"])
    assert_near(found["gradients"], expected["gradients"])
    assert_near(*(of_executed(group, weights, r["moments"]) for r in (found, expected)))


@pytest.mark.parametrize(
    "kind, pool_norm, train",
    (
        (NORMAL, True, True),
        (SMALL, True, False),
        (REDUCE_0, True, True),
        (REDUCE_0, False, False),
        (REDUCE_1, False, True),
    ),
)
@pytest.mark.usefixtures("optimized")
def test_loop_is_the_plain_sum(kind, pool_norm, train):
    group, *arguments, weights = problem(kind, pool_norm=pool_norm, train=train)
    everything = jnp.linspace(-1, 1, weights.size).reshape(weights.shape)
    for chosen in (weights, everything):
        loop, plain = (run(group, *arguments, chosen) for run in (run_loop, run_plain))
        assert_same_run(group, chosen, loop, plain)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(plain["gradients"]))


@pytest.mark.parametrize(
    "kind, names, inputs, fields",
    (
        (SMALL, ("skip_connect", "noise", "none", "nor_conv_1x1"), 2, {"dropout": "skip"}),
        (REDUCE_0, ("skip_connect", "max_pool_3x3"), 2, {"dropout": "path"}),
        (SMALL, ("max_pool_3x3", "none", "skip_connect"), 2, {"partial": 2, "train": False}),
        (REDUCE_0, ("none", "skip_connect"), 2, {"partial": 2}),
        (SMALL, ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"), 1, {}),
        (SMALL, ("max_pool_3x3", "none", "skip_connect"), 2, {"pool_norm": False}),
    ),
    ids=("noise and dropped skips", "dropped paths", "half", "half of a reduction", "NAS-Bench-201", "no parameters"),
)
def test_loop_is_the_plain_sum_of_what_other_methods_and_spaces_need(kind, names, inputs, fields):
    space = SearchSpace("small", names, nodes=kind[2], inputs=inputs)
    group, *arguments, weights = problem(kind, space=space, channels=4, **fields)
    everything = jnp.linspace(-1, 1, weights.size).reshape(weights.shape)
    loop, plain = (run(group, *arguments, everything) for run in (run_loop, run_plain))
    assert_same_run(group, everything, loop, plain)
    for path, gradient in jax.tree.leaves_with_path(plain["gradients"]):
        draw = getattr(path[-1], "key", None) in ("seed", "rate", "keep")
        assert draw or np.abs(gradient).max() > 0, path
    dweights = np.abs(loop["gradients"][3]).max(axis=0) > 0
    executed_ops = [name != "none" or group.partial > 1 for name in group.op_names]
    assert dweights.tolist() == executed_ops


def test_without_running_statistics_an_evaluation_is_differentiated_through_the_batch():
    group, params, _, *arguments = problem(SMALL, space=FEW)
    group = dataclasses.replace(group, train=False)
    loop, plain = (run(group, params, None, *arguments) for run in (run_loop, run_plain))
    assert_same_run(group, arguments[-1], loop, plain)


# The ops of the paper, with XLA's own convolutions and windows -----------------------------------------------------


def norm(x):
    return xla.batch_norm(x)[0]


def separable(x, depthwise, pointwise, stride, dilation=1):
    return norm(xla.pointwise_conv(xla.depthwise_conv(jnp.maximum(x, 0), depthwise, stride, dilation), pointwise))


@functools.partial(jax.jit, static_argnums=(0, 3))
def reference(name, p, x, stride):
    """An op as section 3.1.1 of DARTS and its supernet have it, with BN after the pools."""
    if name == "skip_connect":
        if stride == 1:
            return x
        x = jnp.maximum(x, 0)
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        halves = [xla.pointwise_conv(x, p["even"], 2), xla.pointwise_conv(shifted, p["odd"], 2)]
        return norm(jnp.concatenate(halves, -1))
    if name == "sep_conv_3x3":
        x = separable(x, p["depthwise_0"], p["pointwise_0"], stride)
        return separable(x, p["depthwise_1"], p["pointwise_1"], 1)
    if name == "dil_conv_5x5":
        return separable(x, p["depthwise_0"], p["pointwise_0"], stride, dilation=2)
    return norm({"max_pool_3x3": xla.max_pool, "avg_pool_3x3": xla.avg_pool}[name](x, stride))


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_each_op_is_the_papers(kind):
    group, params, stats, inputs, states, weights = problem(kind)
    edge = 1
    source, target = group.edges[edge]
    for o, name in enumerate(OPS):
        alone = jnp.zeros_like(weights).at[edge, o].set(0.7)
        found = run_loop(group, params, stats, inputs, states, alone)["states"]
        if name == "none":
            np.testing.assert_array_equal(found, states)
            continue
        p = jax.tree.map(lambda a: a[edge], params.get(name))
        y = reference(name, p, (states if inputs is None else inputs)[source], group.stride)
        assert_near(found, states.at[target].add(0.7 * y), 1e-5)


# What is not executed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_what_has_no_weight_is_neither_read_nor_differentiated(kind):
    group, params, *arguments, weights = problem(kind)
    expected = run_loop(group, params, *arguments, weights)

    def poison(name, a):
        return np.where(executed(group, weights, name).reshape(-1, *(1,) * (a.ndim - 1)), a, np.float32(np.nan))

    poisoned = {name: jax.tree.map(functools.partial(poison, name), sub) for name, sub in params.items()}
    assert any(np.isnan(a).any() for a in jax.tree.leaves(poisoned))
    found = run_loop(group, poisoned, *arguments, weights)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))
    jax.tree.map(np.testing.assert_array_equal, found, expected)

    dparams, *_, dweights = found["gradients"]
    for name, sub in dparams.items():
        for a in jax.tree.leaves(sub):
            alive = np.abs(a).max(tuple(range(1, a.ndim))) > 0
            np.testing.assert_array_equal(alive, executed(group, weights, name))
    off = (weights == 0) | (np.array(OPS) == "none")
    np.testing.assert_array_equal(dweights == 0, off)


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_without_weights_the_states_stay_as_they_were(kind):
    group, *arguments, states, weights = problem(kind)
    found = run_loop(group, *arguments, states, jnp.zeros_like(weights))
    np.testing.assert_array_equal(found["states"], states)
    dparams, dinputs, dstates, dweights = found["gradients"]
    np.testing.assert_array_equal(dstates, cotangent(states))
    assert all((a == 0).all() for a in jax.tree.leaves((dparams, dinputs, dweights)))


def test_only_ops_with_a_weight_run(monkeypatch):
    runs = []
    batch_norm = kernels.batch_norm

    def counted(x, axis_name):
        jax.debug.callback(lambda: runs.append(1))
        return batch_norm(x, axis_name)

    monkeypatch.setattr(kernels, "batch_norm", counted)
    group = EdgeGroup(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("none", "dil_conv_3x3"), channels=2, stride=1)
    weights = jnp.zeros((5, 2)).at[jnp.array([1, 4]), 1].set(1.0).at[0, 0].set(1.0)
    states = jnp.ones((4, 1, 3, 3, 2))
    jax.block_until_ready(
        jax.jit(execute, static_argnums=0)(group, group.init_params(jax.random.key(0)), None, None, states, weights)
    )
    jax.effects_barrier()
    assert len(runs) == 2


# Under transformations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (SMALL, REDUCE_0))
def test_a_gradient_is_the_same_whatever_else_is_asked_for(kind):
    group, params, stats, inputs, states, weights = problem(kind, space=FEW)
    both = run_loop(group, params, stats, inputs, states, weights)["gradients"]

    def of(params, weights):
        return loss(execute, group, params, stats, inputs, states, weights)[0]

    for number, expected in ((0, both[0]), (1, both[3])):
        assert_near(jax.jit(jax.grad(of, number))(params, weights), expected, 1e-6)

    def products(numbers):
        return str(jax.make_jaxpr(jax.grad(of, numbers))(params, weights)).count("dot_general")

    assert products(1) < products((0, 1))  # the step of the logits does not pay for the gradients of the weights


def test_vmap_over_weights_is_a_loop_over_them():
    group, *arguments, weights = problem(SMALL, space=FEW, train=False)
    many = jnp.stack([weights, jnp.roll(weights, 1), jnp.zeros_like(weights)])
    found = jax.jit(jax.vmap(lambda w: run_loop(group, *arguments, w)))(many)
    for i, one in enumerate(many):
        expected = run_loop(group, *arguments, one)
        assert_same_run(group, one, jax.tree.map(operator.itemgetter(i), found), expected)


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_bfloat16_is_near_and_keeps_parameters_in_float32(kind):
    group, params, stats, inputs, states, weights = problem(kind)
    inputs16, states16 = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (inputs, states))
    found = run_loop(group, params, stats, inputs16, states16, weights)
    expected = run_loop(group, params, stats, inputs, states, weights)
    dparams, dinputs, dstates, dweights = found["gradients"]
    assert {a.dtype for a in jax.tree.leaves((found["states"], dinputs, dstates))} == {jnp.dtype(jnp.bfloat16)}
    assert {a.dtype for a in jax.tree.leaves((found["moments"], dparams, dweights))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(np.asarray(a, np.float32)).all() for a in jax.tree.leaves(found))
    for part, tolerance in (("states", 0.05), ("gradients", 0.3)):
        for f, e in zip(*(jax.tree.leaves(r[part]) for r in (found, expected)), strict=True):
            f, e = np.asarray(f, np.float32), np.asarray(e)
            assert np.linalg.norm(f - e) <= tolerance * np.linalg.norm(e)
