"""Schedules over the progress of a search: frozen, hashable dataclasses, so that equal methods share one compiled
function.

A range of a schedule, as in `Annotated[Linear, above(0)]`, is one of its `start` and its `end`.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked, from_to


@checked
@dataclasses.dataclass(frozen=True)
class Linear:
    """Linear from `start` to `end`.

    >>> Linear(10.0, 0.0)(0.25)
    7.5
    """

    start: float
    end: float

    def __call__(self, progress: jax.Array) -> jax.Array:
        """The value at a progress in [0, 1], f32[]."""
        return self.start + (self.end - self.start) * progress


@checked
@dataclasses.dataclass(frozen=True)
class LinearThenExponential:
    """start * (1 - progress) before the progress `knee`, and start * exp(-rate * (progress - knee)) from there on.

    At the knee the value jumps back to `start`.
    """

    start: float
    knee: Annotated[float, from_to(0, 1)]
    rate: Annotated[float, at_least(0)]

    def __call__(self, progress: jax.Array) -> jax.Array:
        """The value at a progress in [0, 1], f32[]."""
        exponential = jnp.exp(-self.rate * (progress - self.knee))
        return self.start * jnp.where(progress >= self.knee, exponential, 1 - progress)
