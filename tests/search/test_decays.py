"""Terms that act on logits or on the activation of each edge: Beta-DARTS's decay, the entropy, and their schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from shared import SHUFFLED, logits_of, slope_of, softmax_of

from prdarts_jax import spaces
from prdarts_jax.search import methods, terms
from prdarts_jax.search.schedules import Linear


def value(term, space, logits, activation=None, progress=0.0):
    view = terms.View(space, logits, activation or {t: jax.nn.softmax(b) for t, b in logits.items()}, jnp.float32(0))
    return term(view, view.activation, jnp.float32(progress))


def test_beta_decay_is_the_mean_of_log_sum_exp_and_its_slope_the_softmax():
    logits = {t: 2 * beta for t, beta in logits_of(1).items()}
    found, metrics = value(terms.beta_decay(3.0), SHUFFLED, logits)
    expected = np.mean([scipy.special.logsumexp(np.asarray(logits[t], np.float64), axis=1) for t in logits])
    assert float(metrics["l_beta"]) == pytest.approx(expected, rel=1e-5)
    assert float(found) == pytest.approx(3 * expected, rel=1e-5)
    slope = jax.grad(lambda logits: value(terms.beta_decay(3.0), SHUFFLED, logits)[0])(logits)
    for t in SHUFFLED.cell_types:
        np.testing.assert_allclose(slope[t], 3 * softmax_of(logits[t]) / (2 * len(SHUFFLED.edges)), rtol=1e-5)


def test_the_weight_of_beta_darts_grows_linearly():
    (term,) = methods.beta_darts().terms
    logits = logits_of(1)
    for progress, weight in ((0.0, 0.0), (0.2, 10.0), (1.0, 50.0)):
        found, metrics = value(term, SHUFFLED, logits, progress=progress)
        assert float(found) == pytest.approx(weight * float(metrics["l_beta"]), rel=1e-5)


def test_the_entropy_is_that_of_the_shares_of_an_edge():
    def loop(p):
        return np.mean([-sum(x * np.log(x) for x in row / row.sum() if x > 0) for row in np.asarray(p, np.float64)])

    rng = np.random.default_rng(0)
    p = {t: rng.uniform(0.05, 1, SHUFFLED.shape).astype(np.float32) for t in SHUFFLED.cell_types}
    p["normal"][0] = np.eye(len(SHUFFLED.ops))[2]  # a clear decision
    logits = {t: jnp.zeros(SHUFFLED.shape) for t in p}
    found, metrics = value(terms.entropy(-0.5), SHUFFLED, logits, p)
    expected = np.mean([loop(of_type) for of_type in p.values()])
    assert float(metrics["l_entropy"]) == pytest.approx(expected, rel=1e-5)
    assert float(found) == pytest.approx(-0.5 * expected, rel=1e-5)
    slope = jax.grad(lambda p: value(terms.entropy(1.0), SHUFFLED, logits, p)[0])(p)
    np.testing.assert_allclose(slope["reduce"], slope_of(lambda a: loop(a) / 2, p["reduce"]), rtol=1e-3, atol=1e-7)
    assert np.isfinite(slope["normal"]).all()


@pytest.mark.parametrize("term", [terms.entropy(1.0), terms.beta_decay(1.0)], ids=["entropy", "beta decay"])
def test_what_is_no_candidate_counts_for_nothing(term):
    space = spaces.s1()
    logits = {t: jnp.where(space.candidates(t), beta, -jnp.inf) for t, beta in logits_of(3, space.shape).items()}
    slope = jax.grad(lambda logits: value(term, space, logits)[0])(logits)
    for t in space.cell_types:
        assert np.isfinite(slope[t]).all() and (np.asarray(slope[t])[~space.candidates(t)] == 0).all()
    alone = {t: jnp.where(beta == jnp.max(beta, axis=1, keepdims=True), 0.0, -jnp.inf) for t, beta in logits.items()}
    assert float(value(term, space, alone)[0]) == pytest.approx(0, abs=1e-6)  # one op of weight 1, of the logit 0


def test_a_scheduled_term_is_its_term_times_the_schedule():
    term = terms.scheduled(terms.path_depth(0.5), Linear(1.0, 3.0))
    assert term == terms.scheduled(terms.path_depth(0.5), Linear(1.0, 3.0)) and hash(term)
    plain, metrics = value(terms.path_depth(0.5), SHUFFLED, logits_of(0))
    for progress, factor in ((0.0, 1.0), (0.5, 2.0)):
        found, same = value(term, SHUFFLED, logits_of(0), progress=progress)
        assert float(found) == pytest.approx(factor * float(plain)) and same == metrics
