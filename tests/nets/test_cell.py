"""The loop that executes a cell against the plain sum, and both against the ops of the paper written with lax."""

import contextlib
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from conftest import quick_compiler
from jax import lax

from prdarts_jax.nets.executor import Stage, execute, execute_plain, instructions, program
from prdarts_jax.ops import kernels
from prdarts_jax.spaces import SearchSpace, darts

# One op of each kind; `none` stands in the middle, since no place of it may be taken for granted.
OPS = ("skip_connect", "sep_conv_3x3", "none", "dil_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
CHANNELS = 2
# (reduction cell?, stage of the cell, nodes)
NORMAL, SMALL, REDUCE_0, REDUCE_1 = (False, 0, 4), (False, 0, 3), (True, 0, 3), (True, 1, 4)


def problem(kind, *, space=None, channels=CHANNELS, pool_norm=True, train=True, **fields):
    """A stage of a cell and arguments for its executors; three weights of five are 0."""
    reduction, index, nodes = kind
    space = space or SearchSpace("small", OPS, nodes)
    stage = program(space, reduction, channels=channels, pool_norm=pool_norm, train=train, **fields)[index][1]
    rng, key = np.random.default_rng(0), jax.random.key(0)

    def normal(*shape):
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params = jax.tree.map(lambda a: normal(*a.shape), jax.eval_shape(stage.init_params, key))
    stats = None if train else jax.tree.map(lambda a: 1 + normal(*a.shape) ** 2, jax.eval_shape(stage.init_stats))
    inputs = normal(2, 3, 6, 5, channels) if stage.stride == 2 else None
    size = (3, 3) if reduction else (6, 5)
    states = normal(nodes - 2 if reduction else nodes, 3, *size, channels)
    weights = rng.uniform(-1, 1, (len(stage.edges), len(space.ops)))
    weights = jnp.array(np.where(np.arange(weights.size).reshape(weights.shape) % 5 % 2 == 0, 0, weights), jnp.float32)
    drawn = jax.jit(stage.init_draws, static_argnums=2)(key, 0.4, 3)
    params = {name: params.get(name, {}) | drawn.get(name, {}) for name in {**params, **drawn}}
    return stage, params, stats, inputs, states, weights


def cotangent(states):
    return jnp.sin(1 + jnp.arange(states.size)).reshape(states.shape).astype(states.dtype)


def loss(executor, stage, params, stats, inputs, states, weights):
    result, moments = executor(stage, params, stats, inputs, states, weights)
    return jnp.sum(result * cotangent(states), dtype=jnp.float32), (result, moments)


def run(executor, *arguments):
    """{'states', 'moments'} and the gradient in every argument but the running statistics."""
    with contextlib.nullcontext() if executor is execute else quick_compiler():  # the oracle may be slow
        return compiled_run(executor, *arguments)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled_run(executor, stage, params, stats, inputs, states, weights):

    def of(params, inputs, states, weights):
        return loss(executor, stage, params, stats, inputs, states, weights)

    gradients, (result, moments) = jax.grad(of, (0, 1, 2, 3), has_aux=True)(params, inputs, states, weights)
    return {"states": result, "moments": moments, "gradients": gradients}


def executed(stage, weights, name):
    return np.asarray(weights)[:, stage.op_names.index(name)] != 0


def of_executed(stage, weights, tree):
    """The rows of {op: tree of [edges, ...]} that were executed."""
    rows = {name: executed(stage, weights, name) for name in tree}
    return {name: jax.tree.map(operator.itemgetter(rows[name]), sub) for name, sub in tree.items()}


def assert_near(found, expected, tolerance=1e-4):
    """Every array is within `tolerance` of the largest entry expected in it."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        f, e = (np.asarray(a, np.float32) for a in (f, e))
        np.testing.assert_allclose(f, e, rtol=0, atol=tolerance * np.abs(e).max(initial=0))


def assert_same_run(stage, weights, found, expected):
    assert_near(found["states"], expected["states"])
    assert_near(found["gradients"], expected["gradients"])
    assert_near(*(of_executed(stage, weights, r["moments"]) for r in (found, expected)))


@pytest.mark.parametrize(
    "kind, pool_norm, train",
    (
        (NORMAL, True, True),
        (SMALL, False, False),
        (REDUCE_0, True, True),
        (REDUCE_0, False, False),
        (REDUCE_1, False, True),
        (REDUCE_1, True, False),
    ),
)
def test_loop_is_the_plain_sum(kind, pool_norm, train):
    stage, *arguments, weights = problem(kind, pool_norm=pool_norm, train=train)
    everything = jnp.linspace(-1, 1, weights.size).reshape(weights.shape)
    for chosen in (weights, everything):
        loop, plain = (run(executor, stage, *arguments, chosen) for executor in (execute, execute_plain))
        assert_same_run(stage, chosen, loop, plain)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(plain["gradients"]))


@pytest.mark.parametrize(
    "kind, names, inputs, fields",
    (
        (SMALL, ("skip_connect", "noise", "none", "nor_conv_1x1"), 2, {"dropout": "skip"}),
        (REDUCE_0, ("skip_connect", "max_pool_3x3"), 2, {"dropout": "path"}),
        (SMALL, ("max_pool_3x3", "none", "skip_connect"), 2, {"partial": 2, "train": False}),
        (REDUCE_0, ("none", "skip_connect"), 2, {"partial": 2}),
        (SMALL, ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"), 1, {}),
    ),
    ids=("noise and dropped skips", "dropped paths", "half", "half of a reduction", "NAS-Bench-201"),
)
def test_loop_is_the_plain_sum_of_what_other_methods_and_spaces_need(kind, names, inputs, fields):
    space = SearchSpace("small", names, nodes=kind[2], inputs=inputs)
    stage, *arguments, weights = problem(kind, space=space, channels=4, **fields)
    everything = jnp.linspace(-1, 1, weights.size).reshape(weights.shape)
    with quick_compiler():
        loop, plain = (run(executor, stage, *arguments, everything) for executor in (execute, execute_plain))
    assert_same_run(stage, everything, loop, plain)
    for path, gradient in jax.tree.leaves_with_path(plain["gradients"]):
        draw = getattr(path[-1], "key", None) in ("seed", "rate", "keep")
        assert draw or np.abs(gradient).max() > 0, path
    dweights = np.abs(loop["gradients"][3]).max(axis=0) > 0
    executed_ops = [name != "none" or stage.partial > 1 for name in stage.op_names]
    assert dweights.tolist() == executed_ops


def test_every_edge_draws_for_itself_its_ops_together_and_f32_holds_the_seeds():
    stage = Stage(((0, 2), (1, 2)), ("skip_connect", "noise", "max_pool_3x3"), CHANNELS, 1, dropout="skip")
    first, second = (stage.init_draws(jax.random.key(k), 0.25, 9) for k in (0, 1))
    assert first.keys() == {"skip_connect", "noise"}
    for draws in (first, second):
        np.testing.assert_array_equal(draws["skip_connect"]["seed"], draws["noise"]["seed"])
    seeds = np.concatenate([draws["noise"]["seed"] for draws in (first, second)])
    assert len(set(seeds.tolist())) == 4 and seeds.dtype == np.float32
    np.testing.assert_array_equal(seeds, seeds.astype(np.uint32))
    assert seeds.max() < 2**24 and np.log2(seeds).max() > 20
    assert first["skip_connect"]["rate"].tolist() == [0.25, 0.25]


def test_every_edge_drops_images_of_its_own_from_all_its_ops_and_keeps_the_mean():
    """Binomial tests: of each edge, and of what two edges or two draws drop together."""
    stage = Stage(((0, 2), (1, 2)), ("skip_connect", "noise", "max_pool_3x3"), CHANNELS, 1, dropout="path")
    first, second = (stage.init_draws(jax.random.key(k), 0.25, 4000) for k in (0, 1))
    assert {name: set(draws) for name, draws in first.items()} == {
        "skip_connect": {"keep"},
        "noise": {"seed", "keep"},
        "max_pool_3x3": {"keep"},
    }
    keep = first["noise"]["keep"]
    assert all(np.array_equal(draws["keep"], keep) for draws in first.values())
    np.testing.assert_allclose(np.unique(keep), [0, 1 / 0.75], rtol=1e-6)
    dropped, other = np.asarray(keep == 0), np.asarray(second["noise"]["keep"] == 0)
    for which, probability in (
        (dropped[0], 0.25),
        (dropped[1], 0.25),
        (dropped[0] & dropped[1], 0.25**2),
        (dropped[0] & other[0], 0.25**2),
    ):
        assert scipy.stats.binomtest(int(which.sum()), which.size, probability).pvalue > 1e-4


def test_parts_of_a_batch_drop_the_images_of_the_whole_batch_and_have_seeds_of_their_own():
    stage = Stage(((0, 2), (1, 2)), ("skip_connect", "noise"), CHANNELS, 1, dropout="path")
    whole = stage.init_draws(jax.random.key(0), 0.25, 12)
    spread = dataclasses.replace(stage, axis_name="data")
    parts = jax.vmap(lambda _: spread.init_draws(jax.random.key(0), 0.25, 3), axis_name="data")(jnp.arange(4))
    keep = parts["noise"]["keep"]
    np.testing.assert_array_equal(jnp.concatenate(list(keep), axis=1), whole["noise"]["keep"])
    assert len(set(np.ravel(parts["noise"]["seed"]).tolist())) == 8


def test_without_running_statistics_an_evaluation_is_differentiated_through_the_batch():
    stage, params, _, *arguments = problem(SMALL, train=True)
    stage = dataclasses.replace(stage, train=False)
    loop, plain = (run(executor, stage, params, None, *arguments) for executor in (execute, execute_plain))
    assert_same_run(stage, arguments[-1], loop, plain)


def test_a_stage_without_parameters_is_the_plain_sum():
    names = ("max_pool_3x3", "none", "skip_connect")
    stage = Stage(((0, 2), (1, 2), (2, 3)), names, CHANNELS, stride=1)
    states = jax.random.normal(jax.random.key(0), (4, 3, 4, 4, CHANNELS))
    weights = jax.random.normal(jax.random.key(1), (3, 3))
    loop, plain = (run(executor, stage, {}, None, None, states, weights) for executor in (execute, execute_plain))
    assert_same_run(stage, weights, loop, plain)


# The ops of the paper, with XLA's own convolutions and windows -----------------------------------------------------


def conv(x, kernel, stride=1, dilation=1, groups=1):
    pad = (dilation * (kernel.shape[0] - 1) // 2,) * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (pad, pad),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def norm(x):
    return (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)


def separable(x, depthwise, pointwise, stride, dilation=1):
    x = conv(jnp.maximum(x, 0), depthwise[:, :, None], stride, dilation, groups=CHANNELS)
    return norm(conv(x, pointwise[None, None]))


def window(x, stride, init, combine):
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, init, combine, (1, 3, 3, 1), (1, stride, stride, 1), pads)


@functools.partial(jax.jit, static_argnums=(0, 3))
def reference(name, p, x, stride):
    """An op as section 3.1.1 of DARTS and its supernet have it, with BN after the pools."""
    if name == "skip_connect":
        if stride == 1:
            return x
        x = jnp.maximum(x, 0)
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        halves = [conv(x, p["even"][None, None], 2), conv(shifted, p["odd"][None, None], 2)]
        return norm(jnp.concatenate(halves, -1))
    if name == "sep_conv_3x3":
        x = separable(x, p["depthwise_0"], p["pointwise_0"], stride)
        return separable(x, p["depthwise_1"], p["pointwise_1"], 1)
    if name == "dil_conv_5x5":
        return separable(x, p["depthwise_0"], p["pointwise_0"], stride, dilation=2)
    if name == "max_pool_3x3":
        return norm(window(x, stride, -jnp.inf, lax.max))
    return norm(window(x, stride, 0.0, lax.add) / window(jnp.ones_like(x), stride, 0.0, lax.add))


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_each_op_is_the_papers(kind):
    stage, params, stats, inputs, states, weights = problem(kind)
    edge = 1
    source, target = stage.edges[edge]
    for o, name in enumerate(OPS):
        alone = jnp.zeros_like(weights).at[edge, o].set(0.7)
        found = run(execute, stage, params, stats, inputs, states, alone)["states"]
        if name == "none":
            np.testing.assert_array_equal(found, states)
            continue
        p = jax.tree.map(lambda a: a[edge], params.get(name))
        y = reference(name, p, (states if inputs is None else inputs)[source], stage.stride)
        assert_near(found, states.at[target].add(0.7 * y), 1e-5)


def test_an_edge_with_two_ops_adds_them_up():
    stage, params, stats, inputs, states, weights = problem(NORMAL)
    edge, (source, target) = 3, stage.edges[3]
    skip, conv_5x5 = OPS.index("skip_connect"), OPS.index("dil_conv_5x5")
    two = jnp.zeros_like(weights).at[edge, skip].set(0.3).at[edge, conv_5x5].set(-0.6)
    found = run(execute, stage, params, stats, inputs, states, two)["states"]
    y = reference("dil_conv_5x5", jax.tree.map(lambda a: a[edge], params["dil_conv_5x5"]), states[source], 1)
    assert_near(found, states.at[target].add(0.3 * states[source] - 0.6 * y), 1e-5)


# What is not executed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_what_has_no_weight_is_neither_read_nor_differentiated(kind):
    stage, params, *arguments, weights = problem(kind)
    expected = run(execute, stage, params, *arguments, weights)

    def poison(name, a):
        return np.where(executed(stage, weights, name).reshape(-1, *(1,) * (a.ndim - 1)), a, np.float32(np.nan))

    poisoned = {name: jax.tree.map(functools.partial(poison, name), sub) for name, sub in params.items()}
    assert any(np.isnan(a).any() for a in jax.tree.leaves(poisoned))
    found = run(execute, stage, poisoned, *arguments, weights)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))
    jax.tree.map(np.testing.assert_array_equal, found, expected)

    dparams, *_, dweights = found["gradients"]
    for name, sub in dparams.items():
        for a in jax.tree.leaves(sub):
            alive = np.abs(a).max(tuple(range(1, a.ndim))) > 0
            np.testing.assert_array_equal(alive, executed(stage, weights, name))
    off = (weights == 0) | (np.array(OPS) == "none")
    np.testing.assert_array_equal(dweights == 0, off)


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_without_weights_the_states_stay_as_they_were(kind):
    stage, *arguments, states, weights = problem(kind)
    found = run(execute, stage, *arguments, states, jnp.zeros_like(weights))
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
    stage = Stage(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("none", "dil_conv_3x3"), channels=2, stride=1)
    weights = jnp.zeros((5, 2)).at[jnp.array([1, 4]), 1].set(1.0).at[0, 0].set(1.0)
    states = jnp.ones((4, 1, 3, 3, 2))
    jax.block_until_ready(
        jax.jit(execute, static_argnums=0)(stage, stage.init_params(jax.random.key(0)), None, None, states, weights)
    )
    jax.effects_barrier()
    assert len(runs) == 2


@pytest.mark.parametrize("end", (0, 1))
def test_instructions_are_all_ops_with_a_weight_in_topological_order(end):
    for reduction in (False, True):
        for rows, stage in program(darts(), reduction, channels=2, pool_norm=True, train=True, axis_name=None):
            rng = np.random.default_rng(len(rows))
            weights = np.where(rng.random((len(rows), 8)) < 0.5, rng.normal(size=(len(rows), 8)), 0).astype(np.float32)
            listed = jax.tree.map(np.asarray, jax.jit(instructions, static_argnums=(0, 2))(stage, weights, end))
            names = list(stage.candidates)
            found = {}
            complete = set()  # nodes that have been read: nothing may be added to them any more
            for group, node in enumerate(listed.nodes.tolist()):
                for i in range(listed.starts[group], listed.starts[group + 1]):
                    source, target, edge, candidate, place = listed.table[i].tolist()
                    assert (source, target) == stage.edges[edge]
                    assert (source, target)[end] == node
                    assert place == edge * len(names) + candidate
                    found[edge, stage.op_names.index(names[candidate])] = listed.weights[i]
                    # Backward, the cotangent of the target is read and that of the source added to.
                    read, added = ((target, source), (source, target))[end]
                    if stage.stride == 1:
                        complete.add(read)
                    assert added not in complete
            assert listed.starts[-1] == len(found)
            assert found == {(e, o): weights[e, o] for e, o in np.argwhere(weights).tolist() if o > 0}


@pytest.mark.parametrize("reduction", (False, True))
def test_a_program_has_every_edge_once_between_the_right_nodes(reduction):
    stages = program(darts(), reduction, channels=2, pool_norm=True, train=True, axis_name=None)
    assert sorted(e for rows, _ in stages for e in rows) == list(range(14))
    found = {}
    for rows, stage in stages:
        for e, (source, target) in zip(rows, stage.edges, strict=True):
            # The states of a reduction cell begin with node 2, what its first stage reads are the nodes 0 and 1.
            source += 2 if reduction and stage.stride == 1 else 0
            target += 2 if reduction else 0
            found[e] = (source, target, stage.stride)
    edges = [(source, target) for target in range(2, 6) for source in range(target)]
    expected = {e: (s, t, 2 if reduction and s < 2 else 1) for e, (s, t) in enumerate(edges)}
    assert found == expected


# Under transformations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_a_gradient_is_the_same_whatever_else_is_asked_for(kind):
    stage, params, stats, inputs, states, weights = problem(kind)
    both = run(execute, stage, params, stats, inputs, states, weights)["gradients"]

    def of(params, weights):
        return loss(execute, stage, params, stats, inputs, states, weights)[0]

    for number, expected in ((0, both[0]), (1, both[3])):
        assert_near(jax.jit(jax.grad(of, number))(params, weights), expected, 1e-6)

    def products(numbers):
        return str(jax.make_jaxpr(jax.grad(of, numbers))(params, weights)).count("dot_general")

    assert products(1) < products((0, 1))  # the step of the logits does not pay for the gradients of the weights


def test_vmap_over_weights_is_a_loop_over_them():
    stage, *arguments, weights = problem(SMALL, pool_norm=False, train=False)
    many = jnp.stack([weights, jnp.roll(weights, 1), jnp.zeros_like(weights)])
    found = jax.jit(jax.vmap(lambda w: run(execute, stage, *arguments, w)))(many)
    for i, one in enumerate(many):
        expected = run(execute, stage, *arguments, one)
        assert_same_run(stage, one, jax.tree.map(operator.itemgetter(i), found), expected)


@pytest.mark.parametrize("kind", (NORMAL, REDUCE_0))
def test_bfloat16_is_near_and_keeps_parameters_in_float32(kind):
    stage, params, stats, inputs, states, weights = problem(kind)
    inputs16, states16 = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (inputs, states))
    found = run(execute, stage, params, stats, inputs16, states16, weights)
    expected = run(execute, stage, params, stats, inputs, states, weights)
    dparams, dinputs, dstates, dweights = found["gradients"]
    assert {a.dtype for a in jax.tree.leaves((found["states"], dinputs, dstates))} == {jnp.dtype(jnp.bfloat16)}
    assert {a.dtype for a in jax.tree.leaves((found["moments"], dparams, dweights))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(np.asarray(a, np.float32)).all() for a in jax.tree.leaves(found))
    for part, tolerance in (("states", 0.05), ("gradients", 0.3)):
        for f, e in zip(*(jax.tree.leaves(r[part]) for r in (found, expected)), strict=True):
            f, e = np.asarray(f, np.float32), np.asarray(e)
            assert np.linalg.norm(f - e) <= tolerance * np.linalg.norm(e)
