"""The predicted speeds of the theory lab, against plain Python and finite differences, in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import gram, rates
from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import Model

PLAIN = ("printed", "chain", "paths")
READOUT = tuple(f"{product}, readout" for product in PLAIN)


def draw_alpha(model, seed):
    """Weights that add up to 1 on each edge."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(3), len(reference.edges(model)))
    return dict(zip(("skip", "conv", "zero"), drawn.T, strict=True))


def strengths(model, alpha, branch=0):
    compute = jax.jit(lambda a: {r: rates.path_strength(model, a, r, branch) for r in rates.READINGS})
    return jax.tree.map(float, compute(alpha))


def test_the_readings_are_those_of_the_paper():
    assert set(rates.READINGS) == {*PLAIN, *READOUT} and len(rates.READINGS) == 6


@pytest.mark.parametrize("h, branches, branch", [(5, 1, 0), (6, 2, 0), (6, 2, 1), (2, 1, 0)])
def test_the_path_strength_is_the_sum_over_its_paths(float64, h, branches, branch):
    model = Model(h, 4, branches)
    alpha = draw_alpha(model, 0)
    expected = {reading: reference.path_strength(model, alpha, reading, branch) for reading in rates.READINGS}
    assert strengths(model, alpha, branch) == pytest.approx(expected, rel=1e-12)


def test_the_path_strength_of_three_nodes_written_out(float64):
    alpha = {"skip": jnp.array([0.5, 0.3, 0.7]), "conv": jnp.array([0.9, 0.4, 0.2])}  # 0 -> 1, 0 -> 2, 1 -> 2
    plain = 0.4**2 + (0.2 * 0.5) ** 2
    written_out = dict.fromkeys(PLAIN, plain) | {
        "printed, readout": 1 + 0.5**2 + (0.3 * 0.7) ** 2,
        "chain, readout": 1 + 0.5**2 + (0.5 * 0.7) ** 2,
        "paths, readout": 1 + 0.5**2 + (0.3 + 0.5 * 0.7) ** 2,
    }
    assert strengths(Model(3, 4), alpha) == pytest.approx(written_out, rel=1e-12)


def test_the_readings_coincide_where_only_one_skip_leads_to_a_node(float64):
    """To h - 2 that is up to h = 3, to h - 1 up to h = 2; with one node more no two readings are the same."""
    values = {h: strengths(Model(h, 4), draw_alpha(Model(h, 4), 1)) for h in (2, 3, 4)}
    for h, readings in ((3, PLAIN), (2, READOUT)):
        assert [values[h][r] for r in readings] == pytest.approx([values[h][readings[0]]] * 3, rel=1e-14)
    for h, readings in ((4, rates.READINGS), (3, READOUT)):
        for first, second in itertools.combinations(readings, 2):
            assert abs(math.log(values[h][first] / values[h][second])) > 1e-6


def test_paths_are_the_coefficients_of_the_first_node_in_the_others(float64):
    model = Model(5, 4)
    params, _, inputs, _ = reference.draw(model, 2)
    alpha = draw_alpha(model, 2)
    alpha["conv"] = np.zeros_like(alpha["conv"])
    nodes = np.array(reference.nodes(model, params, alpha, inputs[0]))
    strength = rates.path_strength(model, jax.tree.map(jnp.array, alpha), "paths, readout")
    assert float(strength) == pytest.approx((nodes**2).sum() / (nodes[0] ** 2).sum(), rel=1e-12)


def symmetric(eigenvalues, seed=3):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    return basis * eigenvalues @ basis.T, basis


@pytest.mark.parametrize("fraction, converges", [(0.5, True), (1.0, True), (1.9, True), (2.1, False)])
def test_the_linearised_descent_is_stable_up_to_a_fraction_of_two(float64, fraction, converges):
    matrix, basis = symmetric([1.0, 2.0, 4.0, 5.0])
    step = float(rates.stable_step(jnp.array(matrix), fraction))
    residual = basis @ np.ones(4)
    for _ in range(200):
        residual = residual - step / 4 * matrix @ residual
    assert (np.abs(residual).max() < 1e-6) == converges
    if not converges:
        assert np.abs(residual).max() > 1e6


def test_the_default_step_does_not_oscillate_and_is_half_the_largest_that_does_not(float64):
    matrix, basis = symmetric([1.0, 2.0, 5.0])
    step = float(rates.stable_step(jnp.array(matrix)))
    factors = np.diag(basis.T @ (np.eye(3) - step / 3 * matrix) @ basis)
    np.testing.assert_allclose(factors, 1 - 0.5 * np.array([0.2, 0.4, 1.0]), rtol=1e-12)


def case(name):
    """(model, value by the package, value by the reference)."""
    if name == "smallest eigenvalue":
        model = Model(3, 5)
        params, _, inputs, _ = reference.draw(model, 6)
        return (
            model,
            lambda a: gram.smallest_eigenvalue(gram.whole(gram.blocks(model, params, a, jnp.array(inputs)))),
            lambda a: np.linalg.eigvalsh(reference.gram(model, params, a, inputs))[0],
        )
    model, branch = {"printed": (Model(6, 5, 2), 1), "paths, readout": (Model(4, 5), 0)}[name]
    return (
        model,
        lambda a: rates.path_strength(model, a, name, branch),
        lambda a: reference.path_strength(model, a, name, branch),
    )


def raised(alpha, op, edge, factor):
    """alpha with one weight multiplied."""
    moved = {o: a.copy() for o, a in alpha.items()}
    moved[op][edge] *= factor
    return moved


def central_differences(value, alpha, move, eps=1e-4):
    """d log value by moving each weight with `move(alpha, op, edge, +-eps)`."""
    return {
        op: [
            (math.log(value(move(alpha, op, e, eps))) - math.log(value(move(alpha, op, e, -eps)))) / (2 * eps)
            for e in range(len(a))
        ]
        for op, a in alpha.items()
    }


def accept_elasticities(actual, expected):
    assert set(actual) == set(expected) == {"skip", "conv", "zero"}
    assert max(np.abs(e).max() for e in expected.values()) > 0.1
    for op, e in expected.items():
        assert actual[op].dtype == np.float64
        np.testing.assert_allclose(actual[op], e, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["printed", "paths, readout", "smallest eigenvalue"])
def test_elasticities_are_finite_differences(float64, name):
    model, value, independent = case(name)
    alpha = draw_alpha(model, 7)
    raw = jax.jit(lambda a: rates.elasticities(value, a))(alpha)
    expected = central_differences(independent, alpha, lambda a, op, e, eps: raised(a, op, e, math.exp(eps)))
    accept_elasticities(raw, expected)
    np.testing.assert_array_equal(raw["zero"], 0)

    def softmax_moved(a, op, edge, eps):
        """The weights after one logit of their edge was raised by eps."""
        moved = raised(a, op, edge, math.exp(eps))
        total = sum(weights[edge] for weights in moved.values())
        for weights in moved.values():
            weights[edge] /= total
        return moved

    normalized = rates.normalized_elasticities(raw, jax.tree.map(jnp.array, alpha))
    accept_elasticities(normalized, central_differences(independent, alpha, softmax_moved))
    assert np.abs(normalized["zero"]).max() > 0.01  # raising it lowers the others


def test_the_precision_is_that_of_the_arrays():
    model = Model(4, 3, branches=2)

    def everything(dtype):
        alpha = net.draw_alpha(jax.random.key(0), model)
        alpha = {op: a.astype(dtype) for op, a in alpha.items()}
        raw = rates.elasticities(lambda a: rates.path_strength(model, a, "paths", 1), alpha)
        return [
            *(rates.path_strength(model, alpha, reading) for reading in rates.READINGS),
            rates.stable_step(jnp.eye(3, dtype=dtype)),
            *(raw, rates.normalized_elasticities(raw, alpha)),
        ]

    reference.accept_precision(everything)
