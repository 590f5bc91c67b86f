"""The surrogate loss of REINFORCE."""

import jax
import jax.numpy as jnp

from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.search.terms.base import View


def score_function(view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """A term: the surrogate loss of REINFORCE (Williams, 1992), for op weights drawn by `relaxations.Policy`.

    Its gradient in the logits is (L_val - baseline) d log p(op weights), whose expectation is the gradient of the
    expected L_val. Its gradient in the baseline is that of (L_val - baseline)^2 / 2. The metric is `baseline`.

    Raises:
      ValueError: the relaxation is another one, without a baseline.
    """
    if "baseline" not in view.logits:
        raise ValueError("terms: score_function must be with relaxation=relaxations.Policy(), whose baseline it trains")
    baseline = view.logits["baseline"]
    error = view.val_loss - baseline
    chosen = {t: jnp.where(w > 0, jax.nn.log_softmax(view.logits[t]), 0.0) for t, w in op_weights.items()}
    log_probability = sum(jnp.sum(terms) for terms in chosen.values())
    surrogate = jax.lax.stop_gradient(error) * log_probability + jnp.square(error) / 2
    return surrogate, {"baseline": baseline}
