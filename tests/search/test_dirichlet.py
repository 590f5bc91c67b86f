"""DrNAS's relaxation and regulariser, against the closed forms of the Dirichlet distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from shared import LEVEL, SHUFFLED, logits_of, slope_of

from prdarts_jax import spaces
from prdarts_jax.search import relaxations, terms

DIRICHLET = relaxations.Dirichlet()
ONE = spaces.SearchSpace("one", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
KEYS = jax.random.split(jax.random.key(0), 8000)


def concentration_of(logits):
    logits = np.asarray(logits, np.float64)
    return np.where(logits > 0, logits + 1, np.exp(np.minimum(logits, 0)))


def weigh(logits, keys=KEYS):
    return jax.vmap(lambda key: DIRICHLET.weigh(ONE, {"normal": logits}, key, jnp.float32(0))["normal"])(keys)


def test_the_weights_of_an_edge_have_the_law_of_a_dirichlet_distribution():
    """The marginals of Dir(c) are Beta(c_i, C - c_i), and two ops together have Beta(c_i + c_j, C - c_i - c_j)."""
    beta = jnp.array([[0.7, -1.5, 0.1], [-0.3, 2.0, 0.0]])
    drawn, c = np.asarray(jax.jit(weigh)(beta), np.float64), concentration_of(beta)
    np.testing.assert_allclose(drawn.sum(-1), 1, rtol=1e-5)
    for edge in range(2):
        total = c[edge].sum()
        for ops in ([0], [1], [2], [0, 1]):
            inside = c[edge, ops].sum()
            law = scipy.stats.beta(inside, total - inside)
            assert scipy.stats.kstest(drawn[:, edge, ops].sum(-1), law.cdf).pvalue > LEVEL / 8
    np.testing.assert_allclose(DIRICHLET.activation(ONE, {"normal": beta}, 0.0)["normal"], c / c.sum(1, keepdims=True))


def test_its_gradient_is_that_of_the_expectation():
    """E[w' Q w + a' w] in closed form, differentiated numerically, beside the mean of the gradients of the draws."""
    rng = np.random.default_rng(0)
    beta, q, a = np.array([[0.4, -0.8, 0.2], [0.0, 0.5, -0.5]]), rng.normal(size=(3, 3)), rng.normal(size=3)

    def expected(beta):
        value = 0.0
        for c in concentration_of(beta):
            total = c.sum()
            second = (np.outer(c, c) + np.diag(c)) / (total * (total + 1))
            value += np.sum(q * second) + a @ c / total
        return value

    def of_draw(beta, key):
        w = weigh(beta, key[None])[0]
        return jnp.sum(jnp.einsum("ei,ij,ej->e", w, q.astype(np.float32), w) + w @ a.astype(np.float32))

    slopes = jax.jit(jax.vmap(jax.grad(of_draw), (None, 0)))(jnp.array(beta, jnp.float32), KEYS)
    slopes = np.asarray(slopes, np.float64)
    error = slopes.std(0) / np.sqrt(len(KEYS))
    assert (np.abs(slopes.mean(0) - slope_of(expected, beta)) < 4.5 * error).all() and error.max() < 0.02


def test_an_op_that_is_no_candidate_has_no_weight_and_the_others_have_the_law_without_it():
    beta = jnp.array([[0.5, -jnp.inf, -0.5], [-jnp.inf, -jnp.inf, 1.0]])
    drawn = np.asarray(jax.jit(weigh)(beta), np.float64)
    assert (drawn[:, 0, 1] == 0).all() and (drawn[:, 1] == [0, 0, 1]).all()
    c = concentration_of(beta[0])
    assert scipy.stats.kstest(drawn[:, 0, 0], scipy.stats.beta(c[0], c[2]).cdf).pvalue > LEVEL


def test_its_regulariser_is_the_divergence_from_the_uniform_distribution():
    """A mean of log density ratios over draws of SciPy, within its standard error; and 0 for logits of 0."""
    logits = {t: 0.8 * beta for t, beta in logits_of(2).items()}
    logits["normal"] = logits["normal"].at[0, 1].set(-jnp.inf)
    term, expected, variance = terms.dirichlet_kl(0.5), 0.0, 0.0
    for t in SHUFFLED.cell_types:
        for row in np.asarray(logits[t]):
            c = concentration_of(row[np.isfinite(row)])
            drawn = scipy.stats.dirichlet.rvs(c, 4000, random_state=0)
            drawn = np.maximum(drawn, 1e-12)
            drawn /= drawn.sum(1, keepdims=True)
            ratios = scipy.stats.dirichlet.logpdf(drawn.T, c) - scipy.stats.dirichlet.logpdf(drawn.T, np.ones(len(c)))
            expected += ratios.mean()
            variance += ratios.var() / len(ratios)

    def value(logits):
        return term(terms.View(SHUFFLED, logits, logits, jnp.float32(0)), None, jnp.float32(0))

    found, metrics = value(logits)
    assert float(metrics["l_kl"]) == pytest.approx(expected, abs=5 * variance**0.5)
    assert float(found) == pytest.approx(0.5 * float(metrics["l_kl"]))
    slope = jax.grad(lambda logits: value(logits)[0])(logits)
    assert all(np.isfinite(a).all() for a in slope.values()) and slope["normal"][0, 1] == 0
    assert float(value({t: jnp.zeros(SHUFFLED.shape) for t in SHUFFLED.cell_types})[0]) == pytest.approx(0, abs=1e-4)
