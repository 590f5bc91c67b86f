"""Theorem 4: a shallow cell of two branches converges faster than a deep one with the same gates."""

import jax
import jax.numpy as jnp

from prdarts_jax.theory import draws as drawing
from prdarts_jax.theory import gram, model, rates
from prdarts_jax.theory.model import Model, Params
from prdarts_jax.theory.theorem1 import Measured, floats


def shallow(deep: Model) -> Model:
    """The shallow cell B for a deep cell A."""
    return Model(deep.nodes, deep.width, branches=2, activation=deep.activation)


def restrict(deep: Model, arrays: Params) -> Params:
    """The entries for the edges of the shallow cell, from arrays with an entry for each edge of the deep one."""
    at = [deep.edges.index(edge) for edge in shallow(deep).edges]
    return {name: values[jnp.array(at)] for name, values in arrays.items()}


def draw_gates(key: jax.Array, shape: Model) -> Params:
    """Gates `skip` and `conv`, each f[edges], independent and uniform in [0, 1]."""
    return dict(zip(("skip", "conv"), jax.random.uniform(key, (2, len(shape.edges))), strict=True))


def draw_cells(key: jax.Array, deep: Model, samples: int, channels: int, positions: int) -> tuple:
    """([(model, weights, gates) of the deep and of the shallow cell], inputs, targets): the same weights and gates
    where both have them; consumes `key`."""
    key_data, key_gates, key_params, key_kernels = jax.random.split(key, 4)
    wide = shallow(deep)
    both = model.init(wide, key_params, channels, positions)  # the deep cell does not use the second stem
    kernels = jax.random.normal(key_kernels, (len(deep.edges), deep.width, 3 * deep.width))
    gates = draw_gates(key_gates, deep)
    cells: list[tuple[Model, Params, Params]] = [
        (deep, both | {"stem": both["stem"][:1], "conv": kernels}, gates),
        (wide, both | restrict(deep, {"conv": kernels}), restrict(deep, gates)),
    ]
    return cells, *model.draw_data(key_data, samples, channels, positions)


@drawing.compiled
def constants(key: jax.Array, *, nodes: int, draws: int) -> Measured:
    """The rate constants of the two bounds, without the factors that they share: S_B - S_A and S_B - S_A - increment,
    as printed and with the readout as the last node. S_B is the sum over the branches."""
    deep = Model(nodes, 1)
    wide = shallow(deep)

    def of_draw(key):
        gates = draw_gates(key, deep)
        found: Measured = {}
        for name, reading in {"printed": "printed", "readout": "printed, readout"}.items():
            branches = [rates.path_strength(wide, restrict(deep, gates), reading, branch) for branch in (0, 1)]
            surplus = sum(branches) - rates.path_strength(deep, gates, reading)
            found |= {f"S_B - S_A, {name}": surplus, f"S_B - S_A - increment, {name}": surplus - branches[1]}
        return found

    return jax.vmap(of_draw)(jax.random.split(key, draws))


@drawing.compiled
def speed(
    key: jax.Array,
    *,
    activation: str,
    width: int,
    nodes: int,
    samples: int,
    channels: int,
    positions: int,
    draws: int,
    descents: int,
    steps: int,
) -> Measured:
    """By how much the shallow cell is ahead: ln lambda_B / lambda_A, and the same of lambda_min / lambda_max, of all
    draws; and the difference of log10 F(0) / F(steps) in the first `descents` draws, with a step size of its own for
    each cell, or the smaller one for both.

    Both cells have the same data, and the same weights and gates where both have them.
    """
    deep = Model(nodes, width, activation=activation)

    def draw(key):
        cells, inputs, targets = draw_cells(key, deep, samples, channels, positions)
        return (
            cells,
            [gram.whole(gram.blocks(shape, params, gates, inputs)) for shape, params, gates in cells],
            inputs,
            targets,
        )

    def eigenvalues(key):
        _, matrices, *_ = draw(key)
        values = {"lambda_min": gram.smallest_eigenvalue, "lambda_min / lambda_max": gram.conditioning}
        return {f"ln {name}": jnp.log(value(matrices[1]) / value(matrices[0])) for name, value in values.items()}

    def losses(key):
        cells, matrices, inputs, targets = draw(key)
        own, found = jnp.stack([rates.stable_step(matrix) for matrix in matrices]), {}
        for name, sizes in {"own": own, "common": jnp.full(2, jnp.min(own))}.items():
            curves = [
                model.descend(shape, params, gates, inputs, targets, size, steps)[1]
                for (shape, params, gates), size in zip(cells, sizes, strict=True)
            ]
            of_deep, of_shallow = (jnp.log10(curve[0] / curve[-1]) for curve in curves)
            found[f"loss, {name} step size"] = of_shallow - of_deep
        return found

    keys, size = jax.random.split(key, draws), 2 * floats(deep)
    return drawing.each(eigenvalues, keys, size) | drawing.each(losses, keys[:descents], size)
