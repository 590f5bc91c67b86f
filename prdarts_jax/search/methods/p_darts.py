"""P-DARTS: Progressive Differentiable Architecture Search (Chen, Xie, Wu, Tian, ICCV 2019)."""

import dataclasses
from typing import Annotated

from prdarts_jax.fields import below, each, from_to, whole
from prdarts_jax.refusals import shown
from prdarts_jax.search.method import Method, Stage
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import LinearThenExponential
from prdarts_jax.spaces import discretizations


@named({"epochs": 25, "batch_size": 96, "augmentation.cutout": 0, "logits.learning_rate": 6e-4})  # epochs per stage
def p_darts(
    cells: Annotated[tuple[int, ...], each(whole(1, 1000))] = (5, 11, 17),
    ops: Annotated[tuple[int, ...], each(whole(2, 1000))] = (8, 5, 3),
    skip_dropout: Annotated[tuple[float, ...], each(below(1))] = (0.0, 0.4, 0.7),
    most_skips: Annotated[int, from_to(0, 1000)] = 2,
    frozen: Annotated[float, below(1)] = 0.4,
) -> Method:
    """First order DARTS in stages, one search after another, each with more cells and fewer candidate ops than the one
    before, and with dropout after skip connections.

    Args:
      cells: the number of cells of the supernet, one number per stage of the search. With NAS-Bench-201's network it is
        the number of cells before, between and after its two residual blocks.
      ops: the number of candidate ops per edge, one number per stage. The first number has no effect: the first stage
        searches all ops of the space.
      skip_dropout: the dropout rate d after skip connections at the start of a stage, one number per stage. As in the
        authors' code, at the fraction p of a stage the rate is d (1 - p) while the logits are frozen, and then
        d exp(-5 (p - frozen)).
      most_skips: the largest number of skip connections in the derived normal cell. If there are more, the ones with
        the smallest weights are replaced by the next best ops (section 3.3.2).
      frozen: the fraction of each stage, at its start, in which the logits are frozen; in the paper the first 10 of
        25 epochs.

    Raises:
      ValueError: the tuples differ in length.
    """
    if not len(cells) == len(ops) == len(skip_dropout):
        raise ValueError(
            f"cells={shown(cells)}, ops={shown(ops)} and skip_dropout={shown(skip_dropout)} must have the same length, "
            "one number per stage"
        )
    stages = []
    for number, start in zip(cells, skip_dropout, strict=True):
        method = Method(
            discretization=discretizations.limited_skips(most_skips),
            logits_start=frozen,
            supernet={"cells": number, **({"dropout": "skip"} if start else {})},
            dropout_rate=LinearThenExponential(start, frozen, 0.2 * 25) if start else None,
        )
        stages.append(method)
    return dataclasses.replace(stages[0], stages=tuple(map(Stage, stages, ops)))
