"""SmoothDARTS: Stabilizing Differentiable Architecture Search via Perturbation-based Regularization (Chen, Hsieh, ICML
2020)."""

from typing import Annotated

from prdarts_jax.fields import at_least, from_to
from prdarts_jax.search import smoothing
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear

_Radius = Annotated[float, at_least(0)]


@named(PAPER)
def sdarts_rs(start_radius: _Radius = 0.03, end_radius: _Radius = 0.3) -> Method:
    """DARTS whose weights are trained with randomly perturbed op weights.

    Args:
      start_radius: the largest perturbation at the start of the search; it changes linearly.
      end_radius: the largest perturbation at the end of the search.
    """
    return Method(smoothing=smoothing.RandomSmoothing(Linear(start_radius, end_radius)))


@named(PAPER)
def sdarts_adv(
    start_radius: _Radius = 0.03, end_radius: _Radius = 0.3, steps: Annotated[int, from_to(1, 1000)] = 7
) -> Method:
    """DARTS whose weights are trained with the perturbed op weights that make the training loss large. The other
    arguments are those of `sdarts_rs`.

    Args:
      steps: number of steps of the ascent; each costs a gradient.
    """
    return Method(smoothing=smoothing.AdversarialSmoothing(Linear(start_radius, end_radius), steps))
