"""Theorem 2's measurement: minima, the lemma, slopes per gate."""

import jax
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import draws, theorem2
from prdarts_jax.theory.model import Model

SIZES = {"width": 2, "nodes": 3, "samples": 4, "validation": 6, "channels": 1, "positions": 2, "decay": 0.01}


@pytest.fixture(scope="module")
def measured():
    """What is measured of four draws, by how far each gate is moved: compiled once."""
    uniform = jax.random.uniform

    @draws.quickly
    def of(key, shift):
        with pytest.MonkeyPatch.context() as patch:  # while it is traced
            patch.setattr(jax.random, "uniform", lambda *args, **given: uniform(*args, **given) + shift)
            return theorem2.gates.__wrapped__(key, activation="tanh", rough=300, fine=40, draws=4, **SIZES)

    def run(shift):
        with jax.enable_x64(True):
            return jax.device_get(of(jax.random.key(0), shift))

    return run


@pytest.fixture(scope="module")
def found(measured):
    return measured(np.zeros(6))


def test_every_draw_is_at_a_minimum(found):
    assert (found["convergence"] > 0).all()  # the gradient is below 1e-6


def test_gate_weighted_slopes_into_the_last_node_add_up_to_what_the_decay_leaves(found):
    """The lemma, and its consequence: they are not all positive by more than that."""
    np.testing.assert_allclose(found["error of the lemma"], 0, atol=1e-8)
    assert (found["sum of the lemma over R"] < 0).all()


def test_the_lemma_needs_a_minimum(float64, monkeypatch):
    """At the start of the descent the sum is another."""
    monkeypatch.setattr(theorem2, "minimize", lambda residuals, start, *_: start)  # what no steps give
    sizes = SIZES | {"activation": "tanh", "rough": 0, "fine": 0, "draws": 2}
    start = theorem2.gates(jax.random.key(0), **sizes)
    assert (start["convergence"] < 0).all() and np.isnan(start["error of the lemma"]).all()
    assert np.isnan(start["smallest loss: skip 0,1"]).all()


def test_there_are_slopes_of_each_gate_of_both_losses(found):
    gates = {f"{op} {s},{t}" for op in ("skip", "conv") for s, t in reference.edges(Model(3, 2))}
    for loss in ("smallest loss", "validation loss"):
        assert {name.partition(": ")[2] for name in found if name.startswith(f"{loss}: ")} == gates
        for gate in gates:
            assert np.isfinite(found[f"{loss}: {gate}"]).all() and np.ptp(found[f"{loss}: {gate}"]) > 0


def test_the_sets_of_data_are_others_of_one_teacher(float64):
    shape = Model(3, 2, activation="sigmoid")
    data = jax.jit(lambda key: theorem2.teacher_data(key, shape, (5, 40), 2, 3))
    (inputs, targets), (others, of_others) = data(jax.random.key(1))
    assert inputs.shape == (5, 2, 3) and others.shape == (40, 2, 3)
    together = np.concatenate([targets, of_others])
    assert together.mean() == pytest.approx(0, abs=1e-9) and together.std() == pytest.approx(1)
    assert len(np.unique(np.concatenate([inputs, others]), axis=0)) == 45
    # A smooth function of the inputs: those that are near have near targets.
    flat = np.concatenate([inputs, others]).reshape(45, -1)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)[np.triu_indices(45, 1)]
    differ = np.abs(together[:, None] - together[None])[np.triu_indices(45, 1)]
    assert differ[np.argsort(apart)[:50]].mean() < differ.mean()


def test_slopes_of_the_validation_loss_are_those_of_minima_beside_it(measured, found):
    """Of two gates, each moved a little and trained again."""
    for number, gate in ((0, "skip 0,1"), (5, "conv 1,2")):
        ends = [np.log(measured(sign * 1e-4 * np.eye(6)[number])["validation loss"][0]) for sign in (1, -1)]
        assert found[f"validation loss: {gate}"][0] == pytest.approx(-(ends[0] - ends[1]) / 2e-4, rel=1e-3)
