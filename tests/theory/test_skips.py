"""Skip connections and depth: the cells, and what is measured of them, computed again in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import gram, kernel, model, skips
from prdarts_jax.theory.model import Model

DATA = {"samples": 2, "channels": 1, "positions": 2}


def test_cells_are_nested_and_have_their_share_of_skip_connections():
    order = jax.random.permutation(jax.random.key(0), 10)
    cells = [skips.discrete(order, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert [int(cell["skip"].sum()) for cell in cells] == [0, 2, 5, 10]
    for less, more in zip(cells, cells[1:], strict=False):
        assert (less["skip"] <= more["skip"]).all()
    assert all((cell["skip"] + cell["conv"] == 1).all() for cell in cells)


def expected_of(shape, alpha, key, inputs, targets, steps):
    """(ln lambda_min / lambda_max, log10 F(0) / F(steps)) in plain NumPy."""
    params, alpha = jax.device_get((model.init(shape, key, *inputs.shape[1:]), alpha))
    values = np.linalg.eigvalsh(reference.gram(shape, params, alpha, inputs))
    step_size = len(inputs) / (2 * values[-1])
    losses = reference.descend(shape, params, alpha, inputs, targets, step_size, steps)[1]
    return np.log(values[0] / values[-1]), np.log10(losses[0] / losses[-1])


def test_shares_are_measured_on_the_same_weights_and_data(float64):
    shape, shares, steps = Model(3, 3, activation="tanh"), (0.0, 0.4, 1.0), 3
    sizes = {"activation": "tanh", "width": 3, "nodes": 3, "shares": shares, "draws": 2, "infinite_draws": 1}
    found = skips.share(jax.random.key(1), steps=steps, **sizes, **DATA)
    infinite = jax.jit(lambda alpha, inputs: gram.whole(kernel.infinite_blocks(shape, alpha, inputs)))
    for number, keys in enumerate(jax.random.split(jax.random.key(1), (2, 3))):
        inputs, targets = jax.device_get(model.draw_data(keys[0], *DATA.values()))
        order = jax.random.permutation(keys[1], 3)
        for column, share in enumerate(shares):
            alpha = skips.discrete(order, share)
            expected = expected_of(shape, alpha, keys[2], inputs, targets, steps)
            actual = found["conditioning"][number, column], found["speed"][number, column]
            assert actual == pytest.approx(expected, rel=1e-6)
            if number == 0:
                limit = infinite(alpha, jnp.array(inputs))
                assert found["infinite"][0, column] == pytest.approx(float(jnp.log(gram.conditioning(limit))), rel=1e-6)
    for name in ("conditioning", "speed", "infinite"):
        slopes = np.polyfit(shares, np.asarray(found[name]).T, 1)[0]
        np.testing.assert_allclose(found[f"rise of {name}"], slopes, rtol=1e-7, atol=1e-12)


def test_depths_are_measured_with_half_of_the_edges_as_skip_connections(float64):
    depths, steps = (2, 3), 2
    sizes = {"activation": "softplus", "width": 3, "depths": depths, "draws": 2, "infinite_draws": 1, "steps": steps}
    found = skips.depth(jax.random.key(1), **sizes, **DATA)
    for number, keys in enumerate(jax.random.split(jax.random.key(1), (2, 3))):
        inputs, targets = jax.device_get(model.draw_data(keys[0], *DATA.values()))
        for column, nodes in enumerate(depths):
            shape = Model(nodes, 3)
            alpha = skips.discrete(jax.random.permutation(keys[1], len(shape.edges)), 0.5)
            expected = expected_of(shape, alpha, keys[2], inputs, targets, steps)
            actual = found["conditioning"][number, column], found["speed"][number, column]
            assert actual == pytest.approx(expected, rel=1e-6)
    assert found["infinite"].shape == (1, 2)
    np.testing.assert_allclose(found["fall of speed"], found["speed"][:, 0] - found["speed"][:, 1], rtol=1e-7)
