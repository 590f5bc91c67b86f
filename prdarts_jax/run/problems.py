"""The objects that a config describes: method, supernet, optimizers, and the problems made of them."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from prdarts_jax import nets
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete
from prdarts_jax.run import settings
from prdarts_jax.search import methods
from prdarts_jax.search.method import Method, Stage
from prdarts_jax.search.perturbation import Perturbation
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.selection import BestCell
from prdarts_jax.spaces.genotypes import AnyGenotype


def make_method(config: ConfigDict) -> Method:
    """The search method that `config.method` names, with the settings of its section, `config.logits.start` and
    `config.discretization`."""
    method = methods.find(config.method)(**settings.settings_of(config))
    changes: dict[str, Any] = {}
    if config.logits.start is not None:
        changes["logits_start"] = config.logits.start
    if config.discretization != "own":
        changes["after_search"] = _after_search(config)
    if not changes:
        return method
    stages = tuple(
        dataclasses.replace(stage, method=dataclasses.replace(stage.method, **changes)) for stage in method.stages
    )
    return dataclasses.replace(method, **changes, stages=stages)


def _after_search(config):
    """The function that chooses the cell in place of the method's own discretization."""
    if config.discretization == "best_of":
        return BestCell(config.selection.samples)
    optimizer = _in_pieces(_sgd(config.weights, config.weights.learning_rate / 10), config.accumulate)
    return Perturbation(config.selection.finetuning_steps * config.accumulate, optimizer)


def stages_of(method: Method) -> tuple[Stage, ...]:
    """The searches that a method consists of; without stages, one with the method itself."""
    return method.stages or (Stage(method),)


def make_supernet(config: ConfigDict, method: Method, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """The supernet of the config's space, as the method needs it; for `axis_name` see `devices.py`."""
    names = ("form", "channels", "cells", "running_statistics", "pool_norm", "head_norm")
    fields = {name: config[name] for name in names} | {
        "num_classes": num_classes,
        "dtype": jnp.dtype(config.dtype),
        "axis_name": axis_name,
    }
    return nets.supernet_of(settings.space_of(config), **fields | dict(method.supernet))


def make_search_problem(
    config: ConfigDict, num_classes: int, total_steps: int, method: Method | None = None, axis_name: str | None = None
) -> SearchProblem:
    """The search that a valid config describes, with `method`, by default the first stage of the config's method.

    A step takes batch_size / accumulate images of each half, and draws its own gates.
    """
    total_steps = _countable(total_steps)
    method, logits, pieces = method or stages_of(make_method(config))[0].method, config.logits, config.accumulate
    arch_optimizer = optax.chain(
        optax.add_decayed_weights(logits.weight_decay),
        optax.adam(logits.learning_rate, b1=logits.b1, b2=logits.b2),
    )
    return SearchProblem(
        supernet=make_supernet(config, method, num_classes, axis_name),
        method=method,
        weight_optimizer=_in_pieces(_weight_optimizer(config, total_steps), pieces),
        arch_optimizer=_in_pieces(arch_optimizer, pieces),
        total_steps=total_steps,
    )


def _countable(steps: int) -> int:
    """The number of steps if the int32 of a state can hold it, else a ValueError."""
    if steps >= 2**31:
        raise ValueError(f"the run has {steps:,} steps, but may have {2**31 - 1:,} at most: lower config.epochs")
    return steps


def make_network(
    config: ConfigDict, genotype: AnyGenotype, num_classes: int, axis_name: str | None = None
) -> discrete.Network:
    """The network of a genotype that a valid config describes; for `axis_name` see `devices.py`."""
    return discrete.network(
        genotype,
        form=config.form,
        channels=config.channels,
        cells=config.cells,
        num_classes=num_classes,
        auxiliary=config.auxiliary_weight > 0,
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
    )


def make_train_problem(config: ConfigDict, network: nn.Module, steps_per_epoch: int) -> training.TrainProblem:
    """The training of a network that a valid config describes.

    A step takes batch_size / accumulate images. If `accumulate` does not divide the number of steps, the last ones do
    not change the weights.
    """
    total_steps = _countable(config.epochs * steps_per_epoch)
    optimizer = _weight_optimizer(config, total_steps)
    return training.TrainProblem(
        network=network,
        optimizer=_in_pieces(optimizer, config.accumulate),
        total_steps=total_steps,
        drop_path=config.drop_path,
        auxiliary_weight=config.auxiliary_weight,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
    )


def _weight_optimizer(config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """SGD with momentum and the settings of a config's section `weights`. As in PyTorch, weight decay is added to the
    gradient after it is clipped and before momentum.

    The learning rate grows linearly from 0 in the warm-up, if any, and then falls until `total_steps`, along a cosine
    or a line. It changes once every config.accumulate steps.
    """
    weights, total_moves = config.weights, total_steps // config.accumulate
    warmup = weights.warmup_epochs * (total_steps // max(config.epochs, 1)) // config.accumulate
    start, end, moves = weights.learning_rate, weights.end_learning_rate, max(total_moves - warmup, 1)
    if weights.schedule == "cosine":
        rate = optax.cosine_decay_schedule(start, moves, alpha=end / start)
    else:
        rate = optax.linear_schedule(start, end, moves)
    if warmup:
        rate = optax.join_schedules([optax.linear_schedule(0.0, start, warmup), rate], [warmup])
    return _sgd(weights, rate)


def _sgd(weights, rate):
    # The derivative of a clip at infinity is NaN, and second-order methods differentiate the optimizer.
    clip = optax.clip_by_global_norm(weights.clip) if math.isfinite(weights.clip) else optax.identity()
    return optax.chain(
        clip,
        optax.add_decayed_weights(weights.weight_decay),
        optax.sgd(rate, momentum=weights.momentum, nesterov=weights.nesterov),
    )


def _in_pieces(optimizer: optax.GradientTransformation, pieces: int) -> optax.GradientTransformation:
    """The optimizer, which then updates once every `pieces` steps, by the mean of their gradients."""
    return optimizer if pieces == 1 else optax.MultiSteps(optimizer, pieces).gradient_transformation()
