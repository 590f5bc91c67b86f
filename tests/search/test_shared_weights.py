"""The mean op weights of every method, and what is measured with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import Toy, logistic, softmax_of
from table import jit_init

from prdarts_jax import spaces
from prdarts_jax.run.problems import stages_of
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.schedules import Linear
from prdarts_jax.search.shared_weights import mean_weights, measure

SPACE = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3", "dil_conv_3x3"), nodes=4)
LOGITS = np.random.default_rng(0).normal(size=SPACE.shape).astype(np.float32)
LEFT = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], bool)


def searched(name):
    method = stages_of(methods.NAMED[name]())[0].method
    problem = SearchProblem(Toy(SPACE, **method.supernet), method, optax.sgd(0.1), optax.sgd(0.1), 5)
    state = jit_init(problem, jax.random.key(0), jnp.zeros((2, 2, 2, 1)))
    logits = dict.fromkeys(SPACE.cell_types, jnp.array(LOGITS))
    return problem, state.replace(arch=state.arch | logits, step=jnp.int32(5))


def softmax_left():
    return softmax_of(np.where(LEFT | ~LEFT.any(axis=1, keepdims=True), LOGITS, -1e9))


def share(most):
    """How likely an op is among so many of those left that are drawn uniformly."""
    count = LEFT.sum(axis=1, keepdims=True)
    return np.minimum(most, count) / np.maximum(count, 1)


def mean_gate():
    """Of hard-concrete gates at the end of a search, at the temperature 0.1, by integration over the noise."""
    u = (np.arange(20_000) + 0.5) / 20_000
    noise = np.log(u) - np.log1p(-u)
    return np.clip(-0.1 + 1.2 * logistic((LOGITS[..., None] + noise) / 0.1), 0, 1).mean(axis=-1)


EXPECTED = {
    "darts": softmax_left,
    "pc_darts": lambda: softmax_left() * np.array([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])[:, None],  # equal edges
    "fair_darts": lambda: logistic(LOGITS),
    "pr_darts": lambda: share(2) * mean_gate(),
    "gdas": softmax_left,
    "reinforce": softmax_left,
    "random_search": None,
    "pr_darts_released": None,
    "p_darts": softmax_left,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_weights_are_the_mean_of_what_is_drawn_among_the_ops_that_are_left(name):
    problem, state = searched(name)
    if name == "pc_darts":
        state = state.replace(arch=state.arch | {f"{t}_edges": jnp.zeros(5) for t in SPACE.cell_types})
    found = jax.jit(mean_weights, static_argnums=0)(problem, state, dict.fromkeys(SPACE.cell_types, jnp.array(LEFT)))
    for t in SPACE.cell_types:
        weights = np.asarray(found[t])
        assert (weights[~LEFT] == 0).all() and weights[2, 2] == 1 and np.isfinite(weights).all()
        if name == "pr_darts_released":  # two ops an edge of weight 1
            np.testing.assert_allclose(weights[[0, 1, 4]].sum(axis=1), 2, rtol=1e-5)
        elif name == "random_search":
            assert (weights[:, 0] == 0).all()
            np.testing.assert_allclose(weights[0, 1:], 1 / 4, atol=0.06)
            np.testing.assert_allclose(weights[:2].sum(axis=1), 1, atol=1e-5)
        else:
            sure = np.where(LEFT, EXPECTED[name](), 0)
            sure[2, 2] = 1
            drawn = name in ("pr_darts", "gdas", "reinforce")
            np.testing.assert_allclose(weights, sure, atol=0.06 if drawn else 1e-5)


def test_what_is_measured_are_the_means_over_the_batches_without_dropout():
    problem, state = searched("darts")
    rate = dataclasses.replace(problem, method=dataclasses.replace(problem.method, dropout_rate=Linear(0.9, 0.9)))
    batches = {
        "image": jax.random.normal(jax.random.key(1), (3, 8, 2, 2, 1)),
        "label": jnp.arange(24).reshape(3, 8) % 10,
    }
    weights = {t: jnp.array(LEFT, jnp.float32) for t in SPACE.cell_types}
    arguments = state, jax.random.key(0), batches, weights
    loss, accuracy = jax.jit(measure, static_argnums=0)(rate, *arguments)
    variables, in_layers = {"params": state.params, "arch": state.arch}, {t: w[None] for t, w in weights.items()}
    images, labels = batches["image"].reshape(24, 2, 2, 1), batches["label"].ravel()
    logits = problem.supernet.apply(variables, images, in_layers, train=True)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, np.mean(np.argmax(logits, axis=1) == labels), rtol=1e-6)
