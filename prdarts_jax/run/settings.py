"""The fields of a config and their defaults; `rules.py` says what values they may have.

Files in configs/ start from `defaults()`, `released()` or `darts()` for a search, and from `training()` for a training,
so each shows only what makes it different.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.run.rules import RULES
from prdarts_jax.search import methods


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
            "seeds": 1,  # so many searches at once, of this seed and those after it
            "epochs": 200,
            "batch_size": 128,
            "accumulate": 1,  # take the gradient of a batch in so many pieces, each a step with gates of its own
            "steps_per_call": 1,  # between two updates of the progress bar, and two looks for SIGTERM and Ctrl-C
            "augmentation": {"pad": 4, "flip": True, "cutout": 16},  # pixels; 0 is none
            "space": "darts",  # what is searched; one of `spaces.NAMED`
            "table": "",  # a file of NAS-Bench-201's accuracies: each epoch then reports the derived cell's
            "method": "pr_darts",  # which of the sections below counts; their fields are those of the methods
            **{name: methods.fields_of(method) for name, method in methods.NAMED.items()},
            "hessian": False,  # report the dominant eigenvalue of the validation loss's Hessian in the logits
            "channels": 16,
            "cells": 8,  # in all; in NAS-Bench-201's network, those of each of its three stages
            "dtype": "float32",  # of the computation; 'float32' or 'bfloat16'
            "pool_norm": True,  # batch normalisation after pools
            "head_norm": False,  # batch normalisation and ReLU before the global pool, as NAS-Bench-201's always has
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


def darts() -> ConfigDict:
    """First order DARTS on CIFAR-10 as in its paper (Liu et al., 2019, section 3.1), from which others start."""
    config = defaults()
    config.method = "darts"
    config.epochs = 50
    config.batch_size = 64
    config.augmentation.cutout = 0
    config.weights.end_learning_rate = 0.001
    return config


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


def theory() -> ConfigDict:
    """The check of the papers' convergence claims."""
    return ConfigDict(
        {
            "job": "theory",
            "claim": "",  # one of `theory.claims.NAMED`; '' is all
            "thorough": False,  # wider networks and more draws; see `theory.settings`
            "seed": 0,
        }
    )


_DEFAULTS: dict[str, Callable[[], ConfigDict]] = {"search": defaults, "train": training, "theory": theory}


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
        allowed, text = RULES[job].get(field, (lambda _: True, ""))
        if not allowed(value):
            raise ValueError(f"config.{field}={value!r} must be {text}")
    if job == "theory":
        return
    if job == "search":
        _check_space(config)
        _check_steps(config)
    prefix, section = ("", config) if job == "train" else ("evaluation.", config.evaluation)
    if section.epochs and section.weights.warmup_epochs >= section.epochs:
        raise ValueError(
            f"config.{prefix}weights.warmup_epochs={section.weights.warmup_epochs} must be below "
            f"config.{prefix}epochs={section.epochs}"
        )
    for where, fields in {prefix: section, "": config}.items():
        if fields.batch_size % fields.accumulate:
            raise ValueError(
                f"config.{where}accumulate={fields.accumulate} must divide config.{where}batch_size={fields.batch_size}"
            )


def _check_steps(config):
    if config.accumulate > 1 and config.method == "darts" and config.darts.second_order:
        raise ValueError(
            f"config.accumulate={config.accumulate} must be 1 with config.darts.second_order=True, which looks ahead "
            "to the weights after each step"
        )
    if config.seed + config.seeds > 2**32:
        most = 2**32 - config.seed
        raise ValueError(f"config.seeds={config.seeds} must be at most {most}, the seeds there are from config.seed on")
    if config.seeds > 1 and config.evaluation.epochs:
        raise ValueError(
            f"config.evaluation.epochs={config.evaluation.epochs} must be 0 with config.seeds={config.seeds}: train a "
            "seed's cell with configs/cifar10_eval.py and its genotype.json"
        )


def _check_space(config):
    space = spaces.named(config.space)
    if config.table and space.inputs != 1:
        raise ValueError(f"config.table={config.table!r} must be '' in the space {space.name}: its cells are not in it")
    if config.evaluation.epochs and space.inputs == 1:
        raise ValueError(
            f"config.evaluation.epochs={config.evaluation.epochs} must be 0 in the space nas_bench_201, whose cells' "
            "accuracies config.table has"
        )
    partial = config.pc_darts.partial
    if config.method == "pc_darts" and config.channels % (2 * partial):
        raise ValueError(
            f"config.channels={config.channels} must be a multiple of {2 * partial}, twice config.pc_darts.partial"
        )
    lengths = {len(config.p_darts[name]) for name in ("cells", "ops", "skip_dropout")}
    if config.method == "p_darts" and len(lengths) > 1:
        raise ValueError(
            f"config.p_darts.cells={config.p_darts.cells}, .ops={config.p_darts.ops} and .skip_dropout="
            f"{config.p_darts.skip_dropout} must be of one length, a stage each"
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


def validate_against_data(config: ConfigDict, dataset: sources.Dataset) -> None:
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
