"""The message of PR-DARTS's analysis, in its own network: cells with more skip connections, and shallower cells, are
faster.

Cells are discrete: an edge is a skip connection or a convolution. A draw orders the edges at random, and its cells have
skip connections on the first of them, so they are nested.
"""

import jax
import jax.numpy as jnp

from prdarts_jax.theory import draws as drawing
from prdarts_jax.theory import gram, kernel, model, rates
from prdarts_jax.theory.model import Alpha, Model
from prdarts_jax.theory.theorem1 import Measured, floats


def discrete(order: jax.Array, share: float) -> Alpha:
    """Op weights of 0 and 1: skip connections on the first `share` of the edges in the `order`, i[edges], the place of
    each."""
    skip = (order < round(share * len(order))).astype(jnp.result_type(float))
    return {"skip": skip, "conv": 1 - skip}


def of_cell(key: jax.Array, shape: Model, alpha: Alpha, inputs: jax.Array, targets: jax.Array, steps: int) -> Measured:
    """ln lambda_min / lambda_max of a cell with the weights of `key`, and log10 F(0) / F(steps) with its own step
    size."""
    params = model.init(shape, key, *inputs.shape[1:])
    matrix = gram.whole(gram.blocks(shape, params, alpha, inputs))
    losses = model.descend(shape, params, alpha, inputs, targets, rates.stable_step(matrix), steps)[1]
    return {"conditioning": jnp.log(gram.conditioning(matrix)), "speed": jnp.log10(losses[0] / losses[-1])}


def infinite(shape: Model, alpha: Alpha, inputs: jax.Array) -> jax.Array:
    """ln lambda_min / lambda_max of a cell with infinitely many channels."""
    return jnp.log(gram.conditioning(gram.whole(kernel.infinite_blocks(shape, alpha, inputs))))


def _slopes(x, rows):
    """The slope of each row f[draws, len(x)] against x."""
    x = jnp.asarray(x, rows.dtype)
    centred = x - jnp.mean(x)
    return rows @ centred / (centred @ centred)


@drawing.compiled
def share(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    shares: tuple[float, ...],
    samples: int,
    channels: int,
    positions: int,
    draws: int,
    infinite_draws: int,
    steps: int,
) -> Measured:
    """Conditioning and measured speed of cells against their share of skip connections: `conditioning` and `speed`
    f[draws, shares], `infinite` f[infinite_draws, shares] of the first draws, and the slope of each (rise)."""
    shape = Model(nodes, width, activation=activation)
    keys = jax.random.split(key, (draws, 3))

    def cells(keys):
        order = jax.random.permutation(keys[1], len(shape.edges))
        alphas = jax.tree.map(lambda *of: jnp.stack(of), *(discrete(order, share) for share in shares))
        return alphas, model.draw_data(keys[0], samples, channels, positions)

    def finite(keys):
        alphas, (inputs, targets) = cells(keys)
        return jax.lax.map(lambda alpha: of_cell(keys[2], shape, alpha, inputs, targets, steps), alphas)

    def at_infinity(keys):
        alphas, (inputs, _) = cells(keys)
        return jax.lax.map(lambda alpha: infinite(shape, alpha, inputs), alphas)

    found = drawing.each(finite, keys, floats(shape))
    found["infinite"] = jax.lax.map(at_infinity, keys[:infinite_draws])
    return found | {f"rise of {name}": _slopes(shares, rows) for name, rows in found.items()}


@drawing.compiled
def depth(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    depths: tuple[int, ...],
    samples: int,
    channels: int,
    positions: int,
    draws: int,
    infinite_draws: int,
    steps: int,
) -> Measured:
    """The same against the number of nodes h: `conditioning` and `speed` f[draws, depths], `infinite`
    f[infinite_draws, depths], and minus the slope of each (fall). Half of the edges are skip connections."""
    keys = jax.random.split(key, (draws, 3))
    columns: list[Measured] = []
    for nodes in depths:
        shape = Model(nodes, width, activation=activation)

        def given(keys, shape=shape):
            order = jax.random.permutation(keys[1], len(shape.edges))
            return discrete(order, 0.5), *model.draw_data(keys[0], samples, channels, positions)

        def finite(keys, shape=shape, given=given):
            alpha, inputs, targets = given(keys)
            return of_cell(keys[2], shape, alpha, inputs, targets, steps)

        def at_infinity(keys, shape=shape, given=given):
            return infinite(shape, *given(keys)[:2])

        column = drawing.each(finite, keys, floats(shape))
        columns.append(column | {"infinite": jax.lax.map(at_infinity, keys[:infinite_draws])})
    found = {name: jnp.stack([column[name] for column in columns], axis=1) for name in columns[0]}
    return found | {f"fall of {name}": -_slopes(depths, rows) for name, rows in found.items()}
