"""SNAS, ReinMax and the auxiliary skip of DARTS-: laws of their draws, and gradients against exact expectations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from shared import LEVEL, SHUFFLED, logits_of, softmax_of
from table import Table, batch_of, jit_init, jit_step

from prdarts_jax import spaces
from prdarts_jax.search import methods, relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.schedules import Linear

ONE = spaces.SearchSpace("one", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
BETA = jnp.array([[0.4, -0.8, 0.2], [0.0, 1.5, -0.5]])
KEYS = jax.random.split(jax.random.key(0), 4000)


def test_the_ratios_of_snas_s_weights_have_the_logistic_law():
    """tau (ln w_i - ln w_j) - (beta_i - beta_j) is the difference of two Gumbel variables."""
    relaxation = relaxations.Concrete(temperature=Linear(2.0, 0.5))
    for progress, tau in ((0.0, 2.0), (1.0, 0.5)):
        weights = jax.jit(
            jax.vmap(lambda key, p=progress: relaxation.weigh(ONE, {"normal": BETA}, key, jnp.float32(p))["normal"])
        )(KEYS)
        drawn = np.log(np.asarray(weights, np.float64))
        np.testing.assert_allclose(np.exp(drawn).sum(-1), 1, rtol=1e-5)
        for i, j in ((0, 1), (1, 2)):
            noise = tau * (drawn[..., i] - drawn[..., j]) - np.asarray(BETA[:, i] - BETA[:, j])
            for edge in range(2):
                assert scipy.stats.kstest(noise[:, edge], "logistic").pvalue > LEVEL / 8
    assert relaxation.metrics(0.5) == {"temperature": 1.25}
    np.testing.assert_allclose(relaxation.activation(ONE, {"normal": BETA}, 0.0)["normal"], softmax_of(BETA), rtol=1e-5)


def gradients(relaxation, loss):
    """(the mean over all draws, by their probability, of a relaxation's gradient; the exact gradient of the mean)."""
    p = softmax_of(BETA)

    def of_draw(key):
        def value(beta):
            w = relaxation.weigh(ONE, {"normal": beta}, key, jnp.float32(1))["normal"]
            return loss(w), jnp.argmax(w, axis=1)

        return jax.grad(value, has_aux=True)(BETA)

    slopes, drawn = jax.jit(jax.vmap(of_draw))(KEYS)
    found = np.zeros(BETA.shape)
    for draw in np.ndindex(3, 3):
        places = np.nonzero((np.asarray(drawn) == draw).all(axis=1))[0]
        found += p[0, draw[0]] * p[1, draw[1]] * np.asarray(slopes, np.float64)[places[0]]

    def mean(beta):
        chances = jax.nn.softmax(beta)
        hot = jnp.eye(3)
        return sum(
            chances[0, i] * chances[1, j] * loss(jnp.stack([hot[i], hot[j]])) for i in range(3) for j in range(3)
        )

    return found, np.asarray(jax.grad(mean)(BETA))


def test_the_mean_of_reinmax_s_gradient_is_exact_for_a_quadratic_loss_and_that_of_straight_through_is_not():
    rng = np.random.default_rng(0)
    q, a = (jnp.array(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 3), (2, 3)))

    def loss(w):
        return jnp.einsum("ei,eij,ej->", w, q, w) + jnp.sum(a * w) + jnp.sum(w[0] * w[1])

    found, exact = gradients(relaxations.ReinMax(), loss)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)

    class StraightThrough(relaxations.ReinMax):
        def weigh(self, space, logits, key, progress):
            soft = jax.nn.softmax(logits["normal"])
            hard = jax.lax.stop_gradient(super().weigh(space, logits, key, progress)["normal"])
            return {"normal": hard + soft - jax.lax.stop_gradient(soft)}

    found, _ = gradients(StraightThrough(), loss)
    assert np.abs(found - exact).max() > 0.05


def test_reinmax_draws_by_the_softmax_and_runs_the_other_candidates_with_hardly_any_weight():
    beta = BETA.at[0, 1].set(-jnp.inf)
    drawn = jax.jit(
        jax.vmap(lambda key: relaxations.ReinMax().weigh(ONE, {"normal": beta}, key, jnp.float32(0))["normal"])
    )(KEYS)
    drawn, p = np.asarray(drawn), softmax_of(beta)
    assert set(np.unique(drawn)) == {np.float32(0), np.float32(1e-30), np.float32(1)}
    assert (drawn[:, 0, 1] == 0).all() and (drawn > 0).sum() == 5 * len(drawn)
    for edge in range(2):
        counts = (drawn[:, edge] == 1).sum(axis=0)
        kept = p[edge] > 0
        assert scipy.stats.chisquare(counts[kept], len(drawn) * p[edge][kept]).pvalue > LEVEL / 2


def test_the_auxiliary_skip_is_added_to_that_of_every_edge_and_fades():
    relaxation, logits = methods.darts_minus().relaxation, logits_of(0)
    plain, column = relaxations.Softmax(), SHUFFLED.ops.index("skip_connect")
    for progress, beta in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0)):
        weights = relaxation.weigh(SHUFFLED, logits, jax.random.key(0), jnp.float32(progress))
        for t, w in plain.weigh(SHUFFLED, logits, jax.random.key(0), jnp.float32(0)).items():
            expected = np.array(w)
            expected[:, column] += beta
            np.testing.assert_allclose(weights[t], expected, rtol=1e-6)
            np.testing.assert_array_equal(relaxation.activation(SHUFFLED, logits, jnp.float32(progress))[t], w)
            np.testing.assert_array_equal(relaxation.scores(SHUFFLED, logits)[t], plain.scores(SHUFFLED, logits)[t])
        assert float(relaxation.metrics(jnp.float32(progress))["auxiliary_skip"]) == beta
    # On an edge of S1 that has no skip connection it is there too, and nothing else is.
    space = spaces.s1()
    logits = {t: jnp.where(space.candidates(t), 0.0, -jnp.inf) for t in space.cell_types}
    weights = relaxation.weigh(space, logits, jax.random.key(0), jnp.float32(0))
    for t in space.cell_types:
        skip = np.arange(len(space.ops)) == space.ops.index("skip_connect")
        np.testing.assert_array_equal(np.asarray(weights[t]) > 0, space.candidates(t) | skip)


def test_an_auxiliary_skip_joins_any_relaxation_and_needs_a_skip_connection():
    relaxation = relaxations.AuxiliarySkip(relaxation=methods.pr_darts().relaxation)
    problem = SearchProblem(Table(SHUFFLED), Method(relaxation=relaxation), optax.sgd(0.1), optax.adam(0.01), 5)
    state, metrics = jit_step(
        problem, jit_init(problem, jax.random.key(0), batch_of(0.0)["image"]), batch_of(0.0), batch_of(1.0)
    )
    assert metrics["temperature"] == 10 and metrics["auxiliary_skip"] == 1 and np.isfinite(metrics["val_loss"])
    assert (np.asarray(state.arch["normal"]) != 0.5).any()
    none = spaces.SearchSpace("pools", ("max_pool_3x3", "sep_conv_3x3"), nodes=3)
    with pytest.raises(ValueError, match="space=pools must have a skip connection for AuxiliarySkip"):
        relaxation.init(none, jax.random.key(0), {t: jnp.zeros(none.shape) for t in none.cell_types})
