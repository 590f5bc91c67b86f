"""Second derivatives against central differences and the finite differences of the authors' codes, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chain import LAYERS, SHAPE, Chain, Normed, loss, make_batch, make_logits, make_params, slopes, start
from jax.flatten_util import ravel_pytree

from prdarts_jax.search import hypergradients, regularizers
from prdarts_jax.search.methods import Darts, LambdaDarts, RDarts
from prdarts_jax.search.step import SearchProblem, SearchState, hessian_eigenvalue, search_step


@pytest.fixture(scope="module", autouse=True)
def float64(compiled_quickly):
    with jax.enable_x64(True):
        yield


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def assert_near(found, expected, relative):
    """The largest error, as a fraction of the largest number."""
    found, expected = flat(found), flat(expected)
    assert found.shape == expected.shape and found.dtype == np.float64
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def weights_of(logits):
    return jnp.broadcast_to(jax.nn.softmax(logits), (LAYERS, *SHAPE))


def train_loss(params, logits, images):
    return loss(params, weights_of(logits), make_batch(1) | {"image": images})


def val_loss(params, logits):
    value = loss(params, weights_of(logits), make_batch(2))
    return value, {"value": value}


train_slope = jax.jit(jax.grad(train_loss))
val_slopes = jax.jit(jax.grad(lambda params, logits: val_loss(params, logits)[0], argnums=(0, 1)))


# The second order ----------------------------------------------------------------------------------------------------

RATE = 0.4
MOMENTUM = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(RATE, momentum=0.9))
OPTIMIZERS = {
    "plain": optax.sgd(RATE),
    "momentum and decay": MOMENTUM,
    "clipped Nesterov": optax.chain(
        optax.clip_by_global_norm(0.2), optax.add_decayed_weights(0.05), optax.sgd(RATE, momentum=0.9, nesterov=True)
    ),
    "Adam": optax.adam(0.1),
}


def mover(optimizer, params):
    """`move` of an optimizer that has seen a step before."""
    gradient = train_slope(make_params(7), make_logits(8), make_batch(9)["image"])
    _, state = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    return lambda dparams: optax.apply_updates(params, optimizer.update(dparams, state, params)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_unrolled_gradient_is_the_derivative_of_the_loss_after_the_step(optimizer):
    params, logits, images = make_params(0), make_logits(0), make_batch(1)["image"]
    move = mover(optimizer, params)

    def unrolled(logits):
        return val_loss(move(train_slope(params, logits, images)), logits)[0]

    gradient, aux = jax.jit(
        lambda params, logits: hypergradients.unrolled_gradient(train_loss, val_loss, move, params, logits, images)
    )(params, logits)
    assert_near(gradient, slopes(unrolled, logits), 1e-6)
    dparams = train_slope(params, logits, images)
    moved = jax.jit(move)(dparams)
    np.testing.assert_allclose(aux["value"], val_loss(moved, logits)[0], rtol=1e-12)
    _, first_order = val_slopes(moved, logits)
    assert np.abs(flat(first_order) - flat(gradient)).max() > 1e-2 * np.abs(flat(gradient)).max()
    assert np.linalg.norm(flat(dparams)) > 0.2  # the clipping clips


def test_the_finite_difference_of_the_original_code_tends_to_the_unrolled_gradient():
    params, logits, images = make_params(0), make_logits(0), make_batch(1)["image"]
    move = mover(MOMENTUM, params)
    exact, _ = jax.jit(
        lambda params, logits: hypergradients.unrolled_gradient(train_loss, val_loss, move, params, logits, images)
    )(params, logits)
    vector, dlogits = val_slopes(jax.jit(move)(train_slope(params, logits, images)), logits)

    @jax.jit
    def arch_slope(shift):
        shifted = jax.tree.map(lambda w, v: w + shift * v, params, vector)
        return jax.grad(train_loss, argnums=1)(shifted, logits, images)

    def error(r):
        eps = r / np.linalg.norm(flat(vector))
        implicit = (arch_slope(eps) - arch_slope(-eps)) / (2 * eps)
        return np.abs(flat(dlogits - RATE * implicit) - flat(exact)).max()

    errors = [error(r) for r in (0.1, 0.01, 0.001)]
    assert errors[0] < 0.05 * np.abs(flat(exact)).max()
    for large, small in itertools.pairwise(errors):
        assert 80 < large / small < 125


# Aligned layers ------------------------------------------------------------------------------------------------------


def cosine_loop(gradients):
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    pairs = list(itertools.combinations(rows, 2))
    return sum(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in pairs) / len(pairs)


def sign_loop(gradients):
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    total, pairs = 0.0, 0
    for i in range(len(rows)):
        for j in range(i):
            products = [x * y for x, y in zip(rows[i], rows[j], strict=True)]
            total += sum(products) / sum(map(abs, products))
            pairs += 1
    return total / pairs


def released_direction(gradients):
    """p_l of the released code, by layer."""
    n = len(gradients)
    g = [np.ravel(layer) for layer in np.asarray(gradients)]
    u = [layer / np.linalg.norm(layer) for layer in g]
    p = [
        2 / (n * (n - 1)) * (np.eye(len(u[0])) - np.outer(u[i], u[i])) @ sum(u) / np.linalg.norm(g[i]) for i in range(n)
    ]
    return np.reshape(p, np.shape(gradients))


MEASURES = pytest.mark.parametrize(
    "measure, loop",
    [(regularizers.layer_alignment, cosine_loop), (regularizers.sign_correlation, sign_loop)],
    ids=["cosine", "signcorr"],
)


@MEASURES
@pytest.mark.parametrize("layers", [2, 5])
def test_the_alignment_is_the_mean_over_pairs_of_layers(measure, loop, layers):
    g = jnp.array(np.random.default_rng(layers).normal(size=(layers, 5, 3)))
    value, slope = jax.jit(jax.value_and_grad(measure))(g)
    assert float(value) == pytest.approx(loop(g), rel=1e-10)
    assert_near(slope, slopes(measure, g, 1e-6), 1e-7)


@MEASURES
def test_the_alignment_of_equal_opposite_unrelated_and_absent_gradients(measure, loop):
    g = jnp.array(np.random.default_rng(0).normal(size=(1, 5, 3)))
    for scale, expected in (([1, 2, 3], 1), ([1, -1], -1), ([1, 1, -1], -1 / 3), ([1], 0)):
        found = jax.jit(measure)(g * np.array(scale, float)[:, None, None])
        assert float(found) == pytest.approx(expected, abs=1e-12)
    apart = jnp.zeros((2, 5, 3)).at[0, 0].set(1.0).at[1, 1].set(1.0)
    for gradients in (apart, apart.at[1].set(0.0), jnp.zeros((2, 5, 3))):
        value, slope = jax.jit(jax.value_and_grad(measure))(gradients)
        assert float(value) == 0 and np.isfinite(slope).all()


def test_the_derivative_of_the_cosine_is_the_direction_of_the_released_code():
    g = jnp.array(np.random.default_rng(1).normal(size=(4, 5, 3)))
    assert_near(jax.jit(jax.grad(regularizers.layer_alignment))(g), released_direction(g), 1e-12)


def layered_loss(params, layer_weights):
    value = loss(params, layer_weights, make_batch(1))
    return value, {"value": value}


@jax.jit
def layer_gradients(params, layer_weights):
    return jax.grad(loss, argnums=1)(params, layer_weights, make_batch(1))


@functools.partial(jax.jit, static_argnums=0)
def aligned_gradient(measure, params, layer_weights, strength):
    return hypergradients.aligned_gradient(layered_loss, measure, strength, params, layer_weights)


def test_the_finite_difference_of_the_released_code_tends_to_the_aligned_gradient():
    params, weights, strength = make_params(0), weights_of(make_logits(0)), 0.3
    exact, gradients, aux = aligned_gradient(regularizers.layer_alignment, params, weights, strength)
    g = layer_gradients(params, weights)
    assert_near(gradients, g, 1e-12)
    np.testing.assert_allclose(aux["value"], loss(params, weights, make_batch(1)), rtol=1e-12)
    p = released_direction(g)
    slope = jax.jit(jax.grad(loss))
    plain = flat(slope(params, weights, make_batch(1)))

    def error(eps0):
        eps = eps0 / np.linalg.norm(p)
        minus, plus = (flat(slope(params, weights + s * p, make_batch(1))) for s in (-eps, eps))
        return np.abs(plain + strength * (minus - plus) / (2 * eps) - flat(exact)).max()

    assert np.abs(flat(exact) - plain).max() > 0.1 * np.abs(plain).max()
    errors = [error(eps0) for eps0 in (1e-1, 1e-2, 1e-3)]
    assert errors[-1] < 1e-5 * np.abs(plain).max()
    for large, small in itertools.pairwise(errors):
        assert 80 < large / small < 125


@pytest.mark.parametrize("measure", [regularizers.layer_alignment, regularizers.sign_correlation])
def test_the_aligned_gradient_is_the_derivative_of_the_loss_less_the_alignment(measure):
    params, weights = make_params(0), weights_of(make_logits(0))
    found, gradients, _ = aligned_gradient(measure, params, weights, 0.3)
    assert_near(gradients, layer_gradients(params, weights), 1e-12)

    def objective(params):
        return layered_loss(params, weights)[0] - 0.3 * measure(layer_gradients(params, weights))

    assert_near(found, slopes(objective, params, 1e-6), 1e-6)


# The dominant eigenvalue ---------------------------------------------------------------------------------------------


def symmetric(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))
    return (q * np.array(eigenvalues)) @ q.T


@functools.partial(jax.jit, static_argnums=2)
def by_products(matrix, at, steps):
    def gradient(tree):
        x = jnp.concatenate([tree["normal"].ravel(), tree["reduce"]])
        product = matrix @ jnp.where(jnp.isfinite(x), x, 0)
        return {"normal": product[:4].reshape(2, 2), "reduce": product[4:]}

    tree = {"normal": at[:4].reshape(2, 2), "reduce": at[4:]}
    return hypergradients.dominant_eigenvalue(gradient, tree, jax.random.key(0), steps)


def found_eigenvalue(matrix, steps, at=None, dtype=np.float64):
    """By products with the Hessian of x -> x' A x / 2, x being of two arrays."""
    at = np.zeros(len(matrix)) if at is None else at
    return float(by_products(matrix.astype(dtype), at.astype(dtype), steps))


@pytest.mark.parametrize(
    "eigenvalues",
    [
        (3.0, 2.0, 1.0, 0.5, -0.1, -2.5),
        (-3.0, 2.0, 1.0, 0.5, -0.1, 2.5),
        (-1e-3, 1e-4, 0.0, 0.0, 0.0, 0.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        (-4.0, -4.0, 1.0, 1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ],
    ids=["positive", "negative", "of rank 2", "all equal", "repeated", "zero"],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_the_dominant_eigenvalue_is_that_of_the_full_matrix(eigenvalues, dtype):
    for scale in (1.0, 1e5, 1e-5):
        matrix = scale * symmetric(eigenvalues)
        values = np.linalg.eigvalsh(matrix)
        expected = values[np.abs(values).argmax()]
        tolerance = (1e-9 if dtype == np.float64 else 1e-5) * scale
        assert found_eigenvalue(matrix, 10, dtype=dtype) == pytest.approx(expected, abs=tolerance)


def test_fewer_steps_than_numbers_find_an_eigenvalue_that_stands_out():
    matrix = symmetric([-5.0, *np.linspace(-1, 1, 40)])
    assert found_eigenvalue(matrix, 10) == pytest.approx(-5, rel=1e-6)
    assert found_eigenvalue(matrix, 3) == pytest.approx(-5, rel=0.1)
    # One product gives a Rayleigh quotient.
    assert abs(found_eigenvalue(matrix, 1)) < 5


def test_what_is_not_finite_is_left_out():
    matrix = symmetric((3.0, 2.0, 1.0, 0.5, -0.1, -2.5))
    at = np.array([0.1, -np.inf, 0.3, 0.2, -np.inf, 0.0])
    keep = np.isfinite(at)
    values = np.linalg.eigvalsh(matrix[np.ix_(keep, keep)])
    expected = values[np.abs(values).argmax()]
    assert found_eigenvalue(matrix, 6, at) == pytest.approx(expected, rel=1e-9)
    assert abs(expected - 3) > 0.1


# In a search step -----------------------------------------------------------------------------------------------------


def make_problem(method, weight_optimizer, total_steps=5):
    return SearchProblem(Chain(), method, weight_optimizer, optax.sgd(1.0), total_steps)


def state_of(problem, step, logits):
    variables = {"params": make_params(0), "arch": {"normal": logits}}
    return SearchState(
        step=jnp.int32(step),
        **variables,
        batch_stats={},
        opt_state=problem.optimizer.init(variables),
        key=jax.random.key(0),
    )


def test_a_second_order_step_follows_the_unrolled_validation_loss():
    optimizer = OPTIMIZERS["clipped Nesterov"]
    problem = make_problem(Darts(second_order=True), optimizer)
    step = jax.jit(search_step, static_argnums=0)
    state, _ = step(problem, state_of(problem, 0, make_logits(3)), make_batch(3), make_batch(4))  # so there is momentum
    after, metrics = step(problem, state, make_batch(1), make_batch(2))

    @jax.jit
    def moved(logits):
        dparams = train_slope(state.params, logits, make_batch(1)["image"])
        before = {"params": state.params, "arch": state.arch}
        gradient = {"params": dparams, "arch": jax.tree.map(jnp.zeros_like, state.arch)}
        return optax.apply_updates(before, problem.optimizer.update(gradient, state.opt_state, before)[0])["params"]

    expected = slopes(lambda logits: val_loss(moved(logits), logits)[0], state.arch["normal"])
    assert_near(state.arch["normal"] - after.arch["normal"], expected, 1e-6)
    np.testing.assert_allclose(metrics["val_loss"], val_loss(moved(state.arch["normal"]), state.arch["normal"])[0])
    # The weights then follow where the logits have gone.
    assert_near(after.params, moved(after.arch["normal"]), 1e-10)


@pytest.mark.parametrize("variant", ["cosine", "signcorr"])
def test_an_aligned_step_follows_the_loss_less_lambda_times_the_alignment(variant):
    """Lambda grows linearly from 0; `aligned_gradient` is tested above."""
    problem = make_problem(LambdaDarts(strength=0.2, variant=variant), optax.sgd(1.0))
    step = jax.jit(search_step, static_argnums=0)
    measure = {"cosine": regularizers.layer_alignment, "signcorr": regularizers.sign_correlation}[variant]
    for at_step, strength in ((0, 0.0), (2, 0.1), (4, 0.2)):
        state = state_of(problem, at_step, make_logits(0))
        after, metrics = step(problem, state, make_batch(1), make_batch(2))
        weights = weights_of(after.arch["normal"])
        expected, gradients, _ = aligned_gradient(measure, state.params, weights, strength)
        assert_near(jax.tree.map(jnp.subtract, state.params, after.params), expected, 1e-6)
        # Reported is the cosine, whatever is maximised.
        np.testing.assert_allclose(metrics["alignment_train"], cosine_loop(gradients), rtol=1e-8)
    # The logits of DARTS: the plain gradient of the validation loss.
    _, slope = val_slopes(state.params, state.arch["normal"])
    assert_near(state.arch["normal"] - after.arch["normal"], slope, 1e-10)
    val_gradients = jax.jit(jax.grad(loss, argnums=1))(state.params, weights_of(state.arch["normal"]), make_batch(2))
    np.testing.assert_allclose(metrics["alignment_val"], cosine_loop(val_gradients), rtol=1e-8)


def test_the_eigenvalue_of_an_epoch_is_that_of_the_hessian_in_the_logits_that_are_candidates():
    problem = make_problem(RDarts(), optax.sgd(1.0))
    logits = make_logits(5).at[0, 1].set(-jnp.inf)
    state = state_of(problem, 3, logits)
    batches = [make_batch(2), make_batch(7)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
    found = jax.jit(hessian_eigenvalue, static_argnums=(0, 3))(problem, state, stacked, 10)
    keep = np.isfinite(logits).ravel()

    def mean_loss(logits):
        return sum(loss(state.params, weights_of(logits), batch) for batch in batches) / 2

    hessian = jax.jit(jax.hessian(mean_loss))(logits)
    hessian = np.reshape(hessian, (logits.size, logits.size))
    values = np.linalg.eigvalsh(hessian[np.ix_(keep, keep)])
    assert float(found) == pytest.approx(values[np.abs(values).argmax()], rel=1e-6)
    assert np.abs(values).max() > 1e-4


# Of parts of a batch --------------------------------------------------------------------------------------------------


def split(batch, parts=4, axis=0):
    return jax.tree.map(
        lambda a: a.reshape(*a.shape[:axis], parts, a.shape[axis] // parts, *a.shape[axis + 1 :]), batch
    )


def normed(method, axis_name=None):
    return SearchProblem(Normed(axis_name=axis_name), method, MOMENTUM, optax.sgd(1.0), total_steps=5)


@pytest.mark.parametrize(
    "method",
    [Darts(second_order=True), LambdaDarts(strength=0.2)],
    ids=["second order", "cosine"],
)
def test_a_step_of_the_parts_of_a_batch_is_that_of_the_batch(method):
    """Each part, with batch normalisation of all, takes the step that one device takes, to what float32 allows."""
    problem, batches = normed(method), (make_batch(1, 8), make_batch(2, 8))
    state = start(problem, jax.random.key(0), batches[0]["image"]).replace(step=jnp.int32(3))
    expected, _ = jax.jit(search_step, static_argnums=0)(problem, state, *batches)
    step = functools.partial(search_step, normed(method, "data"), state)
    found, metrics = jax.jit(jax.vmap(step, axis_name="data"))(*split(batches))
    for name in ("params", "arch"):
        before, after = (flat(getattr(s, name)) for s in (state, expected))
        assert np.abs(after - before).max() > 1e-3
        for part in range(4):
            assert_near(jax.tree.map(lambda a, part=part: a[part], getattr(found, name)), getattr(expected, name), 1e-5)
    assert all(len(set(np.asarray(values).tolist())) == 1 for values in metrics.values())


def test_the_eigenvalue_of_the_parts_of_batches_is_that_of_the_batches():
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), make_batch(2, 8), make_batch(7, 8))
    state = start(normed(RDarts()), jax.random.key(0), batches["image"][0])
    expected = jax.jit(hessian_eigenvalue, static_argnums=0)(normed(RDarts()), state, batches)
    parts = jax.vmap(functools.partial(hessian_eigenvalue, normed(RDarts(), "data"), state), 1, axis_name="data")
    np.testing.assert_allclose(jax.jit(parts)(split(batches, axis=1)), jnp.full(4, expected), rtol=1e-5)
