"""PR-DARTS: Theory-Inspired Path-Regularized Differentiable NAS (Zhou, Xiong, Socher, Hoi, NeurIPS 2020).

Its two ideas are gates with group sparsity, and a path regulariser. Fig. 1 of the paper shows the effect of each alone.
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

# The settings of the authors' code. Besides other gates and regularisers it has another network and other schedules.
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
    """The method with the parts that all forms of PR-DARTS share."""
    discretization = discretizations.strongest(distinct_inputs)
    return Method(relaxation=relaxation, terms=parts, discretization=discretization, weights_first=True)


@named()
def pr_darts(
    lambda_skip: _Weight = 0.01,
    lambda_nonskip: _Weight = 0.005,
    lambda_path: _Weight = 0.005,
    start_temperature: _Temperature = 10.0,
    end_temperature: _Temperature = 0.1,
    distinct_inputs: bool = True,
) -> Method:
    """Weighs each op by a hard-concrete gate of its own; penalties make the gates sparse, and depth is rewarded.

    Each step runs only two ops per edge, drawn uniformly and weighed by their gates. The logits minimise
    L_val + lambda1 L_skip + lambda2 L_nonskip - lambda3 L_path (equation 9).

    Args:
      lambda_skip: lambda1, weight of L_skip, the sparsity of the gates of skip connections.
      lambda_nonskip: lambda2, weight of L_nonskip, the sparsity of the gates of all other ops.
      lambda_path: lambda3, weight of L_path, the reward for depth.
      start_temperature: tau at the start of the search; it falls linearly over the whole search.
      end_temperature: tau at the end of the search.
      distinct_inputs: True: the two ops that a node keeps are on different edges, as in all published cells. False:
        both may be on the same edge, as the paper's text allows; the cell may then be a chain.
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
    distinct_inputs: bool = True,
) -> Method:
    """PR-DARTS without the reward for depth (Fig. 1). The arguments are those of `pr_darts`."""
    relaxation = _gates(start_temperature, end_temperature)
    return _method(
        relaxation, distinct_inputs, terms.skip_sparsity(lambda_skip), terms.nonskip_sparsity(lambda_nonskip)
    )


@named()
def pr_darts_path(lambda_path: _Weight = 0.005, distinct_inputs: bool = True) -> Method:
    """PR-DARTS's reward for depth with DARTS's softmax instead of gates (Fig. 1). The arguments are those of
    `pr_darts`."""
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
    """PR-DARTS as in the authors' released code, which differs from the paper.

    Each step runs the two ops with the largest gates on each edge, with weight 1 and the gradient of the gates
    (straight-through). The regularisers take the mean only over the gates of these ops. Both ops that a node keeps may
    be on the same edge. The other arguments are those of `pr_darts`.

    Args:
      lambda_nonskip: lambda2, weight of two sparsity terms: one for the ops with parameters, noise and the op `none`
        together, and one for the pools.
      drop: the probability, for each gate in each step, that 1 is subtracted from it when the two largest are chosen.
      threshold: a sparsity term is the mean probability of its gates to be open, minus this threshold; it is 0 below
        the threshold.
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
