"""P-DARTS: Progressive Differentiable Architecture Search (Chen, Xie, Wu, Tian, ICCV 2019)."""

import dataclasses
from typing import Annotated

from prdarts_jax.fields import Range, below, each, from_to
from prdarts_jax.refusals import shown
from prdarts_jax.search.method import Method, Stage
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import LinearThenExponential
from prdarts_jax.spaces import discretizations


def _whole(low):
    return Range(lambda value: type(value) is int and low <= value <= 1000, lambda: "")


@named({"epochs": 25, "batch_size": 96, "augmentation.cutout": 0, "logits.learning_rate": 6e-4})  # epochs of each stage
def p_darts(
    cells: Annotated[tuple[int, ...], each(_whole(1), "whole numbers from 1 to 1000")] = (5, 11, 17),
    ops: Annotated[tuple[int, ...], each(_whole(2), "whole numbers from 2 to 1000")] = (8, 5, 3),
    skip_dropout: Annotated[tuple[float, ...], each(below(1), "numbers of at least 0 and below 1")] = (0.0, 0.4, 0.7),
    most_skips: Annotated[int, from_to(0, 1000)] = 2,
    rest: Annotated[float, below(1)] = 0.4,
) -> Method:
    """First order DARTS in stages of growing depth and falling numbers of ops, with dropout after skip connections.

    Args:
      cells: of the supernet, for each stage; in NAS-Bench-201 those of each of its three stages of the network.
      ops: candidates an edge, for each stage; the first searches all that the space has, whatever stands here.
      skip_dropout: at the start of each stage. As in the authors' code, in epochs of 25, it falls linearly while the
        logits rest, then by exp(-0.2) each.
      most_skips: in the normal cell that is derived; the weakest of more go (section 3.3.2).
      rest: the fraction of each stage in which the logits rest; the paper's first 10 of 25 epochs.

    Raises:
      ValueError: the tuples are not of one length.
    """
    if not len(cells) == len(ops) == len(skip_dropout):
        raise ValueError(
            f"cells={shown(cells)}, ops={shown(ops)} and skip_dropout={shown(skip_dropout)} must be of one length, a "
            "stage each"
        )
    stages = []
    for number, start in zip(cells, skip_dropout, strict=True):
        method = Method(
            discretization=discretizations.limited_skips(most_skips),
            logits_start=rest,
            supernet={"cells": number, **({"dropout": "skip"} if start else {})},
            dropout_rate=LinearThenExponential(start, rest, 0.2 * 25) if start else None,
        )
        stages.append(method)
    return dataclasses.replace(stages[0], stages=tuple(map(Stage, stages, ops)))
