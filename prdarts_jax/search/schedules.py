"""Schedules over the progress of a search: frozen values, so that equal methods share one compiled function."""

import dataclasses

import jax
import jax.numpy as jnp


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


@dataclasses.dataclass(frozen=True)
class LinearThenExponential:
    """Linear from `start` towards 0; from the progress `knee` on, `start` times exp(-rate (progress - knee))."""

    start: float
    knee: float
    rate: float

    def __call__(self, progress: jax.Array) -> jax.Array:
        """The value at a progress in [0, 1], f32[]."""
        exponential = jnp.exp(-self.rate * (progress - self.knee))
        return self.start * jnp.where(progress >= self.knee, exponential, 1 - progress)
