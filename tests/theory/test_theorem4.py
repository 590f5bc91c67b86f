"""Theorem 4's measurements, computed again in plain NumPy from the same draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import theorem4
from prdarts_jax.theory.model import Model


@pytest.mark.parametrize("nodes", [4, 6, 8])
def test_the_shallow_cell_has_the_edges_of_the_deep_one_that_do_not_cross_the_middle(nodes):
    deep = Model(nodes, 3, activation="tanh")
    shallow = theorem4.shallow(deep)
    assert (shallow.nodes, shallow.width, shallow.branches, shallow.activation) == (nodes, 3, 2, "tanh")
    pairs = [(s, t) for t in range(nodes) for s in range(t)]
    codes = jnp.array([10 * s + t for s, t in pairs])
    kept = theorem4.restrict(deep, {"skip": codes, "conv": jnp.stack([codes, -codes], axis=1)})
    inside = [10 * s + t for s, t in pairs if (s < nodes // 2) == (t < nodes // 2)]
    assert kept["skip"].tolist() == inside == [10 * s + t for s, t in shallow.edges]
    assert kept["conv"].tolist() == [[code, -code] for code in inside]


def test_the_cells_share_weights_and_gates_where_both_have_them(float64):
    ((deep, weights, gates), (shallow, others, of_others)), inputs, _ = theorem4.draw_cells(
        jax.random.key(0), Model(4, 3), 2, 1, 2
    )
    assert inputs.shape == (2, 1, 2)
    np.testing.assert_array_equal(weights["stem"][0], others["stem"][0])
    assert len(weights["stem"]) == 1 and (others["stem"][1] != others["stem"][0]).all()
    np.testing.assert_array_equal(weights["readout"], others["readout"])
    at = {edge: e for e, edge in enumerate(reference.edges(deep))}
    for e, edge in enumerate(reference.edges(shallow)):
        np.testing.assert_array_equal(others["conv"][e], weights["conv"][at[edge]])
        for op in ("skip", "conv"):
            assert of_others[op][e] == gates[op][at[edge]]


def test_constants_are_those_of_the_theorem_over_both_branches(float64):
    found = theorem4.constants(jax.random.key(2), nodes=6, draws=4)
    deep = Model(6, 1)
    wide = theorem4.shallow(deep)
    for number, key in enumerate(jax.random.split(jax.random.key(2), 4)):
        gates = theorem4.draw_gates(key, deep)
        restricted = theorem4.restrict(deep, gates)
        for name, reading in (("printed", "printed"), ("readout", "printed, readout")):
            branches = [reference.path_strength(wide, restricted, reading, branch) for branch in (0, 1)]
            surplus = sum(branches) - reference.path_strength(deep, gates, reading)
            assert found[f"S_B - S_A, {name}"][number] == pytest.approx(surplus)
            assert found[f"S_B - S_A - increment, {name}"][number] == pytest.approx(surplus - branches[1])


def test_the_increment_is_more_than_the_surplus_with_the_readout_as_last_node(float64):
    """What the deep cell has from its second half is lost, and it is positive."""
    found = theorem4.constants(jax.random.key(0), nodes=8, draws=200)
    assert (found["S_B - S_A, readout"] > 0).all() and (found["S_B - S_A - increment, readout"] < 0).all()


def test_eigenvalues_of_all_and_losses_of_the_first_draws_are_compared(float64):
    deep, steps = Model(4, 2, activation="sigmoid"), 3
    data = {"samples": 2, "channels": 1, "positions": 2}
    sizes = {"activation": "sigmoid", "width": 2, "nodes": 4, "draws": 3, "descents": 2, "steps": steps}
    found = theorem4.speed(jax.random.key(5), **sizes, **data)
    for number, key in enumerate(jax.random.split(jax.random.key(5), 3)):
        cells, inputs, targets = theorem4.draw_cells(key, deep, *data.values())
        values = [np.linalg.eigvalsh(reference.gram(*cell, inputs)) for cell in cells]
        smallest, relative = [of[0] for of in values], [of[0] / of[-1] for of in values]
        assert found["ln lambda_min"][number] == pytest.approx(math.log(smallest[1] / smallest[0]), rel=1e-6)
        expected = math.log(relative[1] / relative[0])
        assert found["ln lambda_min / lambda_max"][number] == pytest.approx(expected, rel=1e-6)
        own = [2 / (2 * of[-1]) for of in values]
        for name, sizes in (("own", own), ("common", [min(own)] * 2)):
            if number < 2:
                curves = [
                    reference.descend(*cell, inputs, targets, size, steps)[1]
                    for cell, size in zip(cells, sizes, strict=True)
                ]
                ahead = np.subtract(*(math.log10(curve[0] / curve[-1]) for curve in curves[::-1]))
                assert found[f"loss, {name} step size"][number] == pytest.approx(ahead, rel=1e-6)
    assert found["ln lambda_min"].shape == (3,) and found["loss, own step size"].shape == (2,)
