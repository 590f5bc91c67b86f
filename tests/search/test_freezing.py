"""Operation-level early stopping, beside a loop over ops in NumPy, and in a step of a supernet."""

import dataclasses
import functools

import chain
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import Toy
from table import batch_of, jit_init, jit_step

import prdarts_jax as pdx
from prdarts_jax import spaces
from prdarts_jax.nets.supernet import by_op
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.step import search_step

SHAPES = {
    "cell_0": {"stage_0": {"a": {"dw": (3, 2, 2), "pw": (3, 4)}, "b": {"pw": (3, 2)}}},
    "stem": {"kernel": (2, 2)},
}


def tree_of(rng):
    return jax.tree.map(
        lambda shape: jnp.array(rng.normal(size=shape), jnp.float32), SHAPES, is_leaf=lambda s: isinstance(s, tuple)
    )


def test_ops_are_frozen_by_the_mean_cosine_of_a_window_and_stay_so():
    stopping, rng = pdx.OperationEarlyStopping(threshold=0.1, window=3), np.random.default_rng(0)
    optimizer = stopping(optax.sgd(0.5, momentum=0.5))
    params = {"params": tree_of(rng), "arch": {}}
    state = optimizer.init(params)
    update = jax.jit(lambda g, s, v: optimizer.update({"params": g, "arch": {}}, s, params, val_gradient=v))
    plain = optax.sgd(0.5, momentum=0.5)
    plain_state = plain.init(params)
    cosines, frozen = {(op, e): [] for op in ("a", "b") for e in range(3)}, set()
    for _ in range(9):
        train = tree_of(rng)
        val = jax.tree.map(lambda g: jnp.array(rng.normal(size=g.shape), jnp.float32) - 0.9 * g, train)
        ran = rng.random(3) < 0.7  # the gradients of an op that does not run are 0
        of_a = train["cell_0"]["stage_0"]["a"]
        train["cell_0"]["stage_0"]["a"] = {n: g * ran.reshape(-1, *[1] * (g.ndim - 1)) for n, g in of_a.items()}
        updates, state = update(train, state, val)
        expected, plain_state = plain.update({"params": train, "arch": {}}, plain_state)
        for (op, edge), found in cosines.items():
            g, v = (
                np.concatenate([np.ravel(a[edge]) for a in t["cell_0"]["stage_0"][op].values()]) for t in (train, val)
            )
            if np.any(g):
                both = g + v
                found.append(float(g @ both / np.sqrt((g @ g) * (both @ both))))
                if len(found) % 3 == 0 and np.mean(found[-3:]) < 0.1:
                    frozen.add((op, edge))
        np.testing.assert_array_equal(updates["params"]["stem"]["kernel"], expected["params"]["stem"]["kernel"])
        for op, of_op in updates["params"]["cell_0"]["stage_0"].items():
            for name, moves in of_op.items():
                for edge in range(3):
                    rests = (op, edge) in frozen
                    free = np.asarray(expected["params"]["cell_0"]["stage_0"][op][name][edge])
                    np.testing.assert_array_equal(moves[edge], np.zeros_like(free) if rests else free)
        assert float(stopping.metrics(state)["frozen"]) == pytest.approx(len(frozen) / 6)
    assert 0 < len(frozen) < 6
    judged = state
    _, state = optimizer.update({"params": train, "arch": {}}, state, params)  # without a validation gradient
    for name in ("total", "number", "frozen"):
        assert all(
            (a == b).all() for a, b in zip(getattr(state, name).values(), getattr(judged, name).values(), strict=True)
        )


def test_a_window_forgets_the_cosines_before_it():
    """The mean of the second window is -1/3, that of all six steps 1/3."""
    stopping, train = pdx.OperationEarlyStopping(threshold=0.1, window=3), tree_of(np.random.default_rng(0))
    optimizer, params = stopping(optax.sgd(0.1)), {"params": train, "arch": {}}
    state, shares = optimizer.init(params), []
    for agrees in (True, True, True, False, False, True):
        val = train if agrees else jax.tree.map(lambda g: -2 * g, train)
        _, state = optimizer.update(params, state, params, val_gradient=val)
        shares.append(float(stopping.metrics(state)["frozen"]))
    assert shares == [0, 0, 0, 0, 0, 1]


def test_a_search_freezes_ops_on_the_edges_that_disagree():
    space = spaces.SearchSpace("two", ("skip_connect", "dil_conv_3x3"), nodes=3)
    supernet = pdx.Supernet(space, channels=2, cells=3)
    method = methods.oles(threshold=0.05, window=2)
    problem = SearchProblem(supernet, method, optax.sgd(0.1), optax.adam(0.01), 8)
    rng = np.random.default_rng(0)
    batches = [
        {"image": jnp.array(rng.normal(size=(8, 8, 8, 3)), jnp.float32), "label": jnp.array(rng.integers(0, 10, 8))}
        for _ in range(2)
    ]
    state = jit_init(problem, jax.random.key(0), batches[0]["image"])
    convolutions = {f"cell_{cell}/stage_0/dil_conv_3x3" for cell in range(3)}
    reductions = {f"cell_{cell}/stage_0/skip_connect" for cell in (1, 2)}  # with stride 2 a skip connection has weights
    assert set(by_op(state.params)) == convolutions | reductions
    shares = []
    for _ in range(6):
        before = state
        state, metrics = jit_step(problem, state, *batches)
        shares.append(float(metrics["frozen"]))
        old = before.opt_state.inner_states["params"].inner_state.frozen
        now = state.opt_state.inner_states["params"].inner_state.frozen
        for op, tree in by_op(state.params).items():
            for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(by_op(before.params)[op]), strict=True):
                still = (np.asarray(a) == np.asarray(b)).reshape(len(a), -1).all(axis=1)
                assert still[np.asarray(now[op])].all() and not still[~np.asarray(now[op])].any()
            assert (now[op] | ~old[op]).all()
    assert shares[0] == 0 and shares[-1] > 0 and sorted(shares) == shares


class Stage(nn.Module):
    """The weights of one op, on every edge."""

    @nn.compact
    def __call__(self):
        return Op(name="op")()


class Op(nn.Module):
    @nn.compact
    def __call__(self):
        return self.param("kernel", nn.initializers.normal(1.0), (chain.EDGES, chain.WIDTH, chain.WIDTH))


class Staged(chain.Normed):
    """The chain with weights named as a supernet of the package names them."""

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        logits = self.variable("arch", "normal", jnp.zeros, chain.SHAPE).value
        kernel = jnp.stack([Stage(name=f"stage_{layer}")() for layer in range(chain.LAYERS)])
        head = self.param("head", nn.initializers.normal(1.0), (chain.WIDTH, chain.CLASSES))
        weights = chain.weights_of(logits) if op_weights is None else op_weights["normal"]
        return chain.predict({"kernel": kernel, "head": head}, weights, self.stem(images))


def test_parts_of_a_batch_freeze_the_ops_that_the_batch_freezes():
    method, weights = methods.oles(threshold=0.3, window=1), optax.sgd(0.01)
    batches = chain.make_batch(1, 8), chain.make_batch(2, 8)
    problem = chain.make_problem(Staged(), method, weights)
    state = jit_init(problem, jax.random.key(0), batches[0]["image"])
    expected, _ = jit_step(problem, state, *batches)
    step = functools.partial(search_step, chain.make_problem(Staged(axis_name="data"), method, weights), state)
    found, metrics = jax.jit(jax.vmap(step, axis_name="data"))(*chain.split(batches))
    assert 0 < metrics["frozen"][0] < 1
    for name in ("params", "opt_state"):
        for part in range(4):
            jax.tree.map(
                lambda a, b, part=part: np.testing.assert_allclose(a[part], b, rtol=0, atol=1e-5),
                getattr(found, name),
                getattr(expected, name),
            )


def test_both_gradients_are_those_of_the_same_drawn_ops():
    """Then they are equal on the same images, and their cosine is 1."""
    method = dataclasses.replace(methods.oles(window=100), relaxation=pdx.relaxations.Gumbel())
    problem, batch = chain.make_problem(Staged(), method, optax.sgd(0.01)), chain.make_batch(1)
    state = jit_init(problem, jax.random.key(0), batch["image"])
    for step in range(1, 5):
        state, _ = jit_step(problem, state, batch, batch)
        found = state.opt_state.inner_states["params"].inner_state
        for op, total in found.total.items():
            assert (found.number[op] == step).all()
            np.testing.assert_allclose(total, step, rtol=1e-5)


def test_a_supernet_whose_ops_cannot_be_told_apart_is_refused():
    problem = SearchProblem(Toy(spaces.nas_bench_201()), methods.oles(), optax.sgd(0.1), optax.sgd(0.1), 5)
    with pytest.raises(ValueError, match="OperationEarlyStopping needs a supernet of the package"):
        jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
