"""The bilevel step does what two plain optimizers do in turn, anywhere in JAX."""

import dataclasses
import functools
import logging
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import refused
from trees import arrays, assert_close, assert_identical, differ

from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search import methods, relaxations, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import SearchSpace

SPACE = SearchSpace("small", ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3"), nodes=3)

jit_init = jax.jit(init_search, static_argnums=0)
jit_step = jax.jit(search_step, static_argnums=0)


class Mixer(nn.Module):
    """A user's own supernet: every candidate op of an edge is the tanh of a dense layer.

    Its running statistics are a mean and the op weights of the last pass that moved them.
    """

    space: SearchSpace = SPACE

    @property
    def layers(self):
        return {"normal": 2, "reduce": 1}

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        arch = {t: self.variable("arch", t, jnp.zeros, self.space.shape).value for t in self.layers}
        op_weights = layered(arch) if op_weights is None else op_weights
        edges, ops = self.space.shape
        x = images.reshape(len(images), -1)
        for w in (*op_weights["normal"], *op_weights["reduce"]):
            y = jnp.tanh(nn.Dense(edges * ops * 6)(x)).reshape(len(images), edges, ops, 6)
            x = jnp.einsum("beof,eo->bf", y, w)
        mean = self.variable("batch_stats", "mean", jnp.zeros, 6)
        drawn = self.variable("batch_stats", "drawn", lambda: op_weights)
        if train and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * x.mean(axis=0)
            drawn.value = op_weights
        return nn.Dense(5)(x - mean.value)


def layered(op_weights):
    """The same in each layer of a `Mixer`."""
    return {t: jnp.stack([op_weights[t]] * layers) for t, layers in Mixer().layers.items()}


@dataclasses.dataclass(frozen=True)
class SameDraw(relaxations.HardConcrete):
    """Gates whose draws depend on the progress alone, so that a test need not know the keys of the step."""

    def weigh(self, space, logits, key, progress):
        return super().weigh(space, logits, jax.random.key((1000 * progress).astype(int)), progress)


def drawn_alike(method):
    return dataclasses.replace(method, relaxation=SameDraw(**vars(method.relaxation)))


@functools.cache  # optimizers are equal only to themselves, so an equal problem would be compiled again
def make_problem(method, supernet=Mixer(), total_steps=5) -> SearchProblem:  # noqa: B008
    return SearchProblem(
        supernet=supernet,
        method=method,
        weight_optimizer=optax.chain(
            optax.clip_by_global_norm(0.3),
            optax.add_decayed_weights(0.01),
            optax.sgd(optax.cosine_decay_schedule(0.5, total_steps), momentum=0.9, nesterov=True),
        ),
        arch_optimizer=optax.chain(optax.add_decayed_weights(0.01), optax.adam(0.03, b1=0.5)),
        total_steps=total_steps,
    )


def make_batch(seed, size=4, shape=(8, 8, 1), classes=5):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(size, *shape)).astype(np.float32)
    return jax.device_put({"image": image, "label": rng.integers(0, classes, size).astype(np.int32)})


@jax.jit
def copy(tree):
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def stack(*trees):
    return jax.tree.map(lambda *rows: jnp.stack(rows), *trees)


@jax.jit
def row(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


# What a step computes


def two_updates(problem, order, state, opt_states, train_batch, val_batch):
    """The two updates of Algorithm 1 in turn, each by its own optimizer, as one would write them in a notebook."""
    method, progress = problem.method, jnp.minimum(state["step"] / (problem.total_steps - 1), 1.0)

    def weigh(arch):
        return method.relaxation.weigh(SPACE, arch, jax.random.key(0), progress)

    def predict(params, arch, op_weights, batch):
        variables = {"params": params, "arch": arch, "batch_stats": state["batch_stats"]}
        out, updated = problem.supernet.apply(variables, batch["image"], op_weights, train=True, mutable="batch_stats")
        loss = -jnp.take_along_axis(nn.log_softmax(out), batch["label"][:, None], axis=1).mean()
        return loss, ((out.argmax(1) == batch["label"]).mean(), updated["batch_stats"])

    def train_objective(params, arch):
        loss, (accuracy, batch_stats) = predict(params, arch, layered(weigh(arch)), train_batch)
        return loss, ({"train_loss": loss, "train_accuracy": accuracy}, batch_stats)

    def val_objective(arch, params):
        op_weights = weigh(arch)
        loss, (accuracy, _) = predict(params, arch, layered(op_weights), val_batch)
        view = terms.View(SPACE, arch, method.activation(SPACE, arch, progress), loss)
        added, metrics = terms.total(method.terms, view, op_weights, progress)
        return loss + added, {"val_loss": loss, "val_accuracy": accuracy} | metrics

    def alignment(arch, params):
        """The cosine of the gradients in the weights of the two normal cells."""
        op_weights = layered(weigh(arch))
        gradients = jax.grad(lambda normal: predict(params, arch, op_weights | {"normal": normal}, val_batch)[0])
        a, b = gradients(op_weights["normal"]).reshape(2, -1)
        return a @ b / jnp.sqrt(a @ a) / jnp.sqrt(b @ b)

    params, arch, metrics = state["params"], state["arch"], method.relaxation.metrics(progress)
    for which in order:
        if which == "weights":
            gradient, (found, batch_stats) = jax.grad(train_objective, has_aux=True)(params, arch)
            updates, params_state = problem.weight_optimizer.update(gradient, opt_states["params"], params)
            params = optax.apply_updates(params, updates)
        else:
            metrics["alignment_val"] = alignment(arch, params)
            gradient, found = jax.grad(val_objective, has_aux=True)(arch, params)
            updates, arch_state = problem.arch_optimizer.update(gradient, opt_states["arch"], arch)
            arch = optax.apply_updates(arch, updates)
        metrics |= found
    state = {"step": state["step"] + 1, "params": params, "arch": arch, "batch_stats": batch_stats}
    return state, {"params": params_state, "arch": arch_state}, metrics


LAMBDAS = {"lambda_skip": 1.0, "lambda_nonskip": 2.0, "lambda_path": 3.0}
RELEASED = methods.pr_darts_released(threshold=0.0)


@pytest.mark.parametrize(
    ("method", "order", "names"),
    [
        (
            drawn_alike(methods.pr_darts(**LAMBDAS)),
            ("weights", "logits"),
            {"l_skip", "l_nonskip", "l_path", "temperature"},
        ),
        (drawn_alike(RELEASED), ("weights", "logits"), {"l_skip", "l_nonskip", "l_pool", "l_path", "temperature"}),
        (methods.darts(), ("logits", "weights"), set()),
    ],
    ids=["pr_darts", "pr_darts_released", "darts"],
)
def test_step_equals_two_plain_updates_and_reports_scalars(method, order, names):
    problem = make_problem(method)
    state = jit_init(problem, jax.random.key(1), make_batch(0)["image"])
    expected = {name: getattr(state, name) for name in ("step", "params", "arch", "batch_stats")}
    opt_states = {
        "params": problem.weight_optimizer.init(state.params),
        "arch": problem.arch_optimizer.init(state.arch),
    }
    reference = jax.jit(functools.partial(two_updates, problem, order))
    for i in range(4):
        train_batch, val_batch = make_batch(2 * i), make_batch(2 * i + 1)
        before = state
        state, metrics = jit_step(problem, state, train_batch, val_batch)
        expected, opt_states, expected_metrics = reference(expected, opt_states, train_batch, val_batch)
        tolerance = {"rtol": 1e-4, "atol": 1e-6}
        assert_close({name: getattr(state, name) for name in expected}, expected, **tolerance)
        assert_close(jax.tree.leaves(state.opt_state), jax.tree.leaves(opt_states), **tolerance)
        assert_close(metrics, expected_metrics, **tolerance)
        assert differ(state.params, before.params) and differ(state.arch, before.arch)
        assert_identical(state.key, before.key)
    always = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "alignment_val"}
    assert metrics.keys() == always | names
    assert all(metric.shape == () and metric.dtype == jnp.float32 for metric in metrics.values())


@pytest.mark.parametrize("logits_start", [0.0, 0.4])
def test_two_half_updates_are_one_update_of_both_gradients(logits_start):
    problem, rng = make_problem(Method(logits_start=logits_start)), np.random.default_rng(0)
    variables = {"params": {"kernel": jnp.ones((6, 5)), "bias": jnp.zeros(5)}, "arch": {"normal": jnp.zeros((2, 3))}}
    opt_state = problem.optimizer.init(variables)
    variables["arch"]["normal"] = variables["arch"]["normal"].at[1, 2].set(-jnp.inf)  # that op is no candidate

    @jax.jit
    def updates(gradients, variables, opt_state):
        seen = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0.0), variables)
        moves, state = problem.optimizer.update(gradients, opt_state, seen)
        at_once, in_turn = (optax.apply_updates(variables, moves), state), []
        for first, second in (("params", "arch"), ("arch", "params")):
            moved, state = problem.update(first, gradients[first], variables, opt_state)
            assert moved[second] is variables[second]
            assert state.inner_states[second] is opt_state.inner_states[second]
            in_turn.append(problem.update(second, gradients[second], moved, state))
        return at_once, in_turn

    for _ in range(4):
        gradients = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), variables)
        before, (expected, in_turn) = variables, updates(gradients, variables, opt_state)
        for found in in_turn:
            assert_close(found, expected, rtol=1e-6)
        variables, opt_state = expected
    assert all(differ(before[name], variables[name]) for name in before)
    assert [tuple(place) for place in np.argwhere(~np.isfinite(variables["arch"]["normal"]))] == [(1, 2)]


def report_draw(view, op_weights, progress):
    """A term of no value whose metrics are the op weights, one by one."""
    return 0.0, {f"{t} {place}": w[place] for t, w in op_weights.items() for place in np.ndindex(w.shape)}


def test_every_update_and_step_has_its_own_draw():
    problem = make_problem(dataclasses.replace(methods.pr_darts(), terms=(report_draw,)), total_steps=100)
    state = jit_init(problem, jax.random.key(0), make_batch(0)["image"])
    train_batch, val_batch, chosen = make_batch(0), make_batch(1), []

    @jax.jit
    def val_loss(before, params, drawn):
        variables = {"params": params, "arch": before.arch, "batch_stats": before.batch_stats}
        out, _ = problem.supernet.apply(
            variables, val_batch["image"], layered(drawn), train=True, mutable="batch_stats"
        )
        return -jnp.take_along_axis(nn.log_softmax(out), val_batch["label"][:, None], axis=1).mean()

    for _ in range(3):
        before = state
        state, metrics = jit_step(problem, state, train_batch, val_batch)
        of_weights = jax.tree.map(lambda w: w[0], state.batch_stats["drawn"])
        of_logits = {
            t: jnp.array([metrics[f"{t} {place}"] for place in np.ndindex(w.shape)]).reshape(w.shape)
            for t, w in of_weights.items()
        }
        np.testing.assert_allclose(metrics["val_loss"], val_loss(before, state.params, of_logits), rtol=1e-5)
        for draw in (of_weights, of_logits):
            # At the high temperature of the start no gate is clipped to 0, so the two ops of every edge show.
            chosen += [tuple(map(tuple, (np.asarray(draw[t]) != 0).tolist())) for t in ("normal", "reduce")]
    assert all(sum(edge) == 2 for cell in chosen for edge in cell)
    updates = list(zip(chosen[::2], chosen[1::2], strict=True))
    assert len(set(updates)) == 6 and len({normal for normal, _ in updates}) > 1
    assert any(normal != reduce for normal, reduce in updates)
    assert_identical(jit_step(problem, before, train_batch, val_batch)[0], state)
    other = before.replace(key=jax.random.key(7))
    drawn_otherwise = jit_step(problem, other, train_batch, val_batch)[0].batch_stats["drawn"]
    assert differ(drawn_otherwise, state.batch_stats["drawn"])


def test_progress_runs_from_0_to_1():
    def found(total_steps, *steps):
        problem = make_problem(methods.pr_darts(), total_steps=total_steps)
        return [float(problem.progress(jnp.int32(step))) for step in steps]

    assert found(5, *range(7)) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert found(39_000, 0, 38_999, 39_000) == found(2, 0, 1, 2) == [0.0, 1.0, 1.0]
    assert found(1, 0, 1) == [0.0, 1.0]


# The supernet of the package, in a step


@pytest.fixture(scope="module")
def real():
    """A problem with the supernet of the package, its state at the start and two batches."""
    supernet = Supernet(space=SPACE, channels=2, cells=1, num_classes=5)
    problem = make_problem(methods.pr_darts_released(), supernet, total_steps=100)
    return problem, jit_init(problem, jax.random.key(0), make_batch(0)["image"]), make_batch(0), make_batch(1)


@pytest.fixture(scope="module")
def donating_step():
    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    step.clear_cache()  # which it shares with equal ones of other files
    return step


def test_donated_state_is_consumed(real, donating_step):
    problem, state, train_batch, val_batch = real
    given = copy(state)
    after, _ = donating_step(problem, given, train_batch, val_batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype) == (now.shape, now.dtype)
    assert int(after.step) == 1


def test_twenty_steps_compile_once_and_stay_on_the_device(real, donating_step, caplog):
    problem, state, train_batch, val_batch = real
    state, _ = donating_step(problem, copy(state), train_batch, val_batch)
    compiled = donating_step._cache_size()
    with jax.log_compiles(), jax.transfer_guard("disallow"), caplog.at_level(logging.DEBUG, logger="jax"):
        for _ in range(20):
            state, metrics = donating_step(problem, state, train_batch, val_batch)
        jax.block_until_ready((state, metrics))
    assert donating_step._cache_size() == compiled == 1
    assert not [record for record in caplog.records if "ompiling" in record.getMessage()]
    assert int(state.step) == 21
    assert all(np.isfinite(leaf).all() for leaf in arrays((state, metrics)))


def test_compiled_step_never_talks_to_the_host(real, donating_step):
    problem, state, train_batch, val_batch = real
    text = donating_step.lower(problem, state, train_batch, val_batch).as_text()
    assert "stablehlo.while" in text
    assert not re.search(r"callback|outfeed|infeed|stablehlo\.(send|recv)", text)


def test_only_the_weight_update_moves_running_statistics(real, donating_step):
    problem, state, train_batch, val_batch = real
    after = {
        (a, b): donating_step(problem, copy(state), make_batch(a), make_batch(b))[0]
        for a, b in [(0, 1), (0, 2), (3, 1)]
    }
    assert_identical(after[0, 1].batch_stats, after[0, 2].batch_stats)
    assert_identical(after[0, 1].params, after[0, 2].params)
    assert differ(after[0, 1].arch, after[0, 2].arch)
    assert differ(after[0, 1].batch_stats, after[3, 1].batch_stats)
    assert differ(after[0, 1].batch_stats, state.batch_stats)


# In other JAX code


def check_vmap(problem, single_step, train_batch, val_batch, steps, **tolerance):
    """Several searches at once, of different keys, are what each would be alone."""
    keys = jax.random.split(jax.random.key(3), 3)
    alone = [jit_init(problem, key, train_batch["image"]) for key in keys]
    states = stack(*alone)
    step = jax.jit(jax.vmap(functools.partial(search_step, problem), in_axes=(0, None, None)))
    for _ in range(steps):
        states, metrics = step(states, train_batch, val_batch)
        alone, alone_metrics = zip(*[single_step(problem, s, train_batch, val_batch) for s in alone], strict=True)
    for i in range(len(keys)):
        assert_close(row((states, metrics), i), (alone[i], alone_metrics[i]), **tolerance)
    assert differ(alone[0].params, alone[1].params)


def test_vmap_over_keys_with_a_users_supernet():
    check_vmap(make_problem(methods.pr_darts()), jit_step, make_batch(0), make_batch(1), steps=3, rtol=1e-4, atol=1e-6)


def test_vmapped_start_is_that_of_each_key():
    problem, images = make_problem(methods.pr_darts()), make_batch(0)["image"]
    keys = jax.random.split(jax.random.key(3), 2)
    states = jax.jit(jax.vmap(functools.partial(init_search, problem), in_axes=(0, None)))(keys, images)
    for i, key in enumerate(keys):
        assert_close(row(states, i), jit_init(problem, key, images), rtol=1e-5, atol=1e-6)


def test_vmap_over_keys_with_the_supernet(real, donating_step):
    problem, _, train_batch, val_batch = real
    check_vmap(problem, donating_step, train_batch, val_batch, steps=2, rtol=1e-3, atol=1e-5)


def test_scan_equals_single_steps():
    problem = make_problem(methods.pr_darts())
    start = jit_init(problem, jax.random.key(0), make_batch(0)["image"])
    batches = [(make_batch(2 * i), make_batch(2 * i + 1)) for i in range(3)]
    stacked = stack(*batches)
    scanned, history = jax.jit(lambda s: jax.lax.scan(lambda s, b: search_step(problem, s, *b), s, stacked))(start)
    state, losses = start, []
    for train_batch, val_batch in batches:
        state, metrics = jit_step(problem, state, train_batch, val_batch)
        losses.append(metrics["val_loss"])
    assert_close(scanned, state, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history["val_loss"], losses, rtol=1e-4)


@pytest.mark.parametrize("name", ["temperature", "val_loss", "alignment_val", "train_accuracy"])
def test_a_term_may_not_hide_what_the_step_reports(name):
    terms = (lambda *_: (0.0, {name: jnp.float32(1)}),)
    problem = make_problem(dataclasses.replace(methods.pr_darts(), terms=terms))
    state = jax.eval_shape(functools.partial(init_search, problem), jax.random.key(0), make_batch(0)["image"])
    with refused(f"terms must report metrics of different names, but {name} comes twice"):
        jax.eval_shape(functools.partial(search_step, problem), state, make_batch(0), make_batch(1))
