"""Progressive pruning: candidates of the edges are removed during the search."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from prdarts_jax.data.epochs import Batch
from prdarts_jax.fields import at_least, checked
from prdarts_jax.search import gates
from prdarts_jax.search.problem import SearchProblem, SearchState
from prdarts_jax.search.schedules import Linear


@checked
@dataclasses.dataclass(frozen=True)
class Pruning:
    """After an epoch, each edge keeps its candidates with the largest scores; the logits of the others become -inf.

    Nothing is removed before the logits are trained (`Method.logits_start`), and one candidate always stays. If nodes
    keep a number of entries, the op `none` goes first. A removed op is not executed any more and never comes back, so
    the steps become shorter. P-DARTS and DrNAS prune between stages, ASAP (Noy et al., 2020) during the search.

    Attributes:
      ops: a schedule of the number of candidates of each edge, rounded up; with Linear(8.0, 2.0) it falls from 8 to 2.
    """

    ops: Annotated[Linear, at_least(0)]

    def __call__(self, problem: SearchProblem, state: SearchState, batches: Batch) -> SearchState:
        """The state with these logits; the batches are not used."""
        progress = problem.progress(state.step)
        keep = jnp.maximum(jnp.ceil(self.ops(progress)), 1)
        logits = {t: state.arch[t] for t in problem.supernet.space.cell_types}
        space = problem.supernet.space
        scores = problem.method.relaxation.scores(space, state.arch)
        scores = {t: jnp.where(jnp.isfinite(beta), scores[t], -jnp.inf) for t, beta in logits.items()}
        if space.entries_per_node:  # the op `none` is never a part of a cell
            stays = gates.computes(space)
            scores = {t: jnp.where(stays | (s == -jnp.inf), s, jnp.finfo(s.dtype).min) for t, s in scores.items()}
        ranks = {t: jnp.argsort(jnp.argsort(-scores[t], axis=1), axis=1) for t in logits}
        pruned = {
            t: jnp.where((ranks[t] < keep) | (progress < problem.method.logits_start), beta, -jnp.inf)
            for t, beta in logits.items()
        }
        return state.replace(arch=state.arch | pruned)
