"""Bilevel search in the network of the analysis: do skip connections grow, and is it because they are fast?

Every edge has a skip connection and a convolution whose op weights begin at 1/2: with a softmax over both (DARTS), or
as independent gates of the temperature 1 (PR-DARTS). In turn the weights take a step on training data, and the logits
one of the first order on validation data.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prdarts_jax.search.gates import activation_probability, hard_concrete
from prdarts_jax.theory import draws as drawing
from prdarts_jax.theory import gram, model, rates
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.theorem1 import Measured, floats
from prdarts_jax.theory.theorem2 import teacher_data

# Of PR-DARTS's terms, for skip connections, convolutions and the path.
_LAMBDA = (0.01, 0.005, 0.005)


def _ranks(values):
    ranks = jnp.argsort(jnp.argsort(values)).astype(values.dtype)
    return (ranks - jnp.mean(ranks)) / jnp.std(ranks)


@drawing.compiled
def dynamics(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    samples: int,
    channels: int,
    positions: int,
    draws: int,
    steps: int,
    learning_rate: float,
) -> Measured:
    """The growth of skip connections over convolutions, and its link to what they do to the speed.

    The searches are 'softmax', 'gates' (no term) and 'gates, terms' (PR-DARTS's sparsity and path terms). The growth is
    the mean over edges of the change of the logit of the skip connection minus that of the convolution. The link is
    Spearman's correlation over edges of that change with the difference of the derivatives of a speed at the start:
    ln lambda_min / lambda_max (conditioning), or ln of r G r / |r|^2 with the residuals r = u - y (first speed).
    """
    shape = Model(nodes, width, activation=activation)
    edges = len(shape.edges)
    chain = np.array([target == source + 1 for source, target in shape.edges])
    searches = {"softmax": 0.0, "gates": 0.0, "gates, terms": 1.0}

    def of_draw(key):
        key_data, key_params, key_gates = jax.random.split(key, 3)
        (inputs, targets), held_out = teacher_data(key_data, shape, (samples, samples), channels, positions)
        start = model.init(shape, key_params, channels, positions)
        half = dict.fromkeys(("skip", "conv"), jnp.full(edges, 0.5))
        residual = model.outputs(shape, start, half, inputs) - targets
        step_size = rates.stable_step(gram.whole(gram.blocks(shape, start, half, inputs)))

        def preference(value):
            slopes = jax.grad(lambda alpha: jnp.log(value(gram.whole(gram.blocks(shape, start, alpha, inputs)))))(half)
            return slopes["skip"] - slopes["conv"]

        speeds = {
            "conditioning": preference(gram.conditioning),
            "first speed": preference(lambda matrix: residual @ matrix @ residual),
        }

        def grown(name, strength):
            def weights_of(logits, key):
                both = jax.nn.softmax(logits, axis=0) if name == "softmax" else hard_concrete(key, logits, jnp.ones(()))
                return dict(zip(("skip", "conv"), both, strict=True))

            def outer(logits, params, key):
                skip, conv = activation_probability(logits, jnp.ones(()))
                terms = _LAMBDA[0] * skip.mean() + _LAMBDA[1] * conv.mean() - _LAMBDA[2] * jnp.prod(conv[chain])
                return model.loss(shape, params, weights_of(logits, key), *held_out) + strength * terms

            optimizer = optax.adam(learning_rate, b1=0.5, b2=0.999)

            def step(carry, key):
                params, logits, state = carry
                key_inner, key_outer = jax.random.split(key)
                slope = jax.grad(model.loss, argnums=1)(shape, params, weights_of(logits, key_inner), inputs, targets)
                params = jax.tree.map(lambda w, g: w - step_size * g, params, slope)
                updates, state = optimizer.update(jax.grad(outer)(logits, params, key_outer), state)
                return (params, optax.apply_updates(logits, updates), state), None

            logits = jnp.zeros((2, edges))
            carry = (start, logits, optimizer.init(logits))
            (_, logits, _), _ = jax.lax.scan(step, carry, jax.random.split(key_gates, steps))
            return logits[0] - logits[1]

        found = {}
        for name, strength in searches.items():
            growth = grown(name, strength)
            found[f"{name}: growth"] = jnp.mean(growth)
            for speed, preferred in speeds.items():
                found[f"{name}: link to {speed}"] = jnp.mean(_ranks(growth) * _ranks(preferred))
        for speed, preferred in speeds.items():
            found[f"preference of {speed}"] = jnp.mean(preferred)
            for name in ("gates", "gates, terms"):
                broken = found[f"softmax: link to {speed}"] - found[f"{name}: link to {speed}"]
                found[f"{name}: loss of link to {speed}"] = broken
        return found

    return drawing.each(of_draw, jax.random.split(key, draws), 4 * floats(shape))
