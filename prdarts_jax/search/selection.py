"""The best of several drawn cells by the shared weights (Li, Talwalkar, UAI 2019)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.search.step import SearchProblem, SearchState, batch_loss


@dataclasses.dataclass(frozen=True)
class BestOf:
    """After an epoch, logits become 1 for the ops of the best of `samples` cells that the relaxation draws, else 0."""

    samples: int

    def __call__(self, problem: SearchProblem, state: SearchState, batches: Batch) -> SearchState:
        """The state with these logits. Best is the smallest mean loss over the batches, with the weights as they are.

        The key and the step of the state decide what is drawn. The logit of an op that is no candidate stays -inf.
        Batches are of validation data, {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.
        """
        progress = problem.progress(state.step)
        keys = jax.random.split(key_for(state.key, 4, state.step), self.samples)
        variables = {"params": state.params, "arch": state.arch}

        def mean_loss(key):
            op_weights = problem.op_weights(state.arch, key, progress)
            losses = jax.lax.map(lambda b: batch_loss(problem, state, key, b, variables, op_weights)[0], batches)
            return jnp.mean(losses)

        best = keys[jnp.argmin(jax.lax.map(mean_loss, keys))]
        drawn = problem.method.relaxation.weigh(problem.supernet.space, state.arch, best, progress)
        logits = {
            t: jnp.where(jnp.isfinite(state.arch[t]), (w > 0).astype(w.dtype), -jnp.inf) for t, w in drawn.items()
        }
        return state.replace(arch=state.arch | logits)
