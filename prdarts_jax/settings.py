"""The fields of a config, their defaults, and what values they may have.

Files in configs/ start from `defaults()` or `released()` for a search, and from `training()` for a training, so each
shows only what makes it different.
"""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from prdarts_jax import data, networks
from prdarts_jax.methods import pr_darts


def defaults() -> ConfigDict:
    """PR-DARTS as in the paper on CIFAR-10 (Zhou et al., 2020, section 5 and supplement)."""
    return ConfigDict(
        {
            "job": "search",
            "dataset": "cifar10",
            "data_dir": "",  # where TFDS keeps its data; '' is TFDS's own default
            "image_size": 0,  # average images down to this size; 0 leaves them as they are
            "num_examples": 0,  # use so many of the training images; 0 is all
            "split_seed": 0,  # decides which half of them trains the weights, which the logits
            "seed": 0,  # decides everything else
            "epochs": 200,
            "batch_size": 128,
            "steps_per_call": 1,  # between two updates of the progress bar, and two looks for SIGTERM and Ctrl-C
            "augmentation": {"pad": 4, "flip": True, "cutout": 16},  # pixels; 0 is none
            "method": "pr_darts",  # which of the sections below counts
            "pr_darts": {
                "form": "paper",
                "lambda_skip": 0.01,
                "lambda_nonskip": 0.005,
                "lambda_path": 0.005,
                "start_temperature": 10.0,
                "end_temperature": 0.1,
                "distinct_inputs": False,  # derive at most one op per edge
                "drop": 0.4,  # the form 'released' only, like the threshold
                "threshold": 0.2,
            },
            "darts": {},
            "channels": 16,
            "cells": 8,
            "dtype": "float32",  # of the computation; 'float32' or 'bfloat16'
            "remat": False,  # keep less: compute each cell again in the backward pass
            "pool_norm": True,  # batch normalisation after pools
            "head_norm": False,  # batch normalisation and ReLU before the global pool
            "running_statistics": True,
            "weights": {
                "learning_rate": 0.025,  # falls along a cosine
                "end_learning_rate": 0.0,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 3e-4,
                "clip": 5.0,  # largest norm of the gradient; the paper names none, its released code 5
            },
            "logits": {"learning_rate": 3e-4, "b1": 0.5, "b2": 0.999, "weight_decay": 1e-3},
            # Then train the found cell beside random ones and one of skip connections alone, in the same way.
            "evaluation": _training_fields() | {"random_cells": 10, "epochs": 0},  # 0: do not
        }
    )


def _training_fields() -> dict[str, Any]:
    return {
        "channels": 36,
        "cells": 20,
        "auxiliary_weight": 0.0,  # of the auxiliary head's loss; 0: there is none
        "drop_path": 0.3,  # probability at the end; it grows linearly from 0
        "label_smoothing": 0.0,
        "ema": 0.0,  # decay a step of a running mean of the weights, which is then what is tested; 0 is none
        "dtype": "float32",  # of the computation; 'float32' or 'bfloat16'
        "epochs": 600,
        "batch_size": 128,
        "accumulate": 1,  # take the gradient of a batch in so many pieces, each a step and normalised by itself
        "steps_per_call": 10,  # as in a search; an epoch's data are shuffled anew in every call
        "augmentation": {"pad": 4, "flip": True, "cutout": 16},  # of data in memory; see streaming.py for ImageNet
        "weights": {
            "learning_rate": 0.025,
            "end_learning_rate": 0.0,
            "schedule": "cosine",  # or 'linear'
            "warmup_epochs": 0,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 3e-4,
            "clip": 5.0,
        },
    }


def training() -> ConfigDict:
    """The training of a found cell on CIFAR-10 as in PR-DARTS's released code: that of DARTS (Liu et al., 2019, section
    3.2) but for the batch, drop-path and the auxiliary head."""
    return ConfigDict(
        {
            "job": "train",
            "genotype": "PRDARTS",  # the name of a published cell, a genotype.json, or its text
            "torch_checkpoint": "",  # start from the weights of a checkpoint of the authors' code
            "form": "cifar",  # or 'imagenet': three convolutions of stride 2 come before the cells
            "dataset": "cifar10",
            "data_dir": "",
            "image_size": 0,  # ImageNet is cropped to it, the others averaged down to it; 0 leaves them as they are
            "num_examples": 0,  # use so many of the training images; 0 is all
            "workers": 4,  # processes that read 'imagenet'; 0 reads it in the main one
            "seed": 0,
        }
        | _training_fields()
    )


def released() -> ConfigDict:
    """PR-DARTS on CIFAR-10 as in the authors' released code: other gates, regularisers, network and schedules."""
    config = defaults()
    config.batch_size = 250
    config.augmentation.cutout = 0
    config.pr_darts.form = "released"
    config.pr_darts.start_temperature = 1.0
    config.cells = 6
    config.pool_norm = False
    config.head_norm = True
    config.running_statistics = False
    config.weights.end_learning_rate = 0.001
    config.weights.nesterov = True
    config.weights.weight_decay = 5e-4
    return config


Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Rule:
    return lambda value: low <= value < math.inf, f"at least {low}"


def _one_of(*values: str) -> Rule:
    return lambda value: value in values, f"one of {', '.join(values)}"


_FRACTION: Rule = (lambda value: 0 <= value <= 1, "from 0 to 1")
_BELOW_ONE: Rule = (lambda value: 0 <= value < 1, "at least 0 and below 1")
_POSITIVE: Rule = (lambda value: 0 < value < math.inf, "above 0")
_SEED: Rule = (lambda value: 0 <= value < 2**32, "from 0 to 4294967295")
_CLIP: Rule = (lambda value: value > 0, "above 0")
_EVEN: Rule = (
    lambda value: value >= 2 and value % 2 == 0,
    "even and at least 2, since a factorised reduction makes half of the channels with each of two convolutions",
)

_TRAINING_RULES: dict[str, Rule] = {
    "channels": _EVEN,
    "cells": _at_least(1),
    "auxiliary_weight": _at_least(0),
    "drop_path": _BELOW_ONE,
    "label_smoothing": _BELOW_ONE,
    "ema": _BELOW_ONE,
    "dtype": _one_of("float32", "bfloat16"),
    "epochs": _at_least(0),
    "batch_size": _at_least(1),
    "accumulate": _at_least(1),
    "steps_per_call": _at_least(1),
    "augmentation.pad": _at_least(0),
    "augmentation.cutout": _at_least(0),
    "weights.learning_rate": _POSITIVE,
    "weights.end_learning_rate": _at_least(0),
    "weights.schedule": _one_of("cosine", "linear"),
    "weights.warmup_epochs": _at_least(0),
    "weights.momentum": _BELOW_ONE,
    "weights.weight_decay": _at_least(0),
    "weights.clip": _CLIP,
}

_RULES: dict[str, dict[str, Rule]] = {}
_RULES["train"] = _TRAINING_RULES | {
    "form": _one_of(*networks.FORMS),
    "dataset": _one_of(*data.NAMES, *data.STREAMED),
    "image_size": _at_least(0),
    "num_examples": _at_least(0),
    "workers": _at_least(0),
    "seed": _SEED,
}
_RULES["search"] = {
    "dataset": _one_of(*data.NAMES),
    "image_size": _at_least(0),
    "num_examples": _at_least(0),
    "split_seed": _SEED,
    "seed": _SEED,
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "steps_per_call": _at_least(1),
    "augmentation.pad": _at_least(0),
    "augmentation.cutout": _at_least(0),
    "method": _one_of("pr_darts", "darts"),
    "pr_darts.form": _one_of(*pr_darts.FORMS),
    "pr_darts.lambda_skip": _at_least(0),
    "pr_darts.lambda_nonskip": _at_least(0),
    "pr_darts.lambda_path": _at_least(0),
    "pr_darts.start_temperature": _POSITIVE,
    "pr_darts.end_temperature": _POSITIVE,
    "pr_darts.drop": _FRACTION,
    "pr_darts.threshold": _FRACTION,
    "channels": _EVEN,
    "cells": _at_least(1),
    "dtype": _one_of("float32", "bfloat16"),
    "weights.learning_rate": _POSITIVE,
    "weights.end_learning_rate": _at_least(0),
    "weights.momentum": _BELOW_ONE,
    "weights.weight_decay": _at_least(0),
    "weights.clip": _CLIP,
    "logits.learning_rate": _POSITIVE,
    "logits.b1": _BELOW_ONE,
    "logits.b2": _BELOW_ONE,
    "logits.weight_decay": _at_least(0),
    "evaluation.random_cells": _at_least(0),
} | {f"evaluation.{field}": rule for field, rule in _TRAINING_RULES.items()}


_DEFAULTS: dict[str, Callable[[], ConfigDict]] = {"search": defaults, "train": training}


def validate(config: ConfigDict) -> None:
    """Refuses a config with an unknown or missing field, a value of another type, or one out of range.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    job = config.get("job")
    if job not in _DEFAULTS:
        raise ValueError(f"config.job={job!r} must be one of {', '.join(_DEFAULTS)}")
    found, expected = _flatten(config.to_dict()), _flatten(_DEFAULTS[job]().to_dict())
    for field in found:
        _check_field(field, expected, f"of a config whose job is {job!r}")
    for field, default in expected.items():
        if field not in found:
            raise ValueError(f"config.{field} is missing; its default is {default!r}")
        value = found[field]
        number = isinstance(default, float) and type(value) is int
        if type(value) is not type(default) and not number:
            raise ValueError(f"config.{field}={value!r} must be of type {type(default).__name__}, as {default!r} is")
        allowed, text = _RULES[job].get(field, (lambda _: True, ""))
        if not allowed(value):
            raise ValueError(f"config.{field}={value!r} must be {text}")
    prefix, section = ("", config) if job == "train" else ("evaluation.", config.evaluation)
    if section.epochs and section.weights.warmup_epochs >= section.epochs:
        raise ValueError(
            f"config.{prefix}weights.warmup_epochs={section.weights.warmup_epochs} must be below "
            f"config.{prefix}epochs={section.epochs}"
        )
    if section.batch_size % section.accumulate:
        raise ValueError(
            f"config.{prefix}accumulate={section.accumulate} must divide config.{prefix}batch_size={section.batch_size}"
        )


def check_field(field: str) -> None:
    """Refuses the name of a field that no config has, for instance 'weights.speed'.

    Raises:
      ValueError: naming the field and those there are.
    """
    known = {name: value for make in _DEFAULTS.values() for name, value in _flatten(make().to_dict()).items()}
    _check_field(field, known, "of the config")


def _check_field(field, known, of_what):
    if field not in known:
        raise ValueError(f"config.{field} is not a field {of_what}; the fields are {', '.join(known)}")


def validate_against_data(config: ConfigDict, dataset: data.Dataset) -> None:
    """Refuses a batch or a crop that the data set is too small for.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    images = len(dataset.labels)
    all_of_it = images, f"the images of {dataset.name} in use"
    half = (
        images // 2,
        f"half of the {images} images of {dataset.name} in use: one half trains the weights, the other the logits",
    )
    sections = [("", config, *(half if config.job == "search" else all_of_it))]
    if config.job == "search" and config.evaluation.epochs:
        sections.append(("evaluation.", config.evaluation, *all_of_it))
    size = dataset.images.shape[1]
    for prefix, section, largest, what in sections:
        if section.batch_size > largest:
            raise ValueError(f"config.{prefix}batch_size={section.batch_size} must be at most {largest}, {what}")
        for field in ("pad", "cutout"):
            if section.augmentation[field] > size:
                raise ValueError(
                    f"config.{prefix}augmentation.{field}={section.augmentation[field]} must be at most {size}, the "
                    "images' size"
                )


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        section = isinstance(value, dict) and value
        flat |= _flatten(value, f"{prefix}{name}.") if section else {f"{prefix}{name}": value}
    return flat
