"""Hypergradients in float64: unrolled ones against derivatives of the steps themselves, implicit ones against solved
linear systems, and both in a search step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chain import (
    MOMENTUM,
    Normed,
    assert_near,
    assert_shrinks_by_squares,
    flat,
    jit_step,
    loss,
    make_batch,
    make_logits,
    make_params,
    make_problem,
    slopes,
    split,
    start,
    state_of,
    weights_of,
)
from jax.flatten_util import ravel_pytree

from prdarts_jax.search import methods, relaxations
from prdarts_jax.search.hypergradients import Bilevel, ConjugateGradient, FirstOrder, Neumann, Unrolled
from prdarts_jax.search.method import Method
from prdarts_jax.search.step import search_step

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.4
OPTIMIZERS = {
    "plain": optax.sgd(RATE),
    "momentum and decay": MOMENTUM,
    "clipped Nesterov": optax.chain(
        optax.clip_by_global_norm(0.2), optax.add_decayed_weights(0.05), optax.sgd(RATE, momentum=0.9, nesterov=True)
    ),
    "Adam": optax.adam(0.1),
}


def stepper(optimizer):
    """`Bilevel.update` of an optimizer."""

    def update(gradient, params, opt_state):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return update


# Unrolled -------------------------------------------------------------------------------------------------------------


def train_loss(params, logits):
    return loss(params, weights_of(logits), make_batch(1))


def val_loss(params, logits):
    value = loss(params, weights_of(logits), make_batch(2))
    return value, {"value": value}


train_slope = jax.jit(jax.grad(train_loss))
val_slopes = jax.jit(jax.grad(val_loss, argnums=(0, 1), has_aux=True))


@functools.cache
def of_chain(name):
    """The problem of a chain at logits 0, with an optimizer that has seen a step before."""
    optimizer, params = OPTIMIZERS[name], make_params(0)
    _, state = jax.jit(optimizer.update)(train_slope(make_params(7), make_logits(8)), optimizer.init(params), params)
    return Bilevel(
        train_loss=train_loss,
        val_gradient=lambda params, logits, argnums: jax.grad(val_loss, argnums, has_aux=True)(params, logits),
        update=stepper(optimizer),
        params=params,
        opt_state=state,
        arch=make_logits(0),
    )


def after(problem, logits, steps=1):
    """The weights after some steps at given logits."""
    params, opt_state = problem.params, problem.opt_state
    for _ in range(steps):
        params, opt_state = problem.update(jax.grad(train_loss)(params, logits), params, opt_state)
    return params


@functools.cache
def unrolled(name):
    """(weights after one step as a function of the logits, the gradient in the logits through it, what else was
    found)."""
    problem = of_chain(name)
    gradient = jax.jit(lambda logits: Unrolled()(dataclasses.replace(problem, arch=logits)))
    return jax.jit(functools.partial(after, problem)), *gradient(make_logits(0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_unrolled_gradient_is_the_derivative_of_the_loss_after_the_step(name):
    (move, gradient, aux), logits = unrolled(name), make_logits(0)
    assert_near(gradient, slopes(lambda logits: val_loss(move(logits), logits)[0], logits), 1e-6)
    np.testing.assert_allclose(aux["value"], val_loss(move(logits), logits)[0], rtol=1e-12)
    (_, first_order), _ = val_slopes(move(logits), logits)
    assert np.abs(flat(first_order) - flat(gradient)).max() > 1e-2 * np.abs(flat(gradient)).max()
    assert np.linalg.norm(flat(train_slope(make_params(0), logits))) > 0.2  # the clipping clips


@pytest.mark.parametrize("name", ["clipped Nesterov", "Adam"])
def test_the_gradient_of_several_unrolled_steps_is_that_of_reverse_mode_through_them(name):
    problem = of_chain(name)

    @functools.partial(jax.jit, static_argnums=0)
    def found_and_expected(steps, logits):
        found, _ = Unrolled(steps)(dataclasses.replace(problem, arch=logits))
        return found, jax.grad(lambda a: val_loss(after(problem, a, steps), a)[0])(logits)

    found, expected = zip(*(found_and_expected(steps, make_logits(0)) for steps in (1, 3)), strict=True)
    for of_hypergradient, of_reverse_mode in zip(found, expected, strict=True):
        assert_near(of_hypergradient, of_reverse_mode, 1e-10)
    assert np.abs(flat(found[1]) - flat(found[0])).max() > 1e-2 * np.abs(flat(found[1])).max()


def test_the_finite_difference_of_the_original_code_tends_to_the_unrolled_gradient():
    (move, exact, _), params, logits = unrolled("momentum and decay"), make_params(0), make_logits(0)
    (vector, dlogits), _ = val_slopes(move(logits), logits)

    @jax.jit
    def arch_slope(shift):
        shifted = jax.tree.map(lambda w, v: w + shift * v, params, vector)
        return jax.grad(train_loss, argnums=1)(shifted, logits)

    def error(r):
        eps = r / np.linalg.norm(flat(vector))
        implicit = (arch_slope(eps) - arch_slope(-eps)) / (2 * eps)
        return np.abs(flat(dlogits - RATE * implicit) - flat(exact)).max()

    errors = [error(r) for r in (0.1, 0.01, 0.001)]
    assert errors[0] < 0.05 * np.abs(flat(exact)).max()
    assert_shrinks_by_squares(errors)


# Implicit, where the weights that minimise the training loss are known ------------------------------------------------


class Quadratic:
    """The training loss w'Hw / 2 - w'(M a + c) and the validation loss |w - t|^2 / 2 + s'a, at w(a) = (H + decay)^-1
    (M a + c). Weights and logits are of two arrays each."""

    def __init__(self, eigenvalues=(2.0, 1.5, 1.0, 0.7, 0.5, 0.2), decay=0.0, rate=0.4):
        rng, size, logits = np.random.default_rng(0), len(eigenvalues), 5
        q, _ = np.linalg.qr(rng.normal(size=(size, size)))
        self.hessian, self.mixed = (q * np.array(eigenvalues)) @ q.T, rng.normal(size=(size, logits))
        c, self.t, self.s, a = (rng.normal(size=n) for n in (size, size, logits, logits))
        self.inverse, self.rate, self.decay = np.linalg.inv(self.hessian + decay * np.eye(size)), rate, decay
        self.w = self.inverse @ (self.mixed @ a + c)

        def joined(tree):
            return jnp.concatenate([tree["first"], tree["rest"]])

        def train_loss(params, arch):
            w = joined(params)
            return w @ self.hessian @ w / 2 - w @ (self.mixed @ joined(arch) + c)

        def val_loss(params, arch):
            value = jnp.sum((joined(params) - self.t) ** 2) / 2 + self.s @ joined(arch)
            return value, value

        optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
        params, arch = ({"first": jnp.array(x[:2]), "rest": jnp.array(x[2:])} for x in (self.w, a))
        self.problem = Bilevel(
            train_loss=train_loss,
            val_gradient=lambda params, arch, argnums: jax.grad(val_loss, argnums, has_aux=True)(params, arch),
            update=stepper(optimizer),
            params=params,
            opt_state=optimizer.init(params),
            arch=arch,
        )

    def expected(self, inverse):
        """The hypergradient with another matrix in place of (H + decay)^-1."""
        return self.s + self.mixed.T @ inverse @ (self.w - self.t)

    def found(self, hypergradient):
        gradient, value = jax.jit(lambda: hypergradient(self.problem))()
        assert jax.tree.map(jnp.shape, gradient) == {"first": (2,), "rest": (3,)}
        assert float(value) == pytest.approx(np.sum((self.w - self.t) ** 2) / 2 + self.s @ flat(self.problem.arch))
        return flat(gradient)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_neumann_series_has_its_terms_and_tends_to_the_exact_gradient(decay):
    quadratic = Quadratic(decay=decay)
    contraction = np.eye(6) - quadratic.rate * (quadratic.hessian + decay * np.eye(6))
    exact, errors = quadratic.expected(quadratic.inverse), []
    for products in (0, 1, 2, 5, 10, 40, 400):
        terms = sum(np.linalg.matrix_power(contraction, k) for k in range(products + 1))
        found = quadratic.found(Neumann(products))
        np.testing.assert_allclose(found, quadratic.expected(quadratic.rate * terms), rtol=1e-10)
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    assert all(later < earlier for earlier, later in zip(errors[:-1], errors[1:], strict=True))
    assert errors[0] > 0.1 and errors[-1] < 1e-10


def test_unrolled_steps_from_the_minimum_are_the_terms_of_a_neumann_series():
    quadratic = Quadratic(decay=0.1)
    for steps in (1, 2, 5):
        np.testing.assert_allclose(quadratic.found(Unrolled(steps)), quadratic.found(Neumann(steps - 1)), rtol=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_conjugate_gradients_tend_to_the_exact_gradient_and_have_it_after_as_many_iterations_as_weights(damping):
    quadratic = Quadratic()
    exact = quadratic.expected(np.linalg.inv(quadratic.hessian + damping * np.eye(6)))
    found = [quadratic.found(ConjugateGradient(products, damping)) for products in (1, 2, 4, 6, 20)]
    errors = [np.linalg.norm(gradient - exact) / np.linalg.norm(exact) for gradient in found]
    assert all(later < earlier for earlier, later in zip(errors[:3], errors[1:4], strict=True))
    assert errors[0] > 0.05 and max(errors[3:]) < 1e-6  # no more iterations than needed, and nothing that is not finite


def test_the_first_order_leaves_the_weights_out():
    quadratic = Quadratic()
    np.testing.assert_allclose(quadratic.found(FirstOrder()), quadratic.s)


def test_a_validation_loss_that_the_weights_minimise_has_the_first_order_s_gradient():
    """Nothing is divided by 0."""
    quadratic = Quadratic()
    quadratic.t = quadratic.w
    for hypergradient in (Unrolled(2), Neumann(2), ConjugateGradient(3, 0.0)):
        np.testing.assert_allclose(quadratic.found(hypergradient), quadratic.s, rtol=1e-10)


# In a search step -----------------------------------------------------------------------------------------------------


def test_a_second_order_step_follows_the_unrolled_validation_loss():
    problem = make_problem(method=methods.darts(second_order=True), weights=OPTIMIZERS["clipped Nesterov"])
    state, _ = jit_step(
        problem, state_of(problem, 0, make_logits(3)), make_batch(3), make_batch(4)
    )  # so there is momentum
    after, metrics = jit_step(problem, state, make_batch(1), make_batch(2))

    @jax.jit
    def moved(logits):
        dparams = train_slope(state.params, logits)
        before = {"params": state.params, "arch": state.arch}
        gradient = {"params": dparams, "arch": jax.tree.map(jnp.zeros_like, state.arch)}
        return optax.apply_updates(before, problem.optimizer.update(gradient, state.opt_state, before)[0])["params"]

    expected = slopes(lambda logits: val_loss(moved(logits), logits)[0], state.arch["normal"])
    assert_near(state.arch["normal"] - after.arch["normal"], expected, 1e-6)
    np.testing.assert_allclose(metrics["val_loss"], val_loss(moved(state.arch["normal"]), state.arch["normal"])[0])
    # The weights then follow where the logits have gone.
    assert_near(after.params, moved(after.arch["normal"]), 1e-10)


def test_the_unrolled_step_is_taken_with_the_ops_that_the_weights_then_see():
    """As the logits stay, the loss after the unrolled step is the loss after the step that is then taken."""
    problems = [
        dataclasses.replace(
            make_problem(method=Method(relaxation=relaxations.Gumbel(), hypergradient=hypergradient)),
            arch_optimizer=optax.set_to_zero(),
        )
        for hypergradient in (Unrolled(1), FirstOrder())
    ]
    for seed in range(4):
        unrolled, plain = (
            state_of(problem, 0, make_logits(3)).replace(key=jax.random.key(seed)) for problem in problems
        )
        after, metrics = jit_step(problems[0], unrolled, make_batch(1), make_batch(2))
        _, expected = jit_step(problems[1], plain.replace(params=after.params), make_batch(1), make_batch(2))
        np.testing.assert_allclose(metrics["val_loss"], expected["val_loss"], rtol=1e-10)


@pytest.mark.parametrize(
    "hypergradient, of_hessian",
    [
        (Neumann(2), lambda h, size: RATE * sum(np.linalg.matrix_power(np.eye(size) - RATE * h, k) for k in range(3))),
        (ConjugateGradient(100, 10.0), lambda h, size: np.linalg.inv(h + 10.0 * np.eye(size))),
    ],
    ids=["Neumann", "conjugate gradients"],
)
def test_an_implicit_step_has_the_derivatives_at_the_weights_after_their_update(hypergradient, of_hessian):
    method = dataclasses.replace(methods.idarts(), hypergradient=hypergradient)
    problem, logits = make_problem(method=method, weights=optax.sgd(RATE)), make_logits(3)
    state = state_of(problem, 0, logits)
    after, metrics = jit_step(problem, state, make_batch(1), make_batch(2))
    dparams = train_slope(state.params, logits)
    params = jax.tree.map(lambda w, g: w - RATE * g, state.params, dparams)
    assert_near(after.params, params, 1e-12)

    unravel = ravel_pytree(params)[1]
    size = flat(params).size

    @jax.jit
    def second(w):
        gradient = jax.grad(lambda w, logits: train_loss(unravel(w), logits), argnums=(0, 1))
        return jax.jacfwd(gradient)(w, logits)

    hessian, mixed = second(flat(params))
    (vector, dlogits), aux = val_slopes(params, logits)
    expected = dlogits - np.asarray(mixed) @ of_hessian(np.asarray(hessian), size) @ flat(vector)
    assert np.linalg.eigvalsh(hessian)[0] > -9
    assert_near(logits - after.arch["normal"], expected, 1e-6)
    assert np.abs(expected - dlogits).max() > 0.1 * np.abs(dlogits).max()
    np.testing.assert_allclose(metrics["val_loss"], aux["value"])


METHODS = {
    "second order": methods.darts(second_order=True),
    "three steps": Method(hypergradient=Unrolled(3)),
    "Neumann": methods.idarts(),
    "conjugate gradients": Method(hypergradient=ConjugateGradient(3, 10.0)),
    "cosine": methods.lambda_darts(strength=0.2),
    "adversarial": methods.sdarts_adv(steps=2),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_step_of_the_parts_of_a_batch_is_that_of_the_batch(method):
    """Each part, with batch normalisation of all, takes the step that one device takes, to what float32 allows."""
    # With a large learning rate, errors of float32 would grow from step to step and from term to term.
    weights, batches = optax.sgd(0.01, momentum=0.9), (make_batch(1, 8), make_batch(2, 8))
    problem = make_problem(Normed(), method, weights)
    state = start(problem, jax.random.key(0), batches[0]["image"]).replace(step=jnp.int32(3))
    expected, _ = jit_step(problem, state, *batches)
    step = functools.partial(search_step, make_problem(Normed(axis_name="data"), method, weights), state)
    found, metrics = jax.jit(jax.vmap(step, axis_name="data"))(*split(batches))
    for name in ("params", "arch"):
        before, after = (flat(getattr(s, name)) for s in (state, expected))
        assert np.abs(after - before).max() > 1e-3
        for part in range(4):
            assert_near(jax.tree.map(lambda a, part=part: a[part], getattr(found, name)), getattr(expected, name), 1e-5)
    assert all(len(set(np.asarray(values).tolist())) == 1 for values in metrics.values())
