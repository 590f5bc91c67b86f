"""What the fields of a config may hold, alone, together and beside the data, and how the rest is refused."""

import math

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from shared import PUBLISHED

from prdarts_jax.data import sources
from prdarts_jax.run import settings, validation
from prdarts_jax.search import methods


def flat(config):
    return flatten_dict(config.to_dict(), sep=".")


def changed(config, **fields):
    """The config with fields set, '__' for a dot in a name, whatever their types."""
    values = config.to_dict()
    for name, value in fields.items():
        *sections, field = name.split("__")
        section = values
        for key in sections:
            section = section[key]
        section[field] = value
    return ConfigDict(values)


def refusal(config):
    with pytest.raises(ValueError) as error:
        validation.validate(config)
    assert "\n" not in str(error.value)
    return str(error.value)


# A field alone ------------------------------------------------------------------------------------------------------

DEFAULTS = {"search": settings.search(), "train": settings.training()}
ADDED = methods.NAMED.keys() - {*PUBLISHED}  # what the values below say nothing of
FIELDS = [(job, name) for job, config in DEFAULTS.items() for name in flat(config) if name.split(".")[0] not in ADDED]
# By the type of the default. No number may be negative, none NaN. (test_fields.py has all other wrong types.)
WRONG = {
    int: [-1, 1.5],
    float: [-1, math.nan, math.inf, "0.1"],
    bool: [1],
    str: ["absent", 1],
    tuple: [(), (-1,), ("1",), 1],
    type(None): [-0.1, math.inf, "0.1"],
}
# By the last part of the name: what lies outside beside that, and what is right though it may look otherwise.
OUTSIDE = {
    **dict.fromkeys(("learning_rate", "start_temperature", "end_temperature", "clip"), [0.0]),
    **dict.fromkeys(("momentum", "b1", "b2", "ema", "label_smoothing", "drop_path", "start", "frozen"), [1.0]),
    **dict.fromkeys(("drop", "threshold"), [1.1]),
    **dict.fromkeys(("batch_size", "accumulate", "steps_per_call", "cells", "seeds", "window"), [0]),
    **dict.fromkeys(("samples", "val_batches"), [0, 10**6 + 1]),
    "finetuning_steps": [10**6 + 1],
    **dict.fromkeys(("seed", "split_seed"), [2**32]),
    "ratio": [0.0, 1.1],
    "channels": [1, 4097],
    "partial": [1],
    "p_darts.ops": [(8, 1, 3), (8, 2.5, 3)],
    "skip_dropout": [(0.0, 1.0, 0.7)],
    "image_size": [4097, (48,), (48, 0), (48, True), (1, 2, 3)],
    **dict.fromkeys(("test_share", "weights_share", "logits_share"), [0.0, 1.0]),
}
RIGHT = {
    "clip": [math.inf, 5],
    "drop": [0.0, 1.0],
    "threshold": [0.0, 1.0],
    "ratio": [1.0],
    "momentum": [0.0],
    "seed": [2**32 - 1],
    "logits.start": [None, 0.0, 0.9],
    "evaluation.epochs": [0],
    "skip_dropout": [(0, 0.9, 0.0)],
    **dict.fromkeys(("data_dir", "table", "genotype", "torch_checkpoint", "init_from"), [""]),
    "image_size": [0, 4096, (48, 64)],
}
FREE = {"dataset", "data_dir", "table", "genotype", "torch_checkpoint", "init_from"}  # any text


def test_the_defaults_are_valid_and_fresh_each_time():
    for config in (settings.search(), settings.training()):
        validation.validate(config)
        config.weights.momentum = 0.1
    assert settings.search().weights.momentum == settings.training().weights.momentum == 0.9


@pytest.mark.parametrize("job, name", FIELDS)
def test_a_wrong_value_of_a_field_is_refused_in_a_sentence_with_both_and_a_right_one_is_not(job, name):
    last, config = name.rpartition(".")[2], DEFAULTS[job]
    right = RIGHT.get(last, []) + RIGHT.get(name, [])
    for value in WRONG[type(flat(config)[name])] + OUTSIDE.get(last, []) + OUTSIDE.get(name, []):
        if not (value in right or (last in FREE and value == "absent")):
            message = refusal(changed(config, **{name.replace(".", "__"): value}))
            assert message.startswith(f"config.{name}={value!r} must be ")
    for value in right:
        validation.validate(changed(config, **{name.replace(".", "__"): value}))


def test_an_unknown_or_missing_field_is_refused_naming_the_fields_or_its_default():
    for name, like in (
        ("epoch", "; did you mean 'epochs'?"),
        ("pr_darts__start_temp", "; did you mean 'pr_darts.start_temperature'"),
        ("weights__lr", " more"),
    ):
        message = refusal(changed(settings.search(), **{name: 1}))
        assert message.startswith(
            f"config.{name.replace('__', '.')} is not a field of this config; the fields are dataset"
        )
        assert like in message and len(message) < 300
    config = settings.search()
    del config.weights.momentum
    assert refusal(config) == "config.weights.momentum is missing; its default is 0.9"
    del config.weights
    assert refusal(config) == "config.weights.learning_rate is missing; its default is 0.025"


# Fields together ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job, fields, message",
    [
        ("search", {"job": "rest"}, "config.job='rest' must be search or train"),
        (
            "search",
            {"table": "accuracies.txt"},
            "config.table='accuracies.txt' must be '' in the space darts: its cells are not in it",
        ),
        (
            "search",
            {"evaluation__test_on_rest": True, "evaluation__epochs": 1},
            "config.num_examples=0 must be above 0 with config.evaluation.test_on_rest=True, which tests on the "
            "training images that it leaves out",
        ),
        (
            "search",
            {"space": "s1", "nodes": 5},
            "config.nodes=5 and config.ops='' must be 0 and '' in the space s1, whose edges have candidates of their "
            "own",
        ),
        (
            "search",
            {"ops": "none, none"},
            "config.ops='none, none' must be '' or the names of ops, separated by commas: space 'darts' has "
            "ops=('none', 'none'), but must name each op once, and one or more that compute something",
        ),
        ("search", {"nodes": 2}, "config.nodes=2 must be at least 3 in the space darts; or 0"),
        (
            "search",
            {"space": "single_cell", "nodes": 5},
            "config.nodes=5 must be at least 6 in the space single_cell; or 0",
        ),
        (
            "search",
            {"method": "darts", "darts__second_order": True, "accumulate": 2},
            "config.accumulate=2 must be 1 with config.method='darts', whose hypergradient looks ahead to the weights "
            "after each step",
        ),
        (
            "search",
            {"method": "idarts", "accumulate": 2},
            "config.accumulate=2 must be 1 with config.method='idarts', whose hypergradient looks ahead to the weights "
            "after each step",
        ),
        (
            "search",
            {"seed": 2**32 - 1, "seeds": 2},
            "config.seeds=2 must be at most 1, the number of seeds from config.seed on",
        ),
        (
            "search",
            {"method": "pc_darts", "channels": 14},
            "config.channels=14 must be a multiple of config.pc_darts.partial=4",
        ),
        (
            "search",
            {"method": "pc_darts", "pc_darts__partial": 3},
            "config.channels=16 must be a multiple of config.pc_darts.partial=3",
        ),
        (
            "search",
            {"method": "p_darts", "p_darts__ops": (8, 5)},
            "config.p_darts: cells=(5, 11, 17), ops=(8, 5) and skip_dropout=(0.0, 0.4, 0.7) must have the same length, "
            "one number per stage",
        ),
        (
            "search",
            {"weights_share": 0.75, "logits_share": 0.5},
            "config.weights_share=0.75 and config.logits_share=0.5 must be 1 or less together",
        ),
        (
            "search",
            {"form": "imagenet", "space": "nas_bench_201"},
            "config.form='imagenet' must be 'cifar' in the space nas_bench_201 with config.evaluation.epochs=0: the "
            "form 'imagenet' is for networks like DARTS's, whose found cells are trained by a job of their own, such "
            "as configs/imagenet_eval.py",
        ),
        ("search", {"accumulate": 3}, "config.accumulate=3 must divide config.batch_size=128"),
        (
            "search",
            {"evaluation__accumulate": 3, "evaluation__epochs": 1},
            "config.evaluation.accumulate=3 must divide config.evaluation.batch_size=128",
        ),
        ("train", {"accumulate": 3}, "config.accumulate=3 must divide config.batch_size=128"),
        (
            "search",
            {"evaluation__epochs": 3, "evaluation__weights__warmup_epochs": 3},
            "config.evaluation.weights.warmup_epochs=3 must be below config.evaluation.epochs=3",
        ),
        (
            "train",
            {"epochs": 3, "weights__warmup_epochs": 3},
            "config.weights.warmup_epochs=3 must be below config.epochs=3",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(job, fields, message):
    assert refusal(changed(DEFAULTS[job], **fields)) == message


def test_settings_of_trainings_that_are_not_run_need_not_fit():
    validation.validate(changed(DEFAULTS["search"], evaluation__accumulate=3, evaluation__test_on_rest=True))


@pytest.mark.parametrize(
    "fields",
    [
        {"space": "nas_bench_201", "table": "accuracies.txt"},
        {"space": "nas_bench_201", "evaluation__random_cells": 3},
        {"channels": 14},  # PC-DARTS's channels and P-DARTS's stages matter to their methods alone
        {"p_darts__ops": (8, 5)},
        {"method": "pc_darts", "pc_darts__partial": 8},
        {"method": "p_darts", "p_darts__cells": (1,), "p_darts__ops": (8,), "p_darts__skip_dropout": (0.1,)},
        {"accumulate": 2},
    ],
)
def test_fields_that_fit_are_accepted(fields):
    validation.validate(changed(settings.search(), **fields))


def dataset(count=11, size=8):
    return sources.LoadedSplit("digits", np.zeros((count, size, size, 1), np.uint8), np.zeros(count, np.int32), 10)


def for_the_data(**fields):
    tiny = {"batch_size": 5, "augmentation__pad": 1, "augmentation__cutout": 0}
    return changed(settings.search(), **tiny | fields)


@pytest.mark.parametrize("fields", [{}, {"augmentation__pad": 8}, {"augmentation__cutout": 8}])
def test_what_just_fits_the_data_is_accepted(fields):
    validation.validate_against_data(for_the_data(**fields), dataset())


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"batch_size": 6},
            "config.batch_size=6 must be at most 5, half of the 11 images of digits in use: one half trains the "
            "weights, the other the logits",
        ),
        ({"augmentation__pad": 9}, "config.augmentation.pad=9 must be at most 8, the images' shorter side"),
        ({"augmentation__cutout": 9}, "config.augmentation.cutout=9 must be at most 8, the images' shorter side"),
        (
            {"evaluation__epochs": 1, "evaluation__batch_size": 12},
            "config.evaluation.batch_size=12 must be at most 11, the images of digits in use",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused(fields, message):
    with pytest.raises(ValueError) as error:
        validation.validate_against_data(for_the_data(**fields), dataset())
    assert str(error.value) == message
