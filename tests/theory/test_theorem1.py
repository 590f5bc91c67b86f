"""Theorem 1's measurements, computed again in plain NumPy from the same draws."""

import jax
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import gram, kernel, rates, theorem1
from prdarts_jax.theory.model import Model

DATA = {"channels": 2, "positions": 3}
KEY = 3


def drawn(shape, draws, samples, key=None):
    """(weights, alpha, inputs, targets) of each draw, as NumPy arrays."""
    draw = jax.jit(lambda key: theorem1.draw(key, shape, samples, **DATA))
    return [jax.device_get(draw(k)) for k in jax.random.split(jax.random.key(KEY) if key is None else key, draws)]


def eigenvalues(shape, params, alpha, inputs):
    return np.linalg.eigh(reference.gram(shape, params, alpha, inputs))


def test_the_margin_of_a_descent_is_that_of_the_worst_step(float64):
    shape, samples, steps = Model(2, 4, activation="tanh"), 3, 4
    found = theorem1.descent(
        jax.random.key(KEY), activation="tanh", width=4, samples=samples, nodes=2, draws=3, steps=steps, **DATA
    )
    assert set(found) == {f"{bound}, {of}" for bound in ("printed", "with 1/n") for of in ("random", "slowest")}
    for number, (params, alpha, inputs, targets) in enumerate(drawn(shape, 3, samples)):
        values, vectors = eigenvalues(shape, params, alpha, inputs)
        start = reference.outputs(shape, params, alpha, inputs)
        step_size = samples / (2 * values[-1])
        length = np.linalg.norm(targets - start)
        # An eigenvector has no sign of its own: either one gives the network's descent.
        candidates = {"random": [targets], "slowest": [start + sign * length * vectors[:, 0] for sign in (1, -1)]}
        for name, of_name in candidates.items():
            losses = [
                np.array(reference.descend(shape, params, alpha, inputs, y, step_size, steps)[1]) for y in of_name
            ]
            for bound, divisor in (("printed", 4), ("with 1/n", 4 * samples)):
                k = np.arange(1, steps + 1)
                margins = [
                    np.min(k * np.log(1 - step_size * values[0] / divisor) - np.log(np.array(of[1:]) / of[0]))
                    for of in losses
                ]
                assert np.abs(np.array(margins) - float(found[f"{bound}, {name}"][number])).min() < 1e-7


def test_the_exponent_is_the_slope_of_the_drift_over_the_width(float64):
    steps, factors, samples = 3, (1, 3, 4), 2
    sizes = {"samples": samples, "nodes": 2, "draws": 2, "steps": steps, "factors": factors}
    found = theorem1.drift(jax.random.key(KEY), activation="softplus", width=2, **sizes, **DATA)
    logs = []
    for factor in factors:
        shape = Model(2, 2 * factor)
        logs.append([])
        for params, alpha, inputs, targets in drawn(shape, 2, samples):
            before = reference.gram(shape, params, alpha, inputs)
            step_size = samples / (2 * np.linalg.eigvalsh(before)[-1])
            moved, _ = reference.descend(shape, params, alpha, inputs, targets, step_size, steps)
            after = reference.gram(shape, moved, alpha, inputs)
            logs[-1].append(np.log(np.linalg.norm(after - before) / np.linalg.norm(before)))
    np.testing.assert_allclose(found["exponent"], -np.polyfit(np.log(factors), logs, 1)[0], rtol=1e-6)


def test_a_drift_of_one_over_the_width_has_the_exponent_one(float64, monkeypatch):
    monkeypatch.setattr(theorem1.model, "descend", lambda shape, params, *_: (params, None))
    calls = []

    def whole(blocks):  # before and after the descent
        calls.append(1)
        return blocks if len(calls) % 2 else blocks * (1 + 1 / width_of[len(calls) // 2 - 1])

    width_of = [8, 16, 32]
    monkeypatch.setattr(gram, "blocks", lambda *_: jax.numpy.eye(2))
    monkeypatch.setattr(gram, "whole", whole)
    sizes = {"samples": 2, "nodes": 2, "draws": 1, "steps": 1, "factors": (1, 2, 4)}
    found = theorem1.drift.__wrapped__(jax.random.key(0), activation="softplus", width=8, **sizes, **DATA)
    np.testing.assert_allclose(found["exponent"], 1.0, rtol=1e-9)


def test_eigenvalues_and_strengths_are_of_many_cells_on_one_data_set(float64):
    nodes, samples, draws = 4, 3, 5
    found = theorem1.eigenvalues(
        jax.random.key(KEY),
        **{"activation": "sigmoid", "width": 3, "nodes": nodes, "calibration": 3, "samples": samples, "draws": draws},
        **DATA,
    )
    key_data, key_cells, key_calibration = jax.random.split(jax.random.key(KEY), 3)
    inputs = np.asarray(theorem1.model.draw_data(key_data, samples, **DATA)[0])

    def cells(shape, key):
        for of_draw in jax.random.split(key, draws):
            key_params, key_alpha = jax.random.split(of_draw)
            params = theorem1.model.init(shape, key_params, **DATA)
            yield jax.device_get((params, theorem1.model.draw_alpha(key_alpha, shape)))

    shape = Model(nodes, 3, activation="sigmoid")
    ratios = []
    for number, (params, alpha) in enumerate(cells(shape, key_cells)):
        blocks = reference.gram_blocks(shape, params, alpha, inputs)
        values = np.linalg.eigvalsh(sum(part.sum(0) for part in blocks.values()))
        into_last = [e for e, (_, t) in enumerate(reference.edges(shape)) if t == nodes - 1]
        last = np.linalg.eigvalsh(blocks["conv"][into_last].sum(0))[0]
        readout = np.linalg.eigvalsh(blocks["readout"].sum(0))[0]
        expected = {f"S {r}": reference.path_strength(shape, alpha, r) for r in rates.READINGS} | {
            "lambda_min": values[0],
            "lambda_min / lambda_max": values[0] / values[-1],
            "lambda_min of last convs": last,
            "share of last convs": last / values[0],
            "share of readout": readout / values[0],
        }
        assert {name: found[name][number] for name in expected} == pytest.approx(expected, rel=1e-6)
        ratios.append(values[0] / expected["S printed"])
    small = Model(3, 3, activation="sigmoid")
    calibration = min(
        np.linalg.eigvalsh(reference.gram(small, params, alpha, inputs))[0]
        / reference.path_strength(small, alpha, "printed")
        for params, alpha in cells(small, key_calibration)
    )
    np.testing.assert_allclose(found["margin"], np.log(ratios) - np.log(calibration), rtol=1e-6)


def test_kernels_are_of_the_data_of_each_draw(float64):
    shape, samples = Model(3, 4), 2
    found = theorem1.kernels(
        jax.random.key(KEY), activation="softplus", width=4, nodes=3, samples=samples, draws=3, **DATA
    )
    third = dict.fromkeys(("skip", "conv"), np.full(3, 1 / 3))
    product = jax.jit(lambda covariance: kernel.moments(jax.nn.softplus, covariance).product)
    for number, (params, _, inputs, _) in enumerate(drawn(shape, 3, samples)):
        block = reference.gram_blocks(shape, params, third, inputs)["conv"][1:].sum(0)
        of_patches = sum(
            product(jax.numpy.array(read @ read.T))
            for read in np.array([reference.phi(x) for x in inputs]).transpose(2, 0, 1)
        )
        full = reference.printed_kernel(inputs)
        expected = {
            "block": np.log(np.linalg.eigvalsh(block)[0]),
            "K of patches": np.log(np.linalg.eigvalsh(of_patches)[0]),
            "K": np.log(np.linalg.eigvalsh(kernel.input_kernel(inputs))[0]),
            "lambda_min of K as printed": np.linalg.eigvalsh((full + full.T) / 2)[0],
        }
        assert {name: found[name][number] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_elasticities_are_compared_on_the_edges_that_theorem_1_speaks_of(float64, monkeypatch):
    """Of an eigenvalue that is a product of powers of the op weights, whose exponents are then known."""
    shape = Model(5, 2)
    edges = reference.edges(shape)
    rng = np.random.default_rng(4)
    power = {op: rng.normal(size=len(edges)) for op in ("skip", "conv")} | {"zero": np.zeros(len(edges))}
    power["conv"] = 3 - power["skip"]  # so that each edge has 3 in all
    monkeypatch.setattr(gram, "blocks", lambda shape, params, alpha, inputs: alpha)
    monkeypatch.setattr(gram, "whole", lambda alpha: alpha)

    def eigenvalue(alpha):
        return jax.numpy.exp(sum(jax.numpy.sum(power[op] * jax.numpy.log(alpha[op])) for op in alpha))

    monkeypatch.setattr(gram, "smallest_eigenvalue", eigenvalue)
    monkeypatch.setattr(gram, "conditioning", lambda alpha: eigenvalue(alpha) ** 2)
    found = theorem1.weights.__wrapped__(
        jax.random.key(KEY), activation="softplus", width=2, nodes=5, samples=2, draws=3, **DATA
    )
    heavier = power["skip"] - power["conv"]
    shared = [e for e, (_, t) in enumerate(edges) if t < 4]
    chained = [edges.index(edge) for edge in ((0, 1), (1, 2), (2, 3))]
    last = [e for e in range(len(edges)) if e not in shared]
    zero = [np.mean(draw[1]["zero"]) for draw in drawn(shape, 3, 2)]
    for name, times in (("lambda_min", 1), ("lambda_min / lambda_max", 2)):
        for part, value in (
            ("skip over conv, shared", heavier[shared].mean()),
            ("skip over conv, chain", heavier[chained].mean()),
            ("conv over skip, last", -heavier[last].mean()),
            ("fall by zero", 3 * np.array(zero)),  # by a softmax: alpha times all of the edge
        ):
            np.testing.assert_allclose(found[f"{name}: {part}"], np.broadcast_to(times * value, 3), rtol=1e-8)


def test_slow_targets_break_the_printed_bound_for_more_than_eight_samples(float64):
    """In the linear regime the loss along the slowest direction falls by (1 - eta lambda / n)^2 a step: slower than the
    printed 1 - eta lambda / 4 if n is at least 8."""
    sizes = {"activation": "softplus", "width": 32, "nodes": 2, "draws": 6, "steps": 5}
    found = theorem1.descent(jax.random.key(0), samples=12, **sizes, **DATA)
    assert (found["printed, slowest"] < 0).all() and (found["with 1/n, slowest"] > 0).all()
