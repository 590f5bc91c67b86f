"""Accuracy of a cell, or of the supernet without some of its ops, with the shared weights of the supernet."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.relaxations import Arch

_DRAWS = 1024


def mean_weights(problem: SearchProblem, state: SearchState, left: Arch) -> Arch:
    """The mean op weights of the method's relaxation in a supernet from which some ops have been removed.

    A removed op gets the logit -inf, and the relaxation decides the weights of the others: a softmax is taken over the
    remaining ops, sigmoids do not change, gates and sampled ops are drawn among the remaining ops. The mean is taken
    over 1,024 draws, with the same random numbers whichever ops are removed. An op that is alone on its edge has the
    weight 1, as in a cell.

    Args:
      problem: static.
      state: of the search; only its logits, its step and its key are used.
      left: the remaining ops, bool[edges, ops] for each cell type; an edge may have none.

    Returns:
      f32[edges, ops] for each cell type, exactly 0 for a removed op.
    """
    logits = state.arch | {t: jnp.where(rows, state.arch[t], -jnp.inf) for t, rows in left.items()}
    progress = problem.progress(state.step)
    keys = jax.random.split(key_for(state.key, Purpose.MEAN_WEIGHTS, state.step), _DRAWS)
    drawn = jax.vmap(lambda key: problem.weigh(logits, key, progress))(keys)
    weights = {}
    for t, rows in left.items():
        alone = jnp.sum(rows, axis=1, keepdims=True) == 1
        weights[t] = jnp.where(rows, jnp.where(alone, 1.0, jnp.mean(drawn[t], axis=0)), 0.0)
    return weights


def measure(
    problem: SearchProblem, state: SearchState, key: jax.Array, batches: Batch, weights: Arch
) -> tuple[jax.Array, jax.Array]:
    """The mean loss and the mean accuracy of the supernet over batches, with the given op weights, each f32[].

    Each batch is normalised by its own statistics, as in the search; there is no dropout.

    Args:
      problem: static.
      state: of the search, whose weights are used.
      key: for the random numbers of ops.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.
      weights: f32[edges, ops] for each cell type, the same in all of its layers; 0 and 1 to measure a single cell.
    """
    problem = dataclasses.replace(problem, method=dataclasses.replace(problem.method, dropout_rate=None))
    variables, op_weights = {"params": state.params, "arch": state.arch}, problem.in_each_layer(weights)

    def of_batch(batch):
        loss, (accuracy, _) = batch_loss(problem, state, key, batch, variables, op_weights)
        return loss, accuracy

    losses, accuracies = jax.lax.map(of_batch, batches)
    return jnp.mean(losses), jnp.mean(accuracies)
