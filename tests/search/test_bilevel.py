"""The bilevel step does what two plain optimizers do in turn, anywhere in JAX; an epoch of it uses every image once."""

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

from prdarts_jax import spaces
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search.methods import Darts, PRDarts
from prdarts_jax.search.step import SearchProblem, init_search, search_epoch, search_step

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SPACE = spaces.SearchSpace("small", ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3"), nodes=3)
AS_IT_IS = Augmentation(mean=(0.0,), std=(1.0,), pad=0, flip=False)

jit_init = jax.jit(init_search, static_argnums=0)
jit_step = jax.jit(search_step, static_argnums=0)
jit_epoch = jax.jit(search_epoch, static_argnums=(0, 4, 5))


class Mixer(nn.Module):
    """A user's own supernet: every candidate op of an edge is the tanh of a dense layer. Keeps a running mean."""

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        arch = {t: self.variable("arch", t, jnp.zeros, SPACE.shape).value for t in ("normal", "reduce")}
        op_weights = arch if op_weights is None else op_weights
        edges, ops = SPACE.shape
        x = images.reshape(len(images), -1)
        for cell_type in ("normal", "reduce"):
            y = jnp.tanh(nn.Dense(edges * ops * 6)(x)).reshape(len(images), edges, ops, 6)
            x = jnp.einsum("beof,eo->bf", y, op_weights[cell_type])
        running = self.variable("batch_stats", "mean", jnp.zeros, 6)
        if train and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            running.value = 0.9 * running.value + 0.1 * x.mean(axis=0)
        return nn.Dense(5)(x - running.value)


class Draws(nn.Module):
    """A supernet whose running statistics are the op weights of the last weight update."""

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        arch = {t: self.variable("arch", t, jnp.zeros, SPACE.shape).value for t in ("normal", "reduce")}
        drawn = self.variable("batch_stats", "drawn", lambda: arch)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            drawn.value = op_weights
        return nn.Dense(5)(images.reshape(len(images), -1))


class Telltale(nn.Module):
    """A supernet whose loss tells which images were in the batch: 2^i / 256 for an image of pixels i (label 0)."""

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        for t in ("normal", "reduce"):
            self.variable("arch", t, jnp.zeros, SPACE.shape)
        unused = self.param("unused", nn.initializers.zeros, ())
        index = jnp.round(255 * images[:, 0, 0, 0])
        loss = jnp.exp2(index) / 256
        return jnp.stack([jnp.zeros_like(loss) + 0 * unused, jnp.log(jnp.expm1(loss))], axis=1)


@dataclasses.dataclass(frozen=True)
class SameDraw(PRDarts):
    """PR-DARTS whose draws depend on the progress alone, so that a test need not know the keys of the step."""

    def weigh(self, logits, key, progress):
        return super().weigh(logits, jax.random.key((1000 * progress).astype(int)), progress)


@dataclasses.dataclass(frozen=True)
class Reporting(PRDarts):
    """PR-DARTS whose metrics are the op weights of the update of the logits."""

    def objective(self, val_loss, logits, op_weights, progress):
        return val_loss, op_weights


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


def make_bytes(seed, size):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, 8, 8, 1)).astype(np.uint8)
    return jax.device_put({"image": image, "label": rng.integers(0, 5, size).astype(np.int32)})


@jax.jit
def copy(tree):
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def stack(*trees):
    return jax.tree.map(lambda *rows: jnp.stack(rows), *trees)


@jax.jit
def row(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def arrays(tree):
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in tree]


def assert_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(arrays(jax.tree.leaves(found)), arrays(jax.tree.leaves(expected)), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def assert_identical(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(arrays(jax.tree.leaves(found)), arrays(jax.tree.leaves(expected)), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def differ(a, b):
    return any((x != y).any() for x, y in zip(arrays(jax.tree.leaves(a)), arrays(jax.tree.leaves(b)), strict=True))


# What a step computes


def two_updates(problem, order, state, opt_states, train_batch, val_batch):
    """The two updates of Algorithm 1 in turn, each by its own optimizer, as one would write them in a notebook."""
    progress = jnp.minimum(state["step"] / (problem.total_steps - 1), 1.0)

    def predict(params, arch, batch):
        op_weights = problem.method.weigh(arch, jax.random.key(0), progress)
        variables = {"params": params, "arch": arch, "batch_stats": state["batch_stats"]}
        out, updated = problem.supernet.apply(variables, batch["image"], op_weights, train=True, mutable="batch_stats")
        loss = -jnp.take_along_axis(nn.log_softmax(out), batch["label"][:, None], axis=1).mean()
        return loss, (out.argmax(1) == batch["label"]).mean(), op_weights, updated["batch_stats"]

    def train_objective(params, arch):
        loss, accuracy, _, batch_stats = predict(params, arch, train_batch)
        return loss, ({"train_loss": loss, "train_accuracy": accuracy}, batch_stats)

    def val_objective(arch, params):
        loss, accuracy, op_weights, _ = predict(params, arch, val_batch)
        total, metrics = problem.method.objective(loss, arch, op_weights, progress)
        return total, {"val_loss": loss, "val_accuracy": accuracy} | metrics

    params, arch, metrics = state["params"], state["arch"], {}
    for which in order:
        if which == "weights":
            gradient, (found, batch_stats) = jax.grad(train_objective, has_aux=True)(params, arch)
            updates, params_state = problem.weight_optimizer.update(gradient, opt_states["params"], params)
            params = optax.apply_updates(params, updates)
        else:
            gradient, found = jax.grad(val_objective, has_aux=True)(arch, params)
            updates, arch_state = problem.arch_optimizer.update(gradient, opt_states["arch"], arch)
            arch = optax.apply_updates(arch, updates)
        metrics |= found
    state = {"step": state["step"] + 1, "params": params, "arch": arch, "batch_stats": batch_stats}
    return state, {"params": params_state, "arch": arch_state}, metrics


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (SameDraw(space=SPACE, lambda_skip=1.0, lambda_nonskip=2.0, lambda_path=3.0), ("weights", "logits")),
        (SameDraw(form="released", space=SPACE, start_temperature=1.0, threshold=0.0), ("weights", "logits")),
        (Darts(), ("logits", "weights")),
    ],
    ids=["pr_darts", "pr_darts_released", "darts"],
)
def test_step_equals_two_plain_updates(method, order):
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


def test_every_update_and_step_has_its_own_draw():
    problem = make_problem(Reporting(space=SPACE), Draws(), total_steps=100)
    state = jit_init(problem, jax.random.key(0), make_batch(0)["image"])
    chosen = []
    for _ in range(3):
        before = state
        state, metrics = jit_step(problem, state, make_batch(0), make_batch(1))
        for draw in (state.batch_stats["drawn"], {t: metrics[t] for t in ("normal", "reduce")}):
            # At the high temperature of the start no gate is clipped to 0, so the two ops of every edge show.
            chosen += [tuple(map(tuple, (np.asarray(draw[t]) != 0).tolist())) for t in ("normal", "reduce")]
    assert all(sum(edge) == 2 for cell in chosen for edge in cell)
    updates = list(zip(chosen[::2], chosen[1::2], strict=True))
    assert len(set(updates)) == 6 and len({normal for normal, _ in updates}) > 1
    assert any(normal != reduce for normal, reduce in updates)
    assert_identical(jit_step(problem, before, make_batch(0), make_batch(1))[0], state)
    other = before.replace(key=jax.random.key(7))
    assert differ(jit_step(problem, other, make_batch(0), make_batch(1))[0].batch_stats, state.batch_stats)


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (Darts(), set()),
        (PRDarts(space=SPACE), {"l_skip", "l_nonskip", "l_path", "temperature"}),
        (PRDarts("released", space=SPACE), {"l_skip", "l_nonskip", "l_pool", "l_path", "temperature"}),
    ],
    ids=["darts", "paper", "released"],
)
def test_metrics_are_named_scalars(method, names):
    problem = make_problem(method)
    state = jax.eval_shape(functools.partial(init_search, problem), jax.random.key(0), make_batch(0)["image"])
    _, metrics = jax.eval_shape(functools.partial(search_step, problem), state, make_batch(0), make_batch(1))
    assert metrics.keys() == {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} | names
    assert all(metric.shape == () and metric.dtype == jnp.float32 for metric in metrics.values())


def test_progress_runs_from_0_to_1():
    problem = make_problem(PRDarts(space=SPACE), total_steps=5)
    found = [float(problem.progress(jnp.int32(step))) for step in range(7)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    only_one = dataclasses.replace(problem, total_steps=1)
    assert float(only_one.progress(jnp.int32(0))) == 0.0


# The supernet of the package, in a step


@pytest.fixture(scope="module")
def real():
    """A problem with the supernet of the package, its state at the start and two batches."""
    problem = make_problem(
        PRDarts("released", space=SPACE, start_temperature=1.0),
        Supernet(space=SPACE, channels=2, cells=3, num_classes=5),
        total_steps=100,
    )
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
    assert all(np.isfinite(leaf).all() for leaf in arrays(jax.tree.leaves((state, metrics))))


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
    problem = make_problem(PRDarts(space=SPACE))
    check_vmap(problem, jit_step, make_batch(0), make_batch(1), steps=3, rtol=1e-4, atol=1e-6)


def test_vmapped_start_is_that_of_each_key():
    problem, images = make_problem(PRDarts(space=SPACE)), make_batch(0)["image"]
    keys = jax.random.split(jax.random.key(3), 2)
    states = jax.jit(jax.vmap(functools.partial(init_search, problem), in_axes=(0, None)))(keys, images)
    for i, key in enumerate(keys):
        assert_close(row(states, i), jit_init(problem, key, images), rtol=1e-5, atol=1e-6)


def test_vmap_over_keys_with_the_supernet(real, donating_step):
    problem, _, train_batch, val_batch = real
    check_vmap(problem, donating_step, train_batch, val_batch, steps=2, rtol=1e-3, atol=1e-5)


def test_scan_equals_single_steps():
    problem = make_problem(PRDarts(space=SPACE))
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


# An epoch


def run_parts(problem, state, parts, batch_size, augmentation=AS_IT_IS, data=None):
    """The state after parts of so many steps, and the metrics of each part."""
    found = []
    for steps in parts:
        state, metrics = jit_epoch(problem, state, *data, augmentation, batch_size, jnp.int32(steps))
        found.append(metrics)
    return state, found


def test_parts_of_an_epoch_are_the_epoch():
    problem = make_problem(PRDarts(space=SPACE))
    data = (make_bytes(1, size=22), make_bytes(2, size=22))
    augmentation = Augmentation(mean=(0.5,), std=(0.2,), pad=1, flip=True, cutout=2)
    start = jit_init(problem, jax.random.key(0), make_batch(0)["image"])
    run = functools.partial(run_parts, problem, batch_size=4, augmentation=augmentation, data=data)
    whole, (mean,) = run(start, [5])
    assert int(whole.step) == 5
    assert_identical(run(start, [3, 2])[0], whole)
    singly, metrics = run(start, [1] * 5)
    assert_identical(singly, whole)
    for name in mean:
        np.testing.assert_allclose(mean[name], np.mean([m[name] for m in metrics]), rtol=1e-5)
    assert len({float(m["train_loss"]) for m in metrics}) == 5


def telltale_problem():
    frozen = optax.set_to_zero()
    return SearchProblem(Telltale(), Darts(), frozen, frozen, total_steps=20)


def telltale_data(pixels):
    """Images of 4x4 equal pixels."""
    image = jnp.broadcast_to(jnp.array(pixels, jnp.uint8)[:, None, None, None], (len(pixels), 4, 4, 1))
    return {"image": image, "label": jnp.zeros(len(pixels), jnp.int32)}


def test_every_batch_is_augmented_anew():
    problem, data = telltale_problem(), telltale_data([3] * 6)
    state = jit_init(problem, jax.random.key(0), jnp.zeros((6, 4, 4, 1)))
    crop = Augmentation(mean=(0.0,), std=(1.0,), pad=2, flip=False)
    # The images are the same and all in the batch, so only how many crops have a black corner tells the batches apart.
    _, metrics = run_parts(problem, state, [1] * 10, 6, crop, (data, data))
    train, val = ([float(m[name]) for m in metrics] for name in ("train_loss", "val_loss"))
    assert len(set(train)) > 2 and len(set(val)) > 2 and train != val


@pytest.fixture(scope="module")
def orders():
    """For two keys, [half][epoch][step] -> indices of the images in the batch, told by the losses of `Telltale`."""
    images, size, epochs = 14, 3, 3
    steps = images // size
    problem, data = telltale_problem(), telltale_data(range(images))

    def told(loss):
        mask = round(float(loss) * size * 256)
        assert abs(float(loss) * size * 256 - mask) < 0.2
        return [i for i in range(images) if mask >> i & 1]

    found = []
    for seed in (0, 1):
        state = jit_init(problem, jax.random.key(seed), jnp.zeros((size, 4, 4, 1)))
        _, metrics = run_parts(problem, state, [1] * epochs * steps, size, data=(data, data))
        found.append(
            {
                half: [[told(metrics[epoch * steps + step][half]) for step in range(steps)] for epoch in range(epochs)]
                for half in ("train_loss", "val_loss")
            }
        )
    return found


def test_epoch_uses_every_image_at_most_once(orders):
    for by_half in orders:
        for epochs in by_half.values():
            for batches in epochs:
                assert [len(batch) for batch in batches] == [3, 3, 3, 3]
                assert len({index for batch in batches for index in batch}) == 12  # of 14: two are left over


def test_orders_differ_between_epochs_halves_and_keys(orders):
    seen = [batches for by_half in orders for epochs in by_half.values() for batches in epochs]
    assert len(seen) == 2 * 2 * 3
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])


def test_epoch_of_all_images_leaves_none_out():
    problem, data = telltale_problem(), telltale_data(range(6))
    state = jit_init(problem, jax.random.key(0), jnp.zeros((2, 4, 4, 1)))
    state, metrics = jit_epoch(problem, state, data, data, AS_IT_IS, 2)
    assert int(state.step) == 3
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(metrics[name], (2**6 - 1) / 256 / 6, rtol=1e-5)
