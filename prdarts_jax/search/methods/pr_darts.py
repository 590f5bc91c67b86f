"""PR-DARTS: Theory-Inspired Path-Regularized Differentiable NAS (Zhou, Xiong, Socher, Hoi, NeurIPS 2020).

Its two ideas are the gates (with group sparsity) and the path regulariser; Fig. 1 of the paper has each alone.
"""

from types import MappingProxyType
from typing import Annotated, Any

from prdarts_jax.fields import above, at_least, from_to
from prdarts_jax.search import relaxations, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import discretizations

_Weight = Annotated[float, at_least(0)]
_Temperature = Annotated[float, above(0)]
_Fraction = Annotated[float, from_to(0, 1)]

# The authors' code: another network and other schedules, beside other gates and regularisers.
_RELEASED = MappingProxyType(
    {
        "batch_size": 250,
        "augmentation.cutout": 0,
        "cells": 6,
        "pool_norm": False,
        "head_norm": True,
        "running_statistics": False,
        "weights.end_learning_rate": 0.001,
        "weights.nesterov": True,
        "weights.weight_decay": 5e-4,
    }
)


def _gates(start_temperature, end_temperature):
    return relaxations.HardConcrete(0.5, 0.0, temperature=Linear(start_temperature, end_temperature))


def _method(relaxation, distinct_inputs, *parts):
    """What all forms share."""
    discretization = discretizations.strongest(distinct_inputs)
    return Method(relaxation=relaxation, terms=parts, discretization=discretization, weights_first=True)


@named()
def pr_darts(
    lambda_skip: _Weight = 0.01,
    lambda_nonskip: _Weight = 0.005,
    lambda_path: _Weight = 0.005,
    start_temperature: _Temperature = 10.0,
    end_temperature: _Temperature = 0.1,
    distinct_inputs: bool = False,
) -> Method:
    """Independent hard-concrete gates, two ops an edge drawn uniformly; sparsity of groups and a reward for depth.

    The logits minimise L_val + lambda1 L_skip + lambda2 L_nonskip - lambda3 L_path (equation 9).

    Args:
      lambda_skip: lambda1, weight of L_skip.
      lambda_nonskip: lambda2, weight of L_nonskip.
      lambda_path: lambda3, weight of L_path.
      start_temperature: tau at the start; it falls linearly.
      end_temperature: tau at the end.
      distinct_inputs: derive at most one op per edge, as all published cells have it.
    """
    return _method(
        _gates(start_temperature, end_temperature),
        distinct_inputs,
        terms.skip_sparsity(lambda_skip),
        terms.nonskip_sparsity(lambda_nonskip),
        terms.path_depth(lambda_path),
    )


@named()
def pr_darts_gates(
    lambda_skip: _Weight = 0.01,
    lambda_nonskip: _Weight = 0.005,
    start_temperature: _Temperature = 10.0,
    end_temperature: _Temperature = 0.1,
    distinct_inputs: bool = False,
) -> Method:
    """The gates and their sparsity without the reward for depth (Fig. 1); arguments as `pr_darts`."""
    relaxation = _gates(start_temperature, end_temperature)
    return _method(
        relaxation, distinct_inputs, terms.skip_sparsity(lambda_skip), terms.nonskip_sparsity(lambda_nonskip)
    )


@named()
def pr_darts_path(lambda_path: _Weight = 0.005, distinct_inputs: bool = False) -> Method:
    """The reward for depth alone, with DARTS's softmax in place of gates (Fig. 1); arguments as `pr_darts`."""
    return _method(relaxations.Softmax(0.5, 0.0), distinct_inputs, terms.path_depth(lambda_path))


@named(_RELEASED)
def pr_darts_released(
    lambda_skip: _Weight = 0.01,
    lambda_nonskip: _Weight = 0.005,
    lambda_path: _Weight = 0.005,
    start_temperature: _Temperature = 1.0,
    end_temperature: _Temperature = 0.1,
    distinct_inputs: bool = False,
    drop: _Fraction = 0.4,
    threshold: _Fraction = 0.2,
) -> Method:
    """As the authors' code has it: the two ops with the largest gates, straight-through; terms over the chosen gates.

    The other arguments are those of `pr_darts`.

    Args:
      lambda_nonskip: lambda2, weight of the sparsity of the parameterised ops and none, and of that of the pools.
      drop: probability that a gate is pushed out of the running.
      threshold: a group's sparsity counts only above it.
    """
    chosen: dict[str, Any] = {"chosen": True, "threshold": threshold}
    temperature = Linear(start_temperature, end_temperature)
    return _method(
        relaxations.HardConcrete(temperature=temperature, draw="largest", drop=drop),
        distinct_inputs,
        terms.skip_sparsity(lambda_skip, **chosen),
        terms.group_sparsity(lambda_nonskip, "l_nonskip", "none", "noise", "conv", **chosen),
        terms.group_sparsity(lambda_nonskip, "l_pool", "pool", **chosen),
        terms.path_depth(lambda_path, chosen=True),
    )
