"""What the fields of a config may hold, alone, together and beside the data, and how the rest is refused."""

import itertools
import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.run import problems, settings
from prdarts_jax.search import methods

DEFAULTS = {"search": settings.defaults, "train": settings.training}
SPACES = ("darts", "darts_no_none", "s1", "s2", "s3", "s4", "nas_bench_201")
METHODS = "pr_darts darts lambda_darts fair_darts p_darts r_darts pc_darts gdas random_search reinforce".split()


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
    "seeds": ([0, -1], "at least 1", [1, 4]),
    "epochs": ([0, -1], "at least 1", [1]),
    "batch_size": ([0], "at least 1", [1]),
    "accumulate": ([0], "at least 1", [1, 2]),
    "steps_per_call": ([0], "at least 1", [1]),
    "augmentation.pad": ([-1], "at least 0", [0]),
    "augmentation.cutout": ([-1], "at least 0", [0]),
    "space": (["darts_s1", ""], "one of darts, darts_no_none, s1, s2, s3, s4, nas_bench_201", list(SPACES)),
    "method": (["enas"], f"one of {', '.join(METHODS)}", list(METHODS)),
    "pr_darts.form": (["published"], "one of paper, released", ["released"]),
    "pr_darts.parts": (["path and gates"], "one of both, gates, path", ["both", "gates", "path"]),
    "pr_darts.lambda_skip": ([-0.1, math.nan], "at least 0", [0.0, 2]),
    "pr_darts.lambda_nonskip": ([-0.1, math.nan], "at least 0", [0.0]),
    "pr_darts.lambda_path": ([-0.1, math.nan], "at least 0", [0.0]),
    "pr_darts.start_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "pr_darts.end_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "pr_darts.drop": ([-0.1, 1.1, math.nan], "from 0 to 1", [0.0, 1.0]),
    "pr_darts.threshold": ([-0.1, 1.1, math.nan], "from 0 to 1", [0.0, 1.0]),
    "lambda_darts.strength": ([-0.1, math.nan, math.inf], "at least 0", [0.0, 0.25]),
    "lambda_darts.variant": (["sine"], "one of cosine, signcorr", ["cosine", "signcorr"]),
    "fair_darts.zero_one": ([-0.1, math.nan], "at least 0", [0.0]),
    "fair_darts.threshold": ([-0.1, 1.1, math.nan], "from 0 to 1", [0.0, 1.0]),
    "p_darts.cells": (
        [(), (5, 0, 17), (5, 11.0, 17), (True, 1, 1)],
        "a tuple of whole numbers of at least 1",
        [(1,) * 3],
    ),
    "p_darts.ops": ([(), (8, 1, 3), (8, 2.5, 3), ("8", 5, 3)], "a tuple of whole numbers of at least 2", [(8, 2, 2)]),
    "p_darts.skip_dropout": (
        [(), (0.0, 1.0, 0.7), (-0.1, 0.4, 0.7), (0.0, math.nan, 0.0), ("a", 0.4, 0.7), (False, 0.0, 0.0)],
        "a tuple of numbers of at least 0 and below 1",
        [(0, 0.9, 0.0)],
    ),
    "p_darts.most_skips": ([-1], "at least 0", [0]),
    "p_darts.logits_start": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "r_darts.drop_path": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0, 0.6]),
    "r_darts.window": ([0], "at least 1", [1]),
    "r_darts.ratio": ([0.0, 1.1, math.nan], "above 0 and at most 1", [1.0]),
    "pc_darts.partial": ([1, 0], "at least 2", [2, 8]),
    "pc_darts.logits_start": ([-0.1, 1.0, math.nan], "at least 0 and below 1", [0.0]),
    "gdas.start_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "gdas.end_temperature": ([0.0, -1.0, math.nan], "above 0", [0.01]),
    "random_search.samples": ([0], "at least 1", [1]),
    "reinforce.start_baseline": ([-0.1, math.nan], "at least 0", [0.0]),
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
    checked_elsewhere = {"job", "data_dir", "table", "genotype", "torch_checkpoint"}
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
    assert refusal(with_field("job", "rest")) == "config.job='rest' must be one of search, train, theory"


def test_warm_up_must_end_before_the_training():
    for job, prefix in (("search", "evaluation."), ("train", "")):
        config = with_field(f"{prefix}weights.warmup_epochs", 3, job)
        (config.evaluation if prefix else config).epochs = 3
        message = refusal(config)
        assert message == f"config.{prefix}weights.warmup_epochs=3 must be below config.{prefix}epochs=3"


def test_pieces_of_a_batch_must_be_equal():
    for job, prefix in (("search", "evaluation."), ("search", ""), ("train", "")):
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
        ("hessian", 1, "bool"),
        ("space", None, "str"),
        ("p_darts.cells", 5, "tuple"),
        ("r_darts.window", 5.0, "int"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value, allowed):
    message = refusal(with_field(field, value))
    assert message.startswith(f"config.{field}={value!r} must be of type {allowed}")


# What must fit together ---------------------------------------------------------------------------------------------


def searching(**fields):
    """The defaults with several fields set, a dot of a name written as two underscores."""
    config = settings.defaults()
    for name, value in fields.items():
        *sections, field = name.split("__")
        section = config
        for key in sections:
            section = section[key]
        section[field] = value
    return config


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"table": "accuracies.txt"},
            "config.table='accuracies.txt' must be '' in the space darts: its cells are not in it",
        ),
        (
            {"space": "nas_bench_201", "evaluation__epochs": 2},
            "config.evaluation.epochs=2 must be 0 in the space nas_bench_201: only cells of two inputs, normal and "
            "reduction, can be trained",
        ),
        (
            {"method": "darts", "darts__second_order": True, "accumulate": 2},
            "config.accumulate=2 must be 1 with config.darts.second_order=True, which looks ahead to the weights after "
            "each step",
        ),
        (
            {"seeds": 3, "evaluation__epochs": 2},
            "config.evaluation.epochs=2 must be 0 with config.seeds=3: train a seed's cell with "
            "configs/cifar10_eval.py and its genotype.json",
        ),
        (
            {"seed": 2**32 - 1, "seeds": 2},
            "config.seeds=2 must be at most 1, the seeds there are from config.seed on",
        ),
        (
            {"method": "pc_darts", "channels": 12},
            "config.channels=12 must be a multiple of 8, twice config.pc_darts.partial",
        ),
        (
            {"method": "pc_darts", "pc_darts__partial": 3},
            "config.channels=16 must be a multiple of 6, twice config.pc_darts.partial",
        ),
        (
            {"method": "p_darts", "p_darts__ops": (8, 5)},
            "config.p_darts.cells=(5, 11, 17), .ops=(8, 5) and .skip_dropout=(0.0, 0.4, 0.7) must be of one length, a "
            "stage each",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields, message):
    assert refusal(searching(**fields)) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"space": "nas_bench_201", "table": "accuracies.txt"},
        {"space": "nas_bench_201", "evaluation__random_cells": 3},
        {"channels": 12},  # PC-DARTS's channels and P-DARTS's stages matter to their methods alone
        {"p_darts__ops": (8, 5)},
        {"method": "pc_darts", "pc_darts__partial": 8},
        {"method": "p_darts", "p_darts__cells": (1,), "p_darts__ops": (8,), "p_darts__skip_dropout": (0.1,)},
    ],
)
def test_fields_that_fit_are_accepted(fields):
    settings.validate(searching(**fields))


def test_each_method_can_search_each_space():
    assert list(methods.NAMED) == METHODS and list(spaces.NAMED) == list(SPACES)
    for method, space in itertools.product(METHODS, SPACES):
        config = searching(method=method, space=space)
        settings.validate(config)
        for stage in problems.stages_of(problems.make_method(config)):
            supernet = problems.make_supernet(config, stage.method, 10)
            assert supernet.space.name == space and supernet.partial == (4 if method == "pc_darts" else 1)


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


def dataset(count=11, size=8):
    return sources.Dataset("digits", np.zeros((count, size, size, 1), np.uint8), np.zeros(count, np.int32), 10)


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
