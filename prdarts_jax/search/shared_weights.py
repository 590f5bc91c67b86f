"""What the shared weights of a supernet say of a cell, or of the supernet without some of its ops."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.search.relaxations import Arch
from prdarts_jax.search.step import SearchProblem, SearchState, batch_loss

_DRAWS = 1024


def mean_weights(problem: SearchProblem, state: SearchState, left: Arch) -> Arch:
    """The method's own op weights of a supernet in which only some ops are left: the mean of what its relaxation draws.

    An op that is removed gets the logit -inf, so the relaxation says what becomes of the others: a softmax is that over
    the ops that are left, sigmoids stay as they are, gates and drawn ops are drawn among those that are left. What
    draws nothing, as a softmax, is its own mean; of the others it is that of 1,024 draws, with the same random numbers
    whatever is removed. An op that is alone on its edge has the weight 1, as in a cell.

    Args:
      problem: static.
      state: its logits and its progress count.
      left: bool[edges, ops] for each cell type; an edge may have no op.

    Returns:
      f32[edges, ops] for each cell type, exactly 0 for an op that is removed.
    """
    logits = state.arch | {t: jnp.where(rows, state.arch[t], -jnp.inf) for t, rows in left.items()}
    progress, space = problem.progress(state.step), problem.supernet.space
    keys = jax.random.split(key_for(state.key, 6, state.step), _DRAWS)
    drawn = jax.vmap(lambda key: problem.method.relaxation.weigh(space, logits, key, progress))(keys)
    weights = {}
    for t, rows in left.items():
        alone = jnp.sum(rows, axis=1, keepdims=True) == 1
        weights[t] = jnp.where(rows, jnp.where(alone, 1.0, jnp.mean(drawn[t], axis=0)), 0.0)
    return weights


def measure(
    problem: SearchProblem, state: SearchState, key: jax.Array, batches: Batch, weights: Arch
) -> tuple[jax.Array, jax.Array]:
    """The mean loss and the mean accuracy over batches with such op weights, each f32[].

    Nothing changes, each batch is normalised by its own statistics, as in the search, and nothing is dropped.

    Args:
      problem: static.
      state: its weights count.
      key: of what ops draw.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.
      weights: f32[edges, ops] for each cell type, the same in all of its cells; those of a cell are 0 and 1.
    """
    problem = dataclasses.replace(problem, method=dataclasses.replace(problem.method, dropout_rate=None))
    variables, op_weights = {"params": state.params, "arch": state.arch}, problem.in_each_layer(weights)

    def of_batch(batch):
        loss, (accuracy, _) = batch_loss(problem, state, key, batch, variables, op_weights)
        return loss, accuracy

    losses, accuracies = jax.lax.map(of_batch, batches)
    return jnp.mean(losses), jnp.mean(accuracies)
