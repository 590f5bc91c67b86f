"""A term whose weight changes during the search."""

import dataclasses
from collections.abc import Callable

import jax

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.search.terms.base import Term, View


@checked
@dataclasses.dataclass(frozen=True)
class scheduled:
    """Another term times a schedule, for instance `schedules.Linear(0.0, 1.0)`. The metrics are those of the term.

    >>> import prdarts_jax as pdx
    >>> growing = pdx.terms.scheduled(pdx.terms.beta_decay(50.0), pdx.schedules.Linear(0.0, 1.0))

    Attributes:
      term: the other term.
      schedule: progress -> f32[].
    """

    term: Term
    schedule: Callable[[jax.Array], jax.Array]

    def __call__(self, view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The term times the schedule at this progress."""
        value, metrics = self.term(view, op_weights, progress)
        return self.schedule(progress) * value, metrics
