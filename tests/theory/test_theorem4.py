"""Theorem 4's check: what it compares is computed again in plain NumPy from what it drew."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import theory_reference as reference
from theory_spies import TINY, check_interval, of_descents, smallest_of_kernel

from prdarts_jax.theory import claims, theorem4
from prdarts_jax.theory.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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


@pytest.fixture(scope="module")
def depths():
    with of_descents() as draws:
        return claims.check("theorem4_depth", 0, TINY), draws[0]


DEEP, SHALLOW = Model(4, 4), Model(4, 4, branches=2)


def test_the_cells_share_data_weights_and_gates_where_both_have_them(depths):
    _, draws = depths
    assert len(draws) == TINY.draws
    for (deep, *data), (shallow, *same) in draws:
        (deep_gates, *rest), (shallow_gates, *rest_of_shallow) = data, same
        assert all(map(np.array_equal, rest, rest_of_shallow))  # inputs, targets, step size
        np.testing.assert_array_equal(deep["stem"][0], shallow["stem"][0])
        assert len(deep["stem"]) == 1 and (shallow["stem"][1] != shallow["stem"][0]).all()
        np.testing.assert_array_equal(deep["readout"], shallow["readout"])
        at = {edge: e for e, edge in enumerate(reference.edges(DEEP))}
        for e, edge in enumerate(reference.edges(SHALLOW)):
            np.testing.assert_array_equal(shallow["conv"][e], deep["conv"][at[edge]])
            for op in ("skip", "conv"):
                assert shallow_gates[op][e] == deep_gates[op][at[edge]]


def test_eigenvalues_and_losses_of_both_cells_are_compared(depths):
    checked, draws = depths
    quotients, advantages, surplus, increments = [], [], [], []
    for cells in draws:
        matrices = [reference.gram(shape, *cell[:3]) for shape, cell in zip((DEEP, SHALLOW), cells, strict=True)]
        low, high = (np.array([np.linalg.eigvalsh(matrix)[end] for matrix in matrices]) for end in (0, -1))
        assert cells[0][4] == pytest.approx(TINY.samples / (2 * max(high)), rel=1e-9)
        quotients.append(math.log(low[1] / low[0]))
        ends = []
        for shape, cell in zip((DEEP, SHALLOW), cells, strict=True):
            _, losses = reference.descend(shape, *cell, TINY.steps)
            ends.append(math.log10(losses[-1] / losses[0]))
        advantages.append(ends[0] - ends[1])
        kernel = smallest_of_kernel(cells[0][2])
        increments.append(0.75 * kernel * reference.path_strength(SHALLOW, cells[1][1], "printed", branch=1))
        surplus.append(low[1] - low[0])
    quotients = np.array(quotients)
    always, mean, loss = checked.findings
    assert always.measured == (quotients >= 0).mean() and always.margin == pytest.approx(quotients.min(), rel=1e-6)
    check_interval(mean, quotients, 2, rtol=1e-6)
    check_interval(loss, advantages, 2, rtol=1e-6)
    np.testing.assert_allclose(checked.panels[0].series[0].y, quotients, rtol=1e-6)
    details = checked.details["h = 4"]
    fitted = details["c_sigma, the largest that keeps the bound (below 0: none does)"]
    assert fitted == pytest.approx(min(np.divide(surplus, increments)), rel=1e-6)
    correlation = details["Spearman of lambda_B - lambda_A with the bound's increment"]
    assert correlation == pytest.approx(scipy.stats.spearmanr(increments, surplus).statistic)
