"""Cells chosen with the shared weights: by perturbation, as plain loops have it, and as the best of drawn ones."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import Toy, softmax_of
from table import jit_init

from prdarts_jax import spaces
from prdarts_jax.search import methods, perturbation
from prdarts_jax.search.perturbation import Perturbation
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.selection import BestCell
from prdarts_jax.spaces import discretizations

TWO_INPUTS = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=4)
EVERY_EDGE = dataclasses.replace(
    spaces.nas_bench_201(), name="small", ops=("none", "skip_connect", "nor_conv_3x3"), nodes=3
)
IMAGES, LABELS = jax.random.normal(jax.random.key(1), (3, 16, 2, 2, 1)), jnp.arange(48).reshape(3, 16) % 10
BATCHES = {"image": IMAGES, "label": LABELS}
STEPS, RATE = 2, 0.5


def train_batch(number):
    return {"image": IMAGES[number % 3] + 0.1 * number, "label": LABELS[number % 3]}


def searched(space, method="darts", supernet=None):
    """(problem, state) of a search in whose supernet the ops differ."""
    problem = SearchProblem(supernet or Toy(space), methods.NAMED[method](), optax.sgd(0.1), optax.sgd(0.1), 5)
    state = jit_init(problem, jax.random.key(0), IMAGES[0])
    logits = {t: state.arch[t] + jax.random.normal(jax.random.key(3), space.shape) for t in space.cell_types}
    return problem, state.replace(arch=state.arch | logits)


def choose(part, problem, state):
    chosen = jax.jit(part, static_argnums=(0, 2))(problem, state, train_batch, BATCHES)
    return {t: np.asarray(rows) for t, rows in chosen.items()}


# Perturbation against plain loops -------------------------------------------------------------------------------------


def plain_weights(logits, left):
    """The softmax over the ops that are left, {cell type: f64[1, edges, ops]}."""
    weights = {}
    for t, rows in left.items():
        weights[t] = np.zeros((1, *rows.shape), np.float32)
        for edge, row in enumerate(rows):
            if row.any():
                weights[t][0, edge, row] = softmax_of(np.asarray(logits[t])[edge : edge + 1, row])
    return weights


@functools.partial(jax.jit, static_argnums=0)
def log_probabilities(supernet, variables, image, weights):
    return jax.nn.log_softmax(supernet.apply(variables, image, weights, train=True))


def plain_accuracy(problem, variables, weights):
    """(mean accuracy, minus the mean loss)."""
    accuracies, losses = [], []
    for image, label in zip(IMAGES, LABELS, strict=True):
        p = np.asarray(log_probabilities(problem.supernet, variables, image, weights))
        accuracies.append(np.mean(p.argmax(axis=1) == label))
        losses.append(-np.mean(p[np.arange(len(p)), label]))
    return np.mean(accuracies), -np.mean(losses)


def plain_perturbation(problem, state, decisions):
    space, variables, logits = problem.supernet.space, {"params": state.params, "arch": state.arch}, state.arch
    left = {t: np.ones(space.shape, bool) for t in space.cell_types}

    def without(t, edge, op):
        removed = {name: rows.copy() for name, rows in left.items()}
        removed[t][edge, op] = False
        return plain_accuracy(problem, variables, plain_weights(logits, removed))

    @jax.jit
    def gradient(params, weights, batch):
        def loss(params):
            p = log_probabilities(problem.supernet, variables | {"params": params}, batch["image"], weights)
            return -jnp.mean(p[jnp.arange(16), batch["label"]])

        return jax.grad(loss)(params)

    for i, (cell_type, edge, node) in enumerate(decisions):
        for step in range(STEPS if i else 0):
            slope = gradient(variables["params"], plain_weights(logits, left), train_batch(i * STEPS + step))
            variables["params"] = jax.tree.map(lambda p, g: p - RATE * g, variables["params"], slope)
        t = space.cell_types[cell_type]
        if edge >= 0:
            names = [op for op in space.ops if op != "none" or not space.entries_per_node]
            harm = {op: without(t, edge, space.ops.index(op)) for op in names}
            left[t][edge] = np.array(space.ops) == min(harm, key=harm.get)
        else:
            inputs = [e for e, (_, target) in enumerate(space.edges) if target == node]
            harm = {e: without(t, e, slice(None)) for e in inputs}
            for e in sorted(inputs, key=harm.get)[space.entries_per_node :]:
                left[t][e] = False
    return left


@pytest.mark.parametrize(
    "space, decisions",
    [
        (TWO_INPUTS, [(i % 2, e, -1) for i, e in enumerate((3, 1, 0, 4, 2, 2, 4, 0, 1, 3))] + [(1, -1, 3), (0, -1, 3)]),
        (EVERY_EDGE, [(0, 2, -1), (0, 0, -1), (0, 1, -1)]),
    ],
    ids=["two inputs a node", "every edge"],
)
def test_the_op_and_the_input_whose_removal_hurts_most_stay(space, decisions, monkeypatch):
    monkeypatch.setattr(perturbation, "_decisions", lambda space, key: jnp.array(decisions))
    problem, state = searched(space)
    found = choose(Perturbation(STEPS, optax.sgd(RATE)), problem, state)
    expected = plain_perturbation(problem, state, decisions)
    for t in space.cell_types:
        np.testing.assert_array_equal(found[t], expected[t])
    if space == TWO_INPUTS:
        untrained = choose(Perturbation(0, optax.sgd(RATE)), problem, state)
        assert any((found[t] != untrained[t]).any() for t in found)
    genotype = discretizations.chosen(space, found)
    of_logits = problem.method.derive(space, jax.device_get(state.arch))
    assert genotype != of_logits and isinstance(genotype, space.genotype_class)


def test_the_order_is_random_edges_before_nodes_that_have_more_than_they_keep():
    space = spaces.darts()
    orders = {tuple(map(tuple, perturbation._decisions(space, jax.random.key(i)).tolist())) for i in range(3)}
    assert len(orders) == 3
    for order in orders:
        assert set(order[:28]) == {(t, edge, -1) for t in (0, 1) for edge in range(14)}
        assert set(order[28:]) == {(t, -1, node) for t in (0, 1) for node in (3, 4, 5)} and len(order) == 34
    assert (perturbation._decisions(spaces.nas_bench_201(), jax.random.key(0))[:, 2] == -1).all()


# A supernet in which the largest logit is wrong -----------------------------------------------------------------------


class Misleading(nn.Module):
    """The more weight one op of each edge has, another one on each, the more images are classified; others are of no
    use."""

    space: spaces.SearchSpace = EVERY_EDGE

    @property
    def layers(self):
        return {"normal": 1}

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        self.variable("arch", "normal", jnp.zeros, self.space.shape)
        scale = self.param("scale", nn.initializers.ones, ())
        useful = (jnp.arange(3)[:, None] + 1) % 3 == jnp.arange(3)  # another op on each edge
        right = jnp.sum(op_weights["normal"][0] * useful) if op_weights else 0.0
        label = jnp.round(images[:, 0, 0, 0]).astype(jnp.int32)
        clear = jnp.arange(len(images)) < len(images) * right / 3
        return scale * jax.nn.one_hot(jnp.where(clear, label, label + 1), 10)


RIGHT = np.array([[False, True, False], [False, False, True], [True, False, False]])


@pytest.mark.parametrize("part", [Perturbation(1, optax.sgd(0.1)), BestCell(200)], ids=["perturbation", "best_of"])
def test_an_op_that_only_has_the_largest_logit_is_not_chosen(part, monkeypatch):
    problem, state = searched(EVERY_EDGE, supernet=Misleading())
    logits = jnp.where(RIGHT, 0.0, 1.0)
    state = state.replace(arch={"normal": logits})
    monkeypatch.setitem(BATCHES, "image", jnp.broadcast_to(LABELS[:, :, None, None, None] % 9, IMAGES.shape) * 1.0)
    monkeypatch.setitem(BATCHES, "label", LABELS % 9)
    of_logits = problem.method.derive(EVERY_EDGE, {"normal": logits})
    found = choose(part, problem, state)
    np.testing.assert_array_equal(found["normal"], RIGHT)
    chosen = discretizations.chosen(EVERY_EDGE, found)
    assert all(a != b for a, b in zip(chosen.ops, of_logits.ops, strict=True))


# The best of drawn cells ----------------------------------------------------------------------------------------------


def test_of_all_cells_that_of_the_largest_accuracy_is_the_best():
    problem, state = searched(EVERY_EDGE)
    found = choose(BestCell(600), problem, state)["normal"]
    cells = [np.eye(3, dtype=np.float32)[list(ops)] for ops in itertools.product(range(3), repeat=3)]
    variables = {"params": state.params, "arch": state.arch}
    accuracies = [plain_accuracy(problem, variables, {"normal": cell[None]}) for cell in cells]
    assert len({accuracy for accuracy, _ in accuracies}) > 3
    np.testing.assert_array_equal(found, cells[max(range(27), key=accuracies.__getitem__)])


def test_cells_of_another_seed_are_others_and_those_of_the_same_the_same():
    problem, state = searched(TWO_INPUTS)
    draw = jax.jit(BestCell(1), static_argnums=(0, 2))
    keys = [0, 0, *range(1, 9)]
    found = [draw(problem, state.replace(key=jax.random.key(i)), train_batch, BATCHES) for i in keys]
    cells = [tuple(np.asarray(cell[t]).tobytes() for t in sorted(cell)) for cell in found]
    assert cells[0] == cells[1] and len(set(cells)) > 5
    for cell in found:
        for rows in cell.values():
            assert (rows.sum(axis=1) <= 1).all() and not rows[:, 0].any()  # never none
            assert (rows[:2].sum(), rows[2:].sum()) == (2, 2)
