"""Theorem 2: raising a gate does not raise the smallest loss, so that independent gates become dense.

Lemma. Let R(W, g) = F(W, g) + decay / 2 |W|^2, and W a minimum of R for the gates g. The slopes of the minimum of R in
the gates into the last node, weighted with these gates, add up to -decay |W_{h-1}|^2, where W_{h-1} are the readout's
weights of the last node:

    sum_{s, op} g^op_{s,h-1} dR / dg^op_{s,h-1} = -decay |W_{h-1}|^2.

Proof. By the envelope theorem dR / dg is the partial derivative of F. The gates into the last node enter F only through
<W_{h-1}, X_{h-1}>, and X_{h-1} is linear in them, so the sum is <W_{h-1}, dF / dW_{h-1}>; at a minimum of R that
gradient is -decay W_{h-1}.

Without decay the sum is 0: if one gate into the last node lowers the smallest loss to first order, another raises it. A
skip connection into it has the slope -decay <W_s, W_{h-1}>, which is 0 without decay, so the sum over the convolutions
alone is 0 too, and part (2) of the theorem cannot hold for all of them.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prdarts_jax.theory import draws as drawing
from prdarts_jax.theory import model
from prdarts_jax.theory.minimum import minimize, slope_at_minimum
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.theorem1 import Measured

_TEACHER = 32  # width


def teacher_data(key: jax.Array, shape: Model, samples: tuple[int, ...], channels: int, positions: int) -> list[tuple]:
    """(inputs, targets) of each of several sets, with the targets of one random network: of the same form, with 32
    channels and all op weights 1/2. All targets together have the mean 0 and the variance 1; consumes `key`."""
    key_data, key_teacher = jax.random.split(key)
    teacher = Model(shape.nodes, _TEACHER, activation=shape.activation)
    inputs, _ = model.draw_data(key_data, sum(samples), channels, positions)
    params = model.init(teacher, key_teacher, channels, positions)
    targets = model.outputs(teacher, params, dict.fromkeys(("skip", "conv"), jnp.full(len(teacher.edges), 0.5)), inputs)
    targets = (targets - jnp.mean(targets)) / jnp.std(targets)
    sets, begin = [], 0
    for number in samples:
        sets.append((inputs[begin : begin + number], targets[begin : begin + number]))
        begin += number
    return sets


@drawing.compiled
def gates(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    samples: int,
    validation: int,
    channels: int,
    positions: int,
    decay: float,
    rough: int,
    fine: int,
    draws: int,
) -> Measured:
    """Slopes at a minimum W of R in the weights, for gates drawn in [0.2, 0.8].

    For each gate, such as 'skip 0,1': -d ln R / d gate of the minimum (smallest loss); and -d ln F_val / d gate, where
    F_val is the loss of `validation` other samples at the minimum of R (validation loss). Beside them the error of the
    lemma, its sum over R, F_val itself, and the number of decades by which the norm of the gradient of R is below 1e-6
    (convergence). Where that number is not above 0, all other values are NaN.
    """
    shape = Model(nodes, width, activation=activation)
    edges = len(shape.edges)
    names = [f"{op} {source},{target}" for op in ("skip", "conv") for source, target in shape.edges]
    into_last = jnp.array([target == nodes - 1 for _, target in shape.edges] * 2)

    def of_draw(key):
        key_data, key_gates, key_params = jax.random.split(key, 3)
        train, held_out = teacher_data(key_data, shape, (samples, validation), channels, positions)
        start, unravel = ravel_pytree(model.init(shape, key_params, channels, positions))
        g = jax.random.uniform(key_gates, (2 * edges,), minval=0.2, maxval=0.8)

        def loss(w, g, data):
            return model.loss(shape, unravel(w), {"skip": g[:edges], "conv": g[edges:]}, *data)

        def regularised(w, g):
            return loss(w, g, train) + decay / 2 * jnp.sum(w**2)

        def residuals(w):
            found = model.outputs(shape, unravel(w), {"skip": g[:edges], "conv": g[edges:]}, train[0])
            return (found - train[1]) / samples**0.5

        w = minimize(residuals, start, decay, rough, fine)
        smallest = regularised(w, g)
        slopes = jax.grad(regularised, argnums=1)(w, g)
        of_validation = slope_at_minimum(lambda w, g: jnp.log(loss(w, g, held_out)), regularised, w, g)
        total = jnp.sum(jnp.where(into_last, g * slopes, 0))
        readout = unravel(w)["readout"][-1]
        found = {
            "convergence": -6 - jnp.log10(jnp.linalg.norm(jax.grad(regularised)(w, g))),
            "error of the lemma": total + decay * jnp.sum(readout**2),
            "sum of the lemma over R": total / smallest,
            "validation loss": loss(w, g, held_out),
        }
        for number, name in enumerate(names):
            found[f"smallest loss: {name}"] = -slopes[number] / smallest
            found[f"validation loss: {name}"] = -of_validation[number]
        reached = found["convergence"] > 0
        return found | {
            name: jnp.where(reached, value, jnp.nan) for name, value in found.items() if name != "convergence"
        }

    return drawing.each(of_draw, jax.random.split(key, draws), 200 * (3 * width * width * edges) ** 2)
