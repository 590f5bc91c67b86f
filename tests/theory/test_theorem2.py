"""Theorem 2's check: on losses whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import claims, gram, theorem2
from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_the_kinds_of_gates_are_a_partition(nodes):
    shape = Model(nodes, 2)
    kinds = theorem2._kinds(shape)
    named = [(op, *edge) for op in ("skip", "conv") for edge in reference.edges(shape)]
    np.testing.assert_array_equal(sum(np.asarray(where, int) for where in kinds.values()), np.ones(len(named)))
    for kind, where in kinds.items():
        of_kind = [name for name, chosen in zip(named, where, strict=True) if chosen]
        op, _, rest = kind.partition(" ")
        into_last = rest.lstrip(", ").startswith("into")
        assert of_kind == [(o, s, t) for o, s, t in named if o == op.strip(",") and (t == nodes - 1) == into_last]


def test_theorem_2_raises_each_gate_alone_and_averages_over_its_kind(monkeypatch):
    """With a loss of exp(-w g), which a raise by epsilon multiplies by exp(-w epsilon), whatever the draw."""
    shape = theorem2._SHAPE
    edges = reference.edges(shape)
    falls = {"skip": np.linspace(0.5, 2, len(edges)) ** 2, "conv": -(np.linspace(0.4, 2, len(edges)) ** 2)}

    def loss(shape, params, given, inputs, targets):
        assert set(given) == {"skip", "conv"} and len(inputs) == len(targets) == 128
        return jnp.exp(-sum(jnp.sum(w * given[op]) for op, w in falls.items())) + 0 * jnp.sum(params["stem"])

    def descend(shape, params, given, inputs, targets, step_size, steps):
        assert steps == 4
        return params, jnp.array([1.0, 2.0, loss(shape, params, given, inputs, targets)])

    monkeypatch.setattr(net, "loss", loss)
    monkeypatch.setattr(net, "descend", descend)
    monkeypatch.setattr(gram, "blocks", lambda *_: {"all": jnp.ones((1, 1, 1))})
    checked = claims.check("theorem2_gates", 0, Settings(gate_draws=3, gate_steps=2, steps=4))
    into_last = np.array([t == shape.nodes - 1 for _, t in edges])
    kinds = [("skip", ~into_last), ("conv", into_last), ("skip", into_last), ("conv", ~into_last)]
    assert len(checked.findings) == 12 and checked.verdict == "fails"
    assert all("one of 12 tests (Bonferroni)" in found.test for found in checked.findings)
    for found, (op, where) in zip(checked.findings[8:], kinds, strict=True):  # - d ln F / d gate
        assert found.measured == pytest.approx(falls[op][where].mean(), rel=1e-9)
        assert found.predicted.startswith("converged: -d ln F / d gate") and f"({op}" in found.predicted
    for number, (found, (op, where)) in enumerate(zip(checked.findings[:8], 2 * kinds, strict=True)):
        expected = {eps: np.mean(1 - np.exp(-eps * falls[op][where])) for eps in (0.05, 0.1)}
        assert found.measured == pytest.approx(expected[0.1], rel=1e-9)
        assert found.verdict == ("holds" if op == "skip" else "fails")
        name = "converged" if number < 4 else "after 4 steps"
        assert found.predicted.startswith(name)
        kind = found.predicted.partition("(")[2].partition(")")[0]
        assert kind.startswith(op)
        assert list(checked.details[name][kind]["mean fall of the loss for 0.05 and 0.1"]) == pytest.approx(
            list(expected.values())
        )
