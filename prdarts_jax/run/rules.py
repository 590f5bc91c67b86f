"""What values the fields of a config may have."""

import math
from collections.abc import Callable
from typing import Any

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.nets import discrete
from prdarts_jax.search import methods
from prdarts_jax.search.methods import lambda_darts, pr_darts
from prdarts_jax.theory import claims

Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Rule:
    return lambda value: low <= value < math.inf, f"at least {low}"


def _one_of(*values: str) -> Rule:
    return lambda value: value in values, f"one of {', '.join(values)}"


def _each(allowed: Callable[[Any], bool], text: str) -> Rule:
    return lambda values: len(values) > 0 and all(map(allowed, values)), f"a tuple of {text}"


_FRACTION: Rule = (lambda value: 0 <= value <= 1, "from 0 to 1")
_FRACTION_ABOVE_0: Rule = (lambda value: 0 < value <= 1, "above 0 and at most 1")
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

RULES: dict[str, dict[str, Rule]] = {}
RULES["train"] = _TRAINING_RULES | {
    "form": _one_of(*discrete.FORMS),
    "dataset": _one_of(*sources.DATASETS),
    "image_size": _at_least(0),
    "num_examples": _at_least(0),
    "workers": _at_least(0),
    "seed": _SEED,
}
RULES["theory"] = {
    "claim": (lambda value: value in ("", *claims.NAMED), f"'', which is all, or one of {', '.join(claims.NAMED)}"),
    "seed": _SEED,
}
RULES["search"] = {
    "dataset": _one_of(*(name for name, entry in sources.DATASETS.items() if not entry.streamed)),
    "image_size": _at_least(0),
    "num_examples": _at_least(0),
    "split_seed": _SEED,
    "seed": _SEED,
    "seeds": _at_least(1),
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "accumulate": _at_least(1),
    "steps_per_call": _at_least(1),
    "augmentation.pad": _at_least(0),
    "augmentation.cutout": _at_least(0),
    "space": _one_of(*spaces.NAMED),
    "method": _one_of(*methods.NAMED),
    "pr_darts.form": _one_of(*pr_darts.FORMS),
    "pr_darts.parts": _one_of(*pr_darts.PARTS),
    "pr_darts.lambda_skip": _at_least(0),
    "pr_darts.lambda_nonskip": _at_least(0),
    "pr_darts.lambda_path": _at_least(0),
    "pr_darts.start_temperature": _POSITIVE,
    "pr_darts.end_temperature": _POSITIVE,
    "pr_darts.drop": _FRACTION,
    "pr_darts.threshold": _FRACTION,
    "lambda_darts.strength": _at_least(0),
    "lambda_darts.variant": _one_of(*lambda_darts.VARIANTS),
    "fair_darts.zero_one": _at_least(0),
    "fair_darts.threshold": _FRACTION,
    "p_darts.cells": _each(lambda value: type(value) is int and value >= 1, "whole numbers of at least 1"),
    "p_darts.ops": _each(lambda value: type(value) is int and value >= 2, "whole numbers of at least 2"),
    "p_darts.skip_dropout": _each(
        lambda value: type(value) in (int, float) and 0 <= value < 1, "numbers of at least 0 and below 1"
    ),
    "p_darts.most_skips": _at_least(0),
    "p_darts.logits_start": _BELOW_ONE,
    "r_darts.drop_path": _BELOW_ONE,
    "r_darts.window": _at_least(1),
    "r_darts.ratio": _FRACTION_ABOVE_0,
    "pc_darts.partial": _at_least(2),
    "pc_darts.logits_start": _BELOW_ONE,
    "gdas.start_temperature": _POSITIVE,
    "gdas.end_temperature": _POSITIVE,
    "random_search.samples": _at_least(1),
    "reinforce.start_baseline": _at_least(0),
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
