"""What a config describes: its method, the stages and supernets it has, and its optimizers."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prdarts_jax import spaces
from prdarts_jax.run import problems, settings, validation
from prdarts_jax.search import methods


def test_the_method_has_the_settings_of_its_section():
    config = settings.search()
    config.pr_darts.lambda_path = 0.125
    config.pr_darts.distinct_inputs = True
    config.pr_darts_released.lambda_path = 0.5  # of another method
    assert problems.make_method(config) == methods.pr_darts(lambda_path=0.125, distinct_inputs=True)


@pytest.mark.parametrize("method", methods.NAMED)
def test_the_logits_of_every_method_and_stage_start_when_the_config_says_so(method):
    config = settings.search(method)
    own = problems.make_method(config)
    config.logits.start = 0.75
    late = problems.make_method(config)
    assert {stage.method.logits_start for stage in problems.stages_of(late)} == {late.logits_start} == {0.75}
    assert dataclasses.replace(late, logits_start=own.logits_start, stages=own.stages) == own
    assert [stage.ops for stage in late.stages] == [stage.ops for stage in own.stages]


def test_each_method_can_search_each_space():
    for method, space in itertools.product(methods.NAMED, spaces.NAMED):
        config = settings.search(method)
        config.space = space
        validation.validate(config)
        for stage in problems.stages_of(problems.make_method(config)):
            supernet = problems.make_supernet(config, stage.method, 10)
            assert supernet.space == spaces.named(space) and supernet.num_classes == 10
            assert supernet.partial == (4 if method == "pc_darts" else 1)
            assert supernet.cells == stage.method.supernet.get("cells", config.cells)


STEPS = 6
PARAMS = {"a": np.array([0.5, -1.0]), "b": np.array([2.0])}
GRADIENTS = [{"a": np.array([3.0, -k]), "b": np.array([0.1 + 2 * k])} for k in range(STEPS)]  # some norms exceed 5


def run(optimizer):
    params = jax.tree.map(np.float32, PARAMS)
    state = optimizer.init(params)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(jax.tree.map(np.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
    return np.concatenate([params["a"], params["b"]])


def vectors():
    return np.concatenate([*PARAMS.values()]), [np.concatenate([*gradient.values()]) for gradient in GRADIENTS]


@pytest.mark.parametrize(
    "method, end, decay, nesterov",
    [("pr_darts", 0.0, 3e-4, False), ("pr_darts_released", 0.001, 5e-4, True), ("darts", 0.001, 3e-4, False)],
)
def test_the_weights_follow_sgd_as_the_papers_have_it(method, end, decay, nesterov):
    """Clip, then decay, then momentum as PyTorch has it, the rate along a cosine."""
    config = settings.search(method)
    w, gradients = vectors()
    velocity = np.zeros(3)
    for step, gradient in enumerate(gradients):
        rate = end + (0.025 - end) * (1 + math.cos(math.pi * step / STEPS)) / 2
        gradient = gradient * min(1, 5 / np.linalg.norm(gradient)) + decay * w
        velocity = 0.9 * velocity + gradient
        w = w - rate * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(run(problems.make_search_problem(config, 10, STEPS).weight_optimizer), w, rtol=1e-5)


def test_gradients_that_are_not_clipped_can_be_differentiated():
    config = settings.search("darts")
    config.weights.clip = math.inf
    optimizer = problems.make_search_problem(config, 10, STEPS).weight_optimizer

    def moved(gradient):
        return sum(map(jnp.sum, jax.tree.leaves(optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0])))

    derivative = jax.grad(moved)(jax.tree.map(np.float32, GRADIENTS[-1]))
    np.testing.assert_allclose(np.concatenate([*derivative.values()]), -config.weights.learning_rate, rtol=1e-5)


def test_the_logits_follow_adam_with_decay_in_the_gradient():
    beta, gradients = vectors()
    first, second = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + 1e-3 * beta
        first = 0.5 * first + 0.5 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        beta = beta - 3e-4 * (first / (1 - 0.5**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    found = run(problems.make_search_problem(settings.search(), 10, STEPS).arch_optimizer)
    np.testing.assert_allclose(found - vectors()[0], beta - vectors()[0], rtol=1e-4)


def test_a_search_in_pieces_moves_once_a_batch_by_the_mean_of_their_gradients():
    config = settings.search()
    config.accumulate = 2
    pieces, whole = (
        problems.make_search_problem(config, 10, 2 * STEPS),
        problems.make_search_problem(settings.search(), 10, STEPS),
    )
    for name in ("weight_optimizer", "arch_optimizer"):
        of_pieces, of_whole = getattr(pieces, name), getattr(whole, name)
        w = expected = jnp.ones(3)
        state, expected_state = of_pieces.init(w), of_whole.init(w)
        update_piece, update_whole = jax.jit(of_pieces.update), jax.jit(of_whole.update)
        for step in range(STEPS):
            gradient, difference = (a.astype(np.float32) for a in (np.sin(step + np.arange(3)), np.cos(np.arange(3))))
            updates, expected_state = update_whole(gradient, expected_state, expected)
            expected = optax.apply_updates(expected, updates)
            for piece in (gradient + difference, gradient - difference):
                updates, state = update_piece(piece, state, w)
                w = optax.apply_updates(w, updates)
            np.testing.assert_allclose(w, expected, rtol=1e-6)
