"""What configs may hold, what the files in configs/ hold, and the optimizers they describe."""

import importlib.util
import itertools
import math
import operator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.run import problems, settings
from prdarts_jax.search import methods

FOLDER = Path(__file__).parents[2] / "configs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sections_of_the_digits_config_are_their_own():
    config = load("digits").get_config()
    config.evaluation.augmentation.cutout = 2
    assert config.augmentation.cutout == 0 and config.evaluation.augmentation.pad == config.augmentation.pad == 1


def test_defaults_are_fresh_each_time():
    changed = settings.defaults()
    changed.weights.momentum = 0.1
    assert settings.defaults().weights.momentum == 0.9


# The settings of the papers and of the released code; what a file shares with others is stated once.
COMMON = {
    "weights.learning_rate": 0.025,
    "weights.momentum": 0.9,
    "weights.clip": 5.0,
    "logits.learning_rate": 3e-4,
    "logits.b1": 0.5,
    "logits.b2": 0.999,
    "logits.weight_decay": 1e-3,
    "augmentation.pad": 4,
    "channels": 16,
    "dtype": "float32",
    "image_size": 0,
    "num_examples": 0,
}
PAPER = COMMON | {
    "method": "pr_darts",
    "pr_darts.form": "paper",
    "pr_darts.lambda_skip": 0.01,
    "pr_darts.lambda_nonskip": 0.005,
    "pr_darts.lambda_path": 0.005,
    "pr_darts.start_temperature": 10.0,
    "pr_darts.end_temperature": 0.1,
    "epochs": 200,
    "batch_size": 128,
    "augmentation.cutout": 16,
    "augmentation.flip": True,
    "weights.end_learning_rate": 0.0,
    "weights.nesterov": False,
    "weights.weight_decay": 3e-4,
    "cells": 8,
}
RELEASED = PAPER | {
    "dataset": "cifar10",
    "pr_darts.form": "released",
    "pr_darts.start_temperature": 1.0,
    "pr_darts.drop": 0.4,
    "pr_darts.threshold": 0.2,
    "batch_size": 250,
    "augmentation.cutout": 0,
    "weights.end_learning_rate": 0.001,
    "weights.nesterov": True,
    "weights.weight_decay": 5e-4,
    "cells": 6,
    "pool_norm": False,
    "head_norm": True,
    "running_statistics": False,
}
DARTS = COMMON | {
    "dataset": "cifar10",
    "method": "darts",
    "epochs": 50,
    "batch_size": 64,
    "augmentation.cutout": 0,
    "augmentation.flip": True,
    "weights.end_learning_rate": 0.001,
    "weights.nesterov": False,
    "weights.weight_decay": 3e-4,
    "cells": 8,
    "space": "darts",
    "darts.second_order": False,
    "pool_norm": True,
    "head_norm": False,
}
EXPECTED = {
    "cifar10": PAPER | {"dataset": "cifar10"},
    "cifar100": PAPER | {"dataset": "cifar100"},
    "fashion_mnist": PAPER | {"dataset": "fashion_mnist"},
    "svhn": PAPER | {"dataset": "svhn", "augmentation.flip": False},
    "cifar10_released": RELEASED,
    "darts_cifar10": DARTS,
    "digits": {"dataset": "digits", "method": "pr_darts", "data_dir": ""},
}
CIFAR10_EVAL = {
    "job": "train",
    "dataset": "cifar10",
    "form": "cifar",
    "genotype": "PRDARTS",
    "channels": 36,
    "cells": 20,
    "auxiliary_weight": 0.0,
    "drop_path": 0.3,
    "label_smoothing": 0.0,
    "epochs": 600,
    "batch_size": 128,
    "augmentation.pad": 4,
    "augmentation.flip": True,
    "augmentation.cutout": 16,
    "weights.learning_rate": 0.025,
    "weights.end_learning_rate": 0.0,
    "weights.schedule": "cosine",
    "weights.momentum": 0.9,
    "weights.nesterov": False,
    "weights.weight_decay": 3e-4,
    "weights.clip": 5.0,
}
EXPECTED |= {
    "cifar10_eval": CIFAR10_EVAL,
    "cifar100_eval": CIFAR10_EVAL | {"dataset": "cifar100", "drop_path": 0.4},
    "svhn_eval": CIFAR10_EVAL | {"dataset": "svhn", "augmentation.flip": False},
    "imagenet_eval": CIFAR10_EVAL
    | {
        "dataset": "imagenet",
        "form": "imagenet",
        "image_size": 224,
        "channels": 48,
        "cells": 14,
        "auxiliary_weight": 0.4,
        "drop_path": 0.0,
        "label_smoothing": 0.1,
        "epochs": 250,
        "batch_size": 256,
        "weights.learning_rate": 0.1,
        "weights.schedule": "linear",
        "weights.weight_decay": 3e-5,
    },
}


EXPECTED |= {
    "darts_second_order_cifar10": DARTS | {"darts.second_order": True},
    "lambda_darts_cifar10": DARTS
    | {
        "method": "lambda_darts",
        "space": "darts_no_none",
        "lambda_darts.strength": 0.125,
        "lambda_darts.variant": "cosine",
    },
    "fair_darts_cifar10": DARTS
    | {
        "method": "fair_darts",
        "space": "darts_no_none",
        "fair_darts.zero_one": 10.0,
        "fair_darts.threshold": 0.85,
        "batch_size": 128,
        "weights.learning_rate": 0.005,
        "logits.learning_rate": 3e-3,
        "logits.b1": 0.9,
    },
    "p_darts_cifar10": DARTS
    | {
        "method": "p_darts",
        "p_darts.cells": (5, 11, 17),
        "p_darts.ops": (8, 5, 3),
        "p_darts.skip_dropout": (0.0, 0.4, 0.7),
        "p_darts.most_skips": 2,
        "p_darts.logits_start": 0.4,
        "epochs": 25,
        "batch_size": 96,
        "weights.end_learning_rate": 0.0,
        "logits.learning_rate": 6e-4,
    },
    "r_darts_cifar10": DARTS
    | {
        "method": "r_darts",
        "r_darts.window": 5,
        "r_darts.ratio": 0.75,
        "r_darts.early_stopping": True,
        "weights.weight_decay": 27e-4,
    },
    "pc_darts_cifar10": DARTS
    | {
        "method": "pc_darts",
        "pc_darts.partial": 4,
        "pc_darts.logits_start": 0.3,
        "batch_size": 256,
        "weights.learning_rate": 0.1,
        "weights.end_learning_rate": 0.0,
        "logits.learning_rate": 6e-4,
    },
    "gdas_cifar10": DARTS
    | {"method": "gdas", "gdas.start_temperature": 10.0, "gdas.end_temperature": 0.1, "epochs": 250},
    "random_search_cifar10": DARTS | {"method": "random_search"},
    "reinforce_cifar10": DARTS | {"method": "reinforce", "logits.learning_rate": 3e-3},
    "nas_bench_201": {field: value for field, value in DARTS.items() if field != "pool_norm"}
    | {"space": "nas_bench_201", "cells": 5, "weights.nesterov": True, "weights.weight_decay": 5e-4},
    "theory": {"claim": "", "thorough": False, "seed": 0},
}


def test_the_configs_are_those_expected():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_config_is_valid_says_its_command_and_has_the_published_numbers(name):
    module = load(name)
    config = module.get_config()
    settings.validate(config)
    command = f"python -m prdarts_jax.main --config=configs/{name}.py --workdir=runs/{name}"
    assert command in module.__doc__
    assert {field: operator.attrgetter(field)(config) for field in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.endswith("_eval") and name != "theory"])
def test_every_method_may_take_a_config_and_every_space_that_is_not_trained_in_afterwards(name):
    for method, space in itertools.product(methods.NAMED, spaces.NAMED):
        config = load(name).get_config()
        config.method, config.space = method, space
        if space == "nas_bench_201" and config.evaluation.epochs:
            with pytest.raises(ValueError, match="config.evaluation.epochs=20 must be 0 in the space nas_bench_201"):
                settings.validate(config)
        else:
            settings.validate(config)


def test_a_call_of_the_digits_config_is_an_epoch():
    config = load("digits").get_config()
    digits = sources.load("digits")
    settings.validate_against_data(config, digits)
    assert len(digits.labels) // 2 // config.batch_size == config.steps_per_call
    assert len(digits.labels) // config.evaluation.batch_size == config.evaluation.steps_per_call


@pytest.mark.parametrize("name", ["cifar10", "cifar10_released", "darts_cifar10"])
def test_a_config_builds_its_method(name):
    config = load(name).get_config()
    config.pr_darts.lambda_path = 0.125
    config.pr_darts.distinct_inputs = False
    built = problems.make_method(config)
    if name == "darts_cifar10":
        assert built == methods.Darts()
    else:
        start, form = (10.0, "paper") if name == "cifar10" else (1.0, "released")
        assert built == methods.PRDarts(form, lambda_path=0.125, distinct_inputs=False, start_temperature=start)


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
    "name, end, decay, nesterov",
    [("cifar10", 0.0, 3e-4, False), ("cifar10_released", 0.001, 5e-4, True), ("darts_cifar10", 0.001, 3e-4, False)],
)
def test_the_weights_follow_sgd_as_the_papers_have_it(name, end, decay, nesterov):
    """Clip, then decay, then momentum as PyTorch has it, the rate along a cosine."""
    config = load(name).get_config()
    w, gradients = vectors()
    velocity = np.zeros(3)
    for step, gradient in enumerate(gradients):
        rate = end + (0.025 - end) * (1 + math.cos(math.pi * step / STEPS)) / 2
        gradient = gradient * min(1, 5 / np.linalg.norm(gradient)) + decay * w
        velocity = 0.9 * velocity + gradient
        w = w - rate * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(run(problems.make_search_problem(config, 10, STEPS).weight_optimizer), w, rtol=1e-5)


def test_the_logits_follow_adam_with_decay_in_the_gradient():
    beta, gradients = vectors()
    first, second = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + 1e-3 * beta
        first = 0.5 * first + 0.5 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        beta = beta - 3e-4 * (first / (1 - 0.5**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    found = run(problems.make_search_problem(settings.defaults(), 10, STEPS).arch_optimizer)
    np.testing.assert_allclose(found - vectors()[0], beta - vectors()[0], rtol=1e-4)


def test_a_search_in_pieces_moves_once_a_batch_by_the_mean_of_their_gradients():
    config = settings.defaults()
    config.accumulate = 2
    pieces, whole = (
        problems.make_search_problem(config, 10, 2 * STEPS),
        problems.make_search_problem(settings.defaults(), 10, STEPS),
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
