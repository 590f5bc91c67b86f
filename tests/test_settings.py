"""What configs may hold, what the files in configs/ hold, and the optimizers they describe."""

import importlib.util
import math
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from prdarts_jax import data, methods, settings
from prdarts_jax.jobs import search

FOLDER = Path(__file__).parents[1] / "configs"
DEFAULTS = {"search": settings.defaults, "train": settings.training}


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(fields, prefix=""):
    found = {}
    for name, value in fields.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def with_field(field, value, job="search"):
    """The defaults with one field set, whatever its type."""
    fields = DEFAULTS[job]().to_dict()
    *sections, name = field.split(".")
    section = fields
    for key in sections:
        section = section[key]
    section[name] = value
    return ConfigDict(fields)


def refusal(config):
    with pytest.raises(ValueError) as error:
        settings.validate(config)
    return str(error.value)


# field: (values that are refused, what the message says is allowed, values that are accepted)
TRAINING_RULES = {
    "channels": ([0, -2, 3], "even and at least 2", [2, 16]),
    "cells": ([0], "at least 1", [1]),
    "auxiliary_weight": ([-0.1, math.nan], "at least 0", [0.0, 0.4]),
    "drop_path": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "label_smoothing": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "ema": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0, 0.999]),
    "dtype": (["float64", "float16"], "one of float32, bfloat16", ["bfloat16"]),
    "epochs": ([-1], "at least 0", [0]),
    "batch_size": ([0], "at least 1", [1]),
    "accumulate": ([0], "at least 1", [1, 2]),
    "steps_per_call": ([0], "at least 1", [1]),
    "augmentation.pad": ([-1], "at least 0", [0]),
    "augmentation.cutout": ([-1], "at least 0", [0]),
    "weights.learning_rate": ([0.0, -1.0, math.nan], "above 0", [0.1]),
    "weights.end_learning_rate": ([-0.1, math.nan], "at least 0", [0.0]),
    "weights.schedule": (["step"], "one of cosine, linear", ["linear"]),
    "weights.warmup_epochs": ([-1], "at least 0", [0]),
    "weights.momentum": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "weights.weight_decay": ([-0.1, math.nan], "at least 0", [0.0]),
    "weights.clip": ([0.0, -1.0, math.nan], "above 0", [0.1, math.inf]),
}
SEARCH_RULES = {
    "dataset": (["mnist", ""], "one of digits, cifar10, cifar100, svhn, fashion_mnist", ["svhn"]),
    "image_size": ([-1], "at least 0", [0, 16]),
    "num_examples": ([-5], "at least 0", [0, 100]),
    "split_seed": ([-1, 2**32], "from 0 to 4294967295", [0, 3]),
    "seed": ([-1, 2**32], "from 0 to 4294967295", [0, 3]),
    "epochs": ([0, -1], "at least 1", [1]),
    "batch_size": ([0], "at least 1", [1]),
    "steps_per_call": ([0], "at least 1", [1]),
    "augmentation.pad": ([-1], "at least 0", [0]),
    "augmentation.cutout": ([-1], "at least 0", [0]),
    "method": (["enas"], "one of pr_darts, darts", ["darts"]),
    "pr_darts.form": (["published"], "one of paper, released", ["released"]),
    "pr_darts.lambda_skip": ([-0.1, math.nan], "at least 0", [0.0, 2]),
    "pr_darts.lambda_nonskip": ([-0.1, math.nan], "at least 0", [0.0]),
    "pr_darts.lambda_path": ([-0.1, math.nan], "at least 0", [0.0]),
    "pr_darts.start_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "pr_darts.end_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "pr_darts.drop": ([-0.1, 1.1, math.nan], "from 0 to 1", [0.0, 1.0]),
    "pr_darts.threshold": ([-0.1, 1.1, math.nan], "from 0 to 1", [0.0, 1.0]),
    "channels": ([0, -2, 3], "even and at least 2", [2, 16]),
    "cells": ([0], "at least 1", [1]),
    "dtype": (["float64", "float16"], "one of float32, bfloat16", ["bfloat16"]),
    "weights.learning_rate": ([0.0, -1.0, math.nan], "above 0", [0.1]),
    "weights.end_learning_rate": ([-0.1, math.nan], "at least 0", [0.0]),
    "weights.momentum": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "weights.weight_decay": ([-0.1, math.nan], "at least 0", [0.0]),
    "weights.clip": ([0.0, -1.0, math.nan], "above 0", [0.1, math.inf]),
    "logits.learning_rate": ([0.0, -1.0, math.nan], "above 0", [0.1]),
    "logits.b1": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "logits.b2": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "logits.weight_decay": ([-0.1, math.nan], "at least 0", [0.0]),
    "evaluation.random_cells": ([-1], "at least 0", [0]),
} | {f"evaluation.{field}": rule for field, rule in TRAINING_RULES.items()}
RULES = {
    "search": SEARCH_RULES,
    "train": TRAINING_RULES
    | {field: SEARCH_RULES[field] for field in ("image_size", "num_examples", "seed")}
    | {
        "dataset": (["mnist", ""], "one of digits, cifar10, cifar100, svhn, fashion_mnist, imagenet", ["imagenet"]),
        "form": (["darts"], "one of cifar, imagenet", ["imagenet"]),
        "workers": ([-1], "at least 0", [0]),
    },
}


@pytest.mark.parametrize("job", RULES)
def test_every_field_that_could_be_out_of_range_has_a_rule(job):
    fields = flat(DEFAULTS[job]().to_dict())
    free = {field for field, value in fields.items() if isinstance(value, bool)}
    checked_elsewhere = {"job", "data_dir", "genotype", "torch_checkpoint"}
    assert set(RULES[job]) == set(fields) - free - checked_elsewhere


@pytest.mark.parametrize("job, field", [(job, field) for job, rules in RULES.items() for field in rules])
def test_a_value_out_of_range_is_refused_naming_field_value_and_what_is_allowed(job, field):
    refused, allowed, accepted = RULES[job][field]
    for value in refused:
        message = refusal(with_field(field, value, job))
        assert message.startswith(f"config.{field}={value!r} must be {allowed}")
        assert "\n" not in message
    for value in accepted:
        settings.validate(with_field(field, value, job))


def test_an_unknown_job_is_refused():
    assert refusal(with_field("job", "rest")) == "config.job='rest' must be one of search, train"


def test_warm_up_must_end_before_the_training():
    for job, prefix in (("search", "evaluation."), ("train", "")):
        config = with_field(f"{prefix}weights.warmup_epochs", 3, job)
        (config.evaluation if prefix else config).epochs = 3
        message = refusal(config)
        assert message == f"config.{prefix}weights.warmup_epochs=3 must be below config.{prefix}epochs=3"


def test_sections_of_the_digits_config_are_their_own():
    config = load("digits").get_config()
    config.evaluation.augmentation.cutout = 2
    assert config.augmentation.cutout == 0 and config.evaluation.augmentation.pad == config.augmentation.pad == 1


def test_pieces_of_a_batch_must_be_equal():
    for job, prefix in (("search", "evaluation."), ("train", "")):
        message = refusal(with_field(f"{prefix}accumulate", 3, job))
        assert message == f"config.{prefix}accumulate=3 must divide config.{prefix}batch_size=128"


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("epochs", "ten", "int"),
        ("epochs", 2.5, "int"),
        ("epochs", True, "int"),
        ("epochs", None, "int"),
        ("running_statistics", 1, "bool"),
        ("augmentation.flip", "yes", "bool"),
        ("dataset", 10, "str"),
        ("data_dir", None, "str"),
        ("weights.clip", "5", "float"),
        ("weights.momentum", False, "float"),
        ("pr_darts.drop", [0.4], "float"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value, allowed):
    message = refusal(with_field(field, value))
    assert message.startswith(f"config.{field}={value!r} must be of type {allowed}")


def test_a_whole_number_serves_as_a_float():
    settings.validate(with_field("weights.clip", 5))


@pytest.mark.parametrize("field", ["epoch", "pr_darts.tau", "darts.drop", "weights.lr"])
def test_an_unknown_field_is_refused_naming_the_fields(field):
    message = refusal(with_field(field, 1))
    assert message.startswith(f"config.{field} ") and "pr_darts.start_temperature" in message


@pytest.mark.parametrize("field, default", [("epochs", "200"), ("weights.momentum", "0.9"), ("dataset", "'cifar10'")])
def test_a_missing_field_is_refused_naming_its_default(field, default):
    config = settings.defaults()
    section = config
    *sections, name = field.split(".")
    for key in sections:
        section = section[key]
    del section[name]
    message = refusal(config)
    assert f"config.{field} " in message and "missing" in message and default in message


def test_a_missing_section_is_refused():
    config = settings.defaults()
    del config.logits
    message = refusal(config)
    assert message.startswith("config.logits.") and "is missing" in message


def test_defaults_are_fresh_each_time():
    changed = settings.defaults()
    changed.weights.momentum = 0.1
    assert settings.defaults().weights.momentum == 0.9


def dataset(count=11, size=8):
    return data.Dataset("digits", np.zeros((count, size, size, 1), np.uint8), np.zeros(count, np.int32), 10)


def for_the_data(**fields):
    config = settings.defaults()
    config.batch_size = fields.pop("batch_size", 5)
    config.augmentation.update({"pad": 1, "cutout": 0} | fields)
    return config


@pytest.mark.parametrize("fields", [{"batch_size": 5}, {"pad": 8}, {"cutout": 8}])
def test_what_just_fits_the_data_is_accepted(fields):
    settings.validate_against_data(for_the_data(**fields), dataset())


@pytest.mark.parametrize(
    "fields, field, allowed",
    [
        ({"batch_size": 6}, "config.batch_size=6", "at most 5, half of the 11 images of digits"),
        ({"pad": 9}, "config.augmentation.pad=9", "at most 8"),
        ({"cutout": 9}, "config.augmentation.cutout=9", "at most 8"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(fields, field, allowed):
    with pytest.raises(ValueError) as error:
        settings.validate_against_data(for_the_data(**fields), dataset())
    assert field in str(error.value) and allowed in str(error.value)


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


def test_the_configs_are_those_expected():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_config_is_valid_says_its_command_and_has_the_published_numbers(name):
    module = load(name)
    config = module.get_config()
    settings.validate(config)
    command = f"python -m prdarts_jax.main --config=configs/{name}.py --workdir=runs/{name}"
    assert command in module.__doc__
    found = flat(config.to_dict())
    assert {field: found[field] for field in EXPECTED[name]} == EXPECTED[name]


def test_a_call_of_the_digits_config_is_an_epoch():
    config = load("digits").get_config()
    digits = data.load("digits")
    settings.validate_against_data(config, digits)
    assert len(digits.labels) // 2 // config.batch_size == config.steps_per_call
    assert len(digits.labels) // config.evaluation.batch_size == config.evaluation.steps_per_call


@pytest.mark.parametrize("name", ["cifar10", "cifar10_released", "darts_cifar10"])
def test_a_config_builds_its_method(name):
    config = load(name).get_config()
    config.pr_darts.lambda_path = 0.125
    config.pr_darts.distinct_inputs = False
    built = search.make_method(config)
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
    np.testing.assert_allclose(run(search.make_problem(config, 10, STEPS).weight_optimizer), w, rtol=1e-5)


def test_the_logits_follow_adam_with_decay_in_the_gradient():
    beta, gradients = vectors()
    first, second = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + 1e-3 * beta
        first = 0.5 * first + 0.5 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        beta = beta - 3e-4 * (first / (1 - 0.5**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    found = run(search.make_problem(settings.defaults(), 10, STEPS).arch_optimizer)
    np.testing.assert_allclose(found - vectors()[0], beta - vectors()[0], rtol=1e-4)
