"""Selection of the best of several drawn cells, judged by the shared weights (Li, Talwalkar, UAI 2019), after each
epoch or after the search."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.fields import checked, from_to
from prdarts_jax.search import gates, relaxations
from prdarts_jax.search.problem import SearchProblem, SearchState
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.relaxations import Arch
from prdarts_jax.search.shared_weights import mean_weights, measure


@checked
@dataclasses.dataclass(frozen=True)
class BestOf:
    """After an epoch, the relaxation draws `samples` cells; the logits become 1 for the ops of the best one, else 0.

    If a relaxation gives several ops of an edge a weight, only the one with the largest weight counts.
    """

    samples: Annotated[int, from_to(1, 10**6)]

    def __call__(self, problem: SearchProblem, state: SearchState, batches: Batch) -> SearchState:
        """The state with these logits. The best cell is the one with the smallest mean loss over the batches, with the
        weights of the state. Earlier cells are not considered.

        The key and the step of the state decide all random numbers. Logits of ops that are no candidates stay -inf.
        `batches` are validation batches, {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.
        """
        progress = problem.progress(state.step)
        keys = jax.random.split(key_for(state.key, Purpose.BEST_OF_EPOCH, state.step), self.samples)

        def draw(key):
            return problem.weigh(state.arch, key, progress)

        drawn = _best(problem, state, draw, keys, batches, lambda losses, accuracies: jnp.argmin(losses))
        chosen = {t: (w > 0) & (w == w.max(axis=-1, keepdims=True)) for t, w in drawn.items()}
        logits = {t: jnp.where(jnp.isfinite(state.arch[t]), c.astype(jnp.float32), -jnp.inf) for t, c in chosen.items()}
        return state.replace(arch=state.arch | logits)


@checked
@dataclasses.dataclass(frozen=True)
class BestCell:
    """After a search, `samples` cells are drawn by the mean op weights of the method, and the best one is chosen.

    On each edge an op is drawn in proportion to its mean weight (see `shared_weights.mean_weights`); with a method that
    draws cells uniformly, these cells are drawn uniformly too. For the inputs of a node see `gates.draw_cell`.
    """

    samples: Annotated[int, from_to(1, 10**6)]

    def __call__(
        self,
        problem: SearchProblem,
        state: SearchState,
        train_batch: Callable[[jax.Array], Batch],
        val_batches: Batch,
    ) -> Arch:
        """The ops of the cell, bool[edges, ops] for each cell type; see `Method.after_search`.

        The best cell has the largest mean accuracy over the validation batches and, among equal ones, the smallest
        loss, with the weights of the state: no training batch is used. The key and the step of the state decide all
        random numbers.
        """
        space = problem.supernet.space
        weights = mean_weights(problem, state, {t: jnp.isfinite(state.arch[t]) for t in space.cell_types})
        keys = jax.random.split(key_for(state.key, Purpose.BEST_CELL, state.step), self.samples)

        def draw(key):
            of_types = relaxations.keys(key, weights)
            return {t: gates.draw_cell(of_types[t], space, w).astype(w.dtype) for t, w in weights.items()}

        def best(losses, accuracies):
            return jnp.lexsort((losses, -accuracies))[0]

        return {t: w > 0 for t, w in _best(problem, state, draw, keys, val_batches, best).items()}


def _best(problem, state, draw, keys, batches, best):
    """The cell that `draw` draws with the best key; `best` finds its index from the mean losses and accuracies of all
    keys, each f32[keys]."""
    losses, accuracies = jax.lax.map(lambda key: measure(problem, state, key, batches, draw(key)), keys)
    return draw(keys[best(losses, accuracies)])
