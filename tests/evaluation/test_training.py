"""Training steps against the formulas written out, epochs in parts, and the test's counts."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import CELL

from prdarts_jax import ops
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete
from prdarts_jax.nets.supernet import BatchNorm

CLASSES = 4
AUGMENTATION = Augmentation(mean=(0.4,), std=(0.2,), pad=1, flip=True, cutout=2)


class Stub(nn.Module):
    """The least that a training can train: one layer, one normalisation, an auxiliary head, drop-path on the input."""

    normalise: bool = True

    @nn.compact
    def __call__(self, images, *, train, drop_path=0.0):
        x = images.reshape(len(images), 1, 1, -1)
        if train and self.has_rng("drop_path"):
            x = x * ops.drop_path_factors(self.make_rng("drop_path"), drop_path, (len(x), 1, 1, 1))
        normed = BatchNorm(running_statistics=True, axis_name=None)(x, train=train)
        features = (normed if self.normalise else x)[:, 0, 0]
        if train:
            self.sow("auxiliary", "logits", nn.Dense(CLASSES, name="head")(features), reduce_fn=lambda _, new: new)
        elif self.is_initializing():
            raise AssertionError("initialise in training")
        return nn.Dense(CLASSES, name="classifier")(features)


def problem(optimizer=None, normalise=True, **fields):
    return training.TrainProblem(Stub(normalise), optimizer or optax.sgd(1.0), total_steps=40, **fields)


def batch(seed=0, count=6):
    keys = jax.random.split(jax.random.key(seed))
    labels = jax.random.randint(keys[1], (count,), 0, CLASSES)
    return {"image": jax.random.normal(keys[0], (count, 3, 3, 1)), "label": labels}


def start(chosen, count=6):
    variables = jax.jit(functools.partial(chosen.network.init, train=True))(jax.random.key(6), batch()["image"])
    return training.init_training(chosen, jax.random.key(7), variables)


step = jax.jit(training.train_step, static_argnums=0)


@pytest.mark.parametrize(
    "label, said",
    [
        (jnp.zeros((6, 1), jnp.int32), r"batch=.*'label': int32\[6, 1\].* must have a 'label' of 6 integers"),
        (jnp.zeros(1, jnp.int32), "must have a 'label' of 6 integers"),
        (jnp.zeros(6), "must have a 'label' of 6 integers"),
        (None, "must have a 'label' of 6 integers"),
    ],
    ids=["column", "one", "floats", "none"],
)
def test_labels_of_another_form_are_refused(label, said):
    state = start(problem())
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(functools.partial(training.train_step, problem()), state, batch() | {"label": label})


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_makes_the_loss_nan(label):
    wrong = batch()
    wrong["label"] = wrong["label"].at[2].set(label)
    assert np.isnan(step(problem(), start(problem()), wrong)[1]["train_loss"])


def test_fields_of_a_training_are_checked():
    for field, value in {
        "total_steps": -1,
        "optimizer": 0.1,
        "drop_path": 1.0,
        "ema": -0.1,
        "label_smoothing": 2.0,
    }.items():
        with pytest.raises(ValueError, match=f"^{field}={value} must be "):
            dataclasses.replace(problem(), **{field: value})


def test_a_step_follows_the_smoothed_loss_and_the_auxiliary_head():
    chosen, b = problem(auxiliary_weight=0.4, label_smoothing=0.1), batch()
    before = start(chosen)
    after, metrics = step(chosen, before, b)

    def loss(params):
        x = b["image"].reshape(6, -1)
        terms = params["BatchNorm_0"]
        x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) * terms["scale"] + terms["bias"]
        result = []
        for head in ("classifier", "head"):
            logits = x @ params[head]["kernel"] + params[head]["bias"]
            log_p = logits - jnp.log(jnp.exp(logits).sum(1, keepdims=True))
            target = 0.9 * jnp.eye(CLASSES)[b["label"]] + 0.1 / CLASSES
            result.append(-(target * log_p).sum(1).mean())
        return result[0] + 0.4 * result[1], result[0]

    gradient, plain = jax.jit(jax.grad(loss, has_aux=True))(before.params)
    np.testing.assert_allclose(metrics["train_loss"], plain, rtol=1e-5)
    moved = jax.tree.map(np.subtract, before.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), moved, gradient)
    assert int(after.step) == 1
    assert np.abs(after.batch_stats["BatchNorm_0"]["moments"]["mean"]).max() > 0


def test_drop_path_grows_linearly_with_the_steps():
    class Telling(nn.Module):
        """A network whose statistics are the probability it is given."""

        @nn.compact
        def __call__(self, images, *, train, drop_path=0.0):
            told = self.variable("batch_stats", "told", jnp.zeros, ())
            told.value = jnp.where(self.has_rng("drop_path"), drop_path, -1.0)
            return nn.Dense(CLASSES)(images[:, 0, :, 0])

    chosen = training.TrainProblem(Telling(), optax.sgd(0.1), total_steps=40, drop_path=0.8)
    state = start(chosen)
    for number in (0, 1, 39):
        after, _ = step(chosen, state.replace(step=jnp.int32(number)), batch())
        np.testing.assert_allclose(after.batch_stats["told"], 0.8 * number / 40, rtol=1e-6)
    without = dataclasses.replace(chosen, drop_path=0.0)
    assert step(without, state, batch())[0].batch_stats["told"] == -1


def test_the_running_mean_of_weights():
    chosen, plain = problem(optax.sgd(0.1), ema=0.9), problem(optax.sgd(0.1))
    state = start(chosen)
    expected = np.asarray(state.params["classifier"]["kernel"])
    for number in range(4):
        state, _ = step(chosen, state, batch(number))
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["classifier"]["kernel"])
    np.testing.assert_allclose(state.averaged["params"]["classifier"]["kernel"], expected, rtol=1e-5)
    assert state.variables["params"] is state.averaged["params"] and state.variables.keys() == {"params", "batch_stats"}
    unaveraged = start(plain)
    assert unaveraged.averaged == {} and unaveraged.variables["params"] is unaveraged.params


def test_pieces_of_a_batch_add_up_to_it():
    """Without normalisation by the batch, two pieces of three images move the weights as the six do."""
    whole = problem(optax.sgd(0.1, momentum=0.9), normalise=False)
    pieces = problem(optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation(), normalise=False)
    a, b = start(whole), start(pieces)
    for number in range(2):
        six = batch(number)
        a, _ = step(whole, a, six)
        for part in (slice(0, 3), slice(3, 6)):
            b, _ = step(pieces, b, {name: array[part] for name, array in six.items()})
    np.testing.assert_allclose(a.params["classifier"]["kernel"], b.params["classifier"]["kernel"], rtol=1e-5)


@functools.cache
def pixels(count=26):
    keys = jax.random.split(jax.random.key(9))
    images = jax.random.randint(keys[0], (count, 3, 3, 1), 0, 256).astype(jnp.uint8)
    return {"image": images, "label": jax.random.randint(keys[1], (count,), 0, CLASSES)}


def test_an_epoch_may_be_run_in_parts():
    chosen = problem(optax.sgd(0.1), drop_path=0.2)
    run = jax.jit(training.train_epoch, static_argnums=(0, 3, 4))
    at_once, means = run(chosen, start(chosen), pixels(), AUGMENTATION, 6)
    state, losses = start(chosen), []
    for steps in (1, 2, 1):
        state, metrics = run(chosen, state, pixels(), AUGMENTATION, 6, jnp.int32(steps))
        losses += steps * [float(metrics["train_loss"])]
    assert int(state.step) == 4
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, s.params) for s in (state, at_once)))
    np.testing.assert_allclose(np.mean(losses), means["train_loss"], rtol=1e-5)


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own():
    """Every image is of one grey, its number; a network that only notes what it sees counts them in its statistics."""

    class Spy(Stub):
        @nn.compact
        def __call__(self, images, *, train, drop_path=0.0):
            super().__call__(images, train=train)
            seen = self.variable("batch_stats", "seen", lambda: jnp.zeros((2, 24)))
            if not self.is_initializing():
                number = jnp.int32(jnp.round(images[:, 0, 0, 0] * 255))
                epoch = jnp.int32(seen.value.sum() >= 24)
                seen.value = seen.value.at[epoch, number].add(1 + jnp.arange(len(images)) * 0)
            return nn.Dense(CLASSES)(images[:, 0, 0])

    plain = Augmentation(mean=(0.0,), std=(1.0,), pad=0, flip=False)
    chosen = training.TrainProblem(Spy(), optax.sgd(0.0), total_steps=8)
    images = jnp.broadcast_to(jnp.arange(24, dtype=jnp.uint8)[:, None, None, None], (24, 3, 3, 1))
    source = {"image": images, "label": jnp.zeros(24, jnp.int32)}
    run = jax.jit(training.train_epoch, static_argnums=(0, 3, 4))
    state, _ = run(chosen, start(chosen), source, plain, 6)
    state, _ = run(chosen, state, source, plain, 6)
    np.testing.assert_array_equal(state.batch_stats["seen"], np.ones((2, 24)))


class Given(nn.Module):
    """Logits that the image holds."""

    @nn.compact
    def __call__(self, images, *, train):
        return images[:, 0, :, 0]


def test_the_counts_of_a_test_are_those_of_numpy():
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (50, 1, 9, 1)).astype(np.uint8), rng.integers(0, 8, 50).astype(np.int32)
    label[45:] = -1
    plain = Augmentation(mean=(0.3,), std=(0.2,), pad=4, flip=True, cutout=1)  # only normalising may count
    run = jax.jit(training.test_step, static_argnums=(0, 1))
    parts = [
        run(Given(), plain, {}, {"image": image[i : i + 10], "label": label[i : i + 10]}) for i in range(0, 50, 10)
    ]
    found = training.summarize(jax.device_get(jax.tree.map(lambda *values: sum(values), *parts)))
    logits, label = (image[:45, 0, :, 0] / 255.0 - 0.3) / 0.2, label[:45]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    order = np.argsort(-logits, axis=1, kind="stable")
    assert found["images"] == 45
    np.testing.assert_allclose(found["loss"], -log_p[np.arange(45), label].mean(), rtol=1e-5)
    assert found["top1"] == np.mean(order[:, 0] == label)
    assert found["top5"] == np.mean((order[:, :5] == label[:, None]).any(1))
    for k in range(8):
        assert found["per_class"][k] == pytest.approx(np.mean(order[label == k, 0] == k))
        assert found["confusion"][k] == np.bincount(order[label == k, 0], minlength=9).tolist()
    assert found["per_class"][8] is None  # no image has that label


@functools.cache
def small():
    network = discrete.network(CELL, channels=4, cells=2, num_classes=CLASSES)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, 30), momentum=0.9)
    return training.TrainProblem(network, optimizer, total_steps=30)


def test_a_network_learns_and_what_is_exported_gives_its_logits():
    chosen, count = small(), 16
    variables = discrete.init_variables(chosen.network, jax.random.key(3), (count, 8, 8, 1))
    state = training.init_training(chosen, jax.random.key(0), variables)
    source = jax.random.randint(jax.random.key(1), (count, 8, 8, 1), 0, 256).astype(jnp.uint8)
    plain = dataclasses.replace(AUGMENTATION, pad=0, flip=False, cutout=0)
    labelled = {"image": source, "label": jnp.arange(count) % CLASSES}
    run = jax.jit(training.train_epoch, static_argnums=(0, 3, 4))
    losses = []
    for _ in range(30):
        state, metrics = run(chosen, state, labelled, plain, count)
        losses.append(float(metrics["train_loss"]))
    assert losses[-1] < 0.2 * losses[0]
    exported = training.export_classifier(chosen.network, plain, state.variables, (8, 8, 1))
    assert isinstance(exported, bytes)
    loaded = jax.export.deserialize(bytearray(exported))
    assert set(loaded.platforms) == {"cpu", "cuda", "tpu"}
    classify = jax.jit(training.classify, static_argnums=(0, 1))
    for size in (1, 5, 16):
        expected = classify(chosen.network, plain, state.variables, source[:size])
        np.testing.assert_allclose(loaded.call(source[:size]), expected, rtol=1e-5, atol=1e-5)
