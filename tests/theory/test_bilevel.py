"""Bilevel search in the network of the analysis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prdarts_jax.search import gates
from prdarts_jax.theory import bilevel, model

SIZES = {"activation": "tanh", "width": 2, "nodes": 4, "samples": 3, "channels": 1, "positions": 2, "draws": 2}


def test_ranks_give_spearmans_correlation():
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    found = jnp.mean(bilevel._ranks(jnp.array(x)) * bilevel._ranks(jnp.array(y)))
    assert float(found) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-6)


def test_what_is_measured_is_finite_and_differs_between_the_searches(float64):
    found = bilevel.dynamics(jax.random.key(0), steps=4, learning_rate=0.1, **SIZES | {"nodes": 3})
    assert all(values.shape == (2,) and np.isfinite(values).all() for values in found.values())
    growth = [found[f"{name}: growth"] for name in ("softmax", "gates", "gates, terms")]
    assert all((a != b).all() for a, b in zip(growth, growth[1:], strict=False))
    for name in ("gates", "gates, terms"):
        for speed in ("conditioning", "first speed"):
            lost = found[f"softmax: link to {speed}"] - found[f"{name}: link to {speed}"]
            np.testing.assert_allclose(found[f"{name}: loss of link to {speed}"], lost, atol=1e-12)


def test_logits_follow_the_validation_loss_and_a_loss_that_likes_skips_makes_them_grow(float64, monkeypatch):
    """Of a loss that each skip connection lowers by another amount: the more, the more it grows."""
    liked = jnp.array([0.3, 0.1, 0.6, 0.2, 0.5, 0.4])

    def loss(shape, params, alpha, inputs, targets):
        return -jnp.sum(liked * alpha["skip"]) * jnp.var(targets) + 0 * jnp.sum(params["stem"])

    monkeypatch.setattr(model, "loss", loss)
    monkeypatch.setattr(bilevel.optax, "adam", lambda rate, **_: bilevel.optax.sgd(rate))
    monkeypatch.setattr(bilevel.gram, "blocks", lambda shape, params, alpha, inputs: alpha["skip"])
    # Of matrices whose conditioning rises most with the skip connections that the loss likes.
    monkeypatch.setattr(bilevel.gram, "whole", lambda skip: jnp.eye(3) * jnp.exp(jnp.sum(liked * skip)))
    monkeypatch.setattr(bilevel.gram, "conditioning", lambda matrix: matrix[0, 0])
    found = bilevel.dynamics.__wrapped__(jax.random.key(0), steps=3, learning_rate=0.1, **SIZES)
    assert (found["softmax: growth"] > 0).all() and (found["gates: growth"] > 0).all()
    np.testing.assert_allclose(found["softmax: link to conditioning"], 1.0)
    np.testing.assert_allclose(found["softmax: link to first speed"], 1.0)


def test_terms_push_the_probabilities_of_pr_darts_gates_down(float64, monkeypatch):
    """Without a loss, skip connections are pushed down more than convolutions, which the path pulls up."""
    monkeypatch.setattr(model, "loss", lambda shape, params, *_: 0 * jnp.sum(params["stem"]))
    monkeypatch.setattr(bilevel.optax, "adam", lambda rate, **_: bilevel.optax.sgd(rate))
    found = bilevel.dynamics.__wrapped__(jax.random.key(0), steps=1, learning_rate=1.0, **SIZES | {"nodes": 3})
    np.testing.assert_array_equal(found["gates: growth"], 0)
    logits = jnp.zeros((2, 3))
    slope = jax.grad(
        lambda logits: (
            0.01 * gates.activation_probability(logits, 1.0)[0].mean()
            + 0.005 * gates.activation_probability(logits, 1.0)[1].mean()
            - 0.005 * jnp.prod(gates.activation_probability(logits, 1.0)[1][jnp.array([0, 2])])
        )
    )(logits)
    np.testing.assert_allclose(found["gates, terms: growth"], -(slope[0] - slope[1]).mean(), rtol=1e-9)
    assert (found["gates, terms: growth"] < 0).all()
