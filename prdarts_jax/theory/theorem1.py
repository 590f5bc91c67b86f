"""Theorem 1: the weights of skip connections and convolutions decide how fast the loss falls.

Each function measures; `claims.toml` has what is predicted of the result.
"""

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.theory import draws as drawing
from prdarts_jax.theory import gram, kernel, model, rates
from prdarts_jax.theory.model import Model

Measured = dict[str, jax.Array]


def floats(shape: Model) -> int:
    """The number of floats of a network's weights and of their gradients, about."""
    return 9 * len(shape.edges) * shape.width**2


def draw(key: jax.Array, shape: Model, samples: int, channels: int, positions: int) -> tuple:
    """(weights, alpha, inputs, targets) of one draw; consumes `key`."""
    key_data, key_alpha, key_params = jax.random.split(key, 3)
    inputs, targets = model.draw_data(key_data, samples, channels, positions)
    return model.init(shape, key_params, channels, positions), model.draw_alpha(key_alpha, shape), inputs, targets


@drawing.compiled
def descent(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    samples: int,
    nodes: int,
    channels: int,
    positions: int,
    draws: int,
    steps: int,
) -> Measured:
    """Step (i): by how much log F(k) / F(0) stays below its bound at the worst of `steps` steps of descent.

    The targets are random, or such that u - y is along the eigenvector of G(0) with the smallest eigenvalue (slowest),
    with the same norm as for random targets. The bound is k log(1 - eta lambda / 4) (printed), or has 4n in place of 4
    (with 1/n).
    """
    shape = Model(nodes, width, activation=activation)

    def of_draw(key):
        params, alpha, inputs, targets = draw(key, shape, samples, channels, positions)
        matrix = gram.whole(gram.blocks(shape, params, alpha, inputs))
        eigenvalues, vectors = jnp.linalg.eigh(matrix)
        step_size = rates.stable_step(matrix)
        start = model.outputs(shape, params, alpha, inputs)
        slowest = start + jnp.linalg.norm(targets - start) * vectors[:, 0]

        def falls(y):
            losses = model.descend(shape, params, alpha, inputs, y, step_size, steps)[1]
            return jnp.log(losses[1:] / losses[0])

        both = jax.lax.map(falls, jnp.stack([targets, slowest]))
        k = jnp.arange(1, steps + 1)
        return {
            f"{bound}, {name}": jnp.min(k * jnp.log1p(-step_size * eigenvalues[0] / divisor) - of_targets)
            for bound, divisor in {"printed": 4, "with 1/n": 4 * samples}.items()
            for name, of_targets in zip(("random", "slowest"), both, strict=True)
        }

    return drawing.each(of_draw, jax.random.split(key, draws), floats(shape))


@drawing.compiled
def drift(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    factors: tuple[int, ...],
    samples: int,
    nodes: int,
    channels: int,
    positions: int,
    draws: int,
    steps: int,
) -> Measured:
    """The exponent of the width, from `width` times the first factor to that times the last, in
    |G(K) - G(0)| / |G(0)| after `steps` steps; a drift that is proportional to 1/m has the exponent 1."""
    logs = []
    for factor in factors:
        shape = Model(nodes, width * factor, activation=activation)

        def of_draw(key, shape=shape):
            params, alpha, inputs, targets = draw(key, shape, samples, channels, positions)
            before = gram.whole(gram.blocks(shape, params, alpha, inputs))
            params, _ = model.descend(shape, params, alpha, inputs, targets, rates.stable_step(before), steps)
            after = gram.whole(gram.blocks(shape, params, alpha, inputs))
            return jnp.log(jnp.linalg.norm(after - before) / jnp.linalg.norm(before))

        logs.append(drawing.each(of_draw, jax.random.split(key, draws), floats(shape)))
    centred = np.log(factors) - np.mean(np.log(factors))
    return {"exponent": -centred @ jnp.stack(logs) / (centred @ centred)}


@drawing.compiled
def eigenvalues(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    calibration: int,
    samples: int,
    channels: int,
    positions: int,
    draws: int,
) -> Measured:
    """Step (ii): S(alpha) and the eigenvalues of G(0) of many weights and alpha on one data set.

    The margin is that of ln lambda_min(G(0)) over the bound 3/4 c_sigma lambda_min(K) S, in which c_sigma is the
    largest that keeps the bound in cells with `calibration` nodes.
    """
    key_data, key_cells, key_calibration = jax.random.split(key, 3)
    inputs, _ = model.draw_data(key_data, samples, channels, positions)

    def measure(key, shape):
        into_last = np.array([target == shape.nodes - 1 for _, target in shape.edges])

        def of_draw(key):
            key_params, key_alpha = jax.random.split(key)
            alpha = model.draw_alpha(key_alpha, shape)
            parts = gram.blocks(shape, model.init(shape, key_params, channels, positions), alpha, inputs)
            full = gram.whole(parts)
            smallest = gram.smallest_eigenvalue(full)
            last, readout = jnp.sum(parts["conv"][into_last], 0), jnp.sum(parts["readout"], 0)
            found = {f"S {reading}": rates.path_strength(shape, alpha, reading) for reading in rates.READINGS}
            return found | {
                "lambda_min": smallest,
                "lambda_min / lambda_max": gram.conditioning(full),
                "lambda_min of last convs": gram.smallest_eigenvalue(last),
                "share of last convs": gram.smallest_eigenvalue(last) / smallest,
                "share of readout": gram.smallest_eigenvalue(readout) / smallest,
            }

        return drawing.each(of_draw, jax.random.split(key, draws), floats(shape))

    found = measure(key_cells, Model(nodes, width, activation=activation))
    known = measure(key_calibration, Model(calibration, width, activation=activation))
    # 3/4 lambda_min(K) is the same on both sides, since the data set is.
    logs = [jnp.log(of["lambda_min"] / of["S printed"]) for of in (found, known)]
    return found | {"margin": logs[0] - jnp.min(logs[1])}


@drawing.compiled
def kernels(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    samples: int,
    channels: int,
    positions: int,
    draws: int,
) -> Measured:
    """ln lambda_min of the convolutions into the last node and that of two kernels of the inputs, for many data sets,
    with all op weights 1/3.

    The kernels are K of whole inputs, and that of their patches: <X_0(X_i), X_0(X_j)> at infinite width. Beside them
    the smallest eigenvalue of K as printed.
    """
    shape = Model(nodes, width, activation=activation)
    first = Model(1, width, activation=activation)
    into_last = np.array([target == nodes - 1 for _, target in shape.edges])
    alpha = dict.fromkeys(("skip", "conv"), jnp.full(len(shape.edges), 1 / 3))

    def of_draw(key):
        params, _, inputs, _ = draw(key, shape, samples, channels, positions)
        block = jnp.sum(gram.blocks(shape, params, alpha, inputs)["conv"][into_last], 0)
        of_patches = kernel.infinite_blocks(first, dict.fromkeys(("skip", "conv"), jnp.zeros(0)), inputs)["readout"][0]
        matrices = {
            "block": block,
            "K": kernel.input_kernel(inputs, activation=activation),
            "K of patches": of_patches,
        }
        found = {name: jnp.log(gram.smallest_eigenvalue(matrix)) for name, matrix in matrices.items()}
        return found | {"lambda_min of K as printed": gram.smallest_eigenvalue(kernel.input_kernel(inputs, "printed"))}

    return drawing.each(of_draw, jax.random.split(key, draws), floats(shape))


@drawing.compiled
def weights(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    samples: int,
    channels: int,
    positions: int,
    draws: int,
) -> Measured:
    """Differences of the elasticities d log value / d log alpha, for lambda_min(G(0)) and lambda_min / lambda_max.

    They are means over the edges that do not enter the last node (shared), over 0 -> 1 -> ... -> h-2 (chain), and over
    those into the last node (last); for zero, of d log value / d logit under a softmax, over all edges.
    """
    shape = Model(nodes, width, activation=activation)
    shared = np.array([target < nodes - 1 for _, target in shape.edges])
    chain = np.array([target < nodes - 1 and target == source + 1 for source, target in shape.edges])
    values = {"lambda_min": gram.smallest_eigenvalue, "lambda_min / lambda_max": gram.conditioning}

    def of_draw(key):
        params, alpha, inputs, _ = draw(key, shape, samples, channels, positions)
        found: Measured = {}
        for name, value in values.items():

            def of_alpha(alpha, value=value):
                return value(gram.whole(gram.blocks(shape, params, alpha, inputs)))

            raw = rates.elasticities(of_alpha, alpha)
            heavier = raw["skip"] - raw["conv"]
            found |= {
                f"{name}: skip over conv, shared": jnp.mean(heavier[shared]),
                f"{name}: skip over conv, chain": jnp.mean(heavier[chain]),
                f"{name}: conv over skip, last": -jnp.mean(heavier[~shared]),
                f"{name}: fall by zero": -jnp.mean(rates.normalized_elasticities(raw, alpha)["zero"]),
            }
        return found

    return drawing.each(of_draw, jax.random.split(key, draws), 4 * floats(shape))
