"""Pure functions that train a discrete network from scratch and test it.

    step = jax.jit(train_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, batch)

`train_step` takes augmented images, f32; `train_epoch` and the functions of the test take images as bytes, u8.
"""

import dataclasses
import enum
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import export

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.data.epochs import Batch, Metrics, key_for, run_epoch
from prdarts_jax.fields import at_least, below, checked, from_to
from prdarts_jax.search.problem import check_batch, check_labels, check_optimizer

Variables = dict[str, Any]


class Purpose(enum.IntEnum):
    """What a training draws random numbers for; see `key_for`."""

    DROP_PATH = 0
    ORDER = 1  # of the images of an epoch
    AUGMENTATION = 2
    DRAWS = 3  # of ops that draw


@checked
@dataclasses.dataclass(frozen=True)
class TrainProblem:
    """What stays the same during a training. It is hashable and a static argument.

    Attributes:
      network: a Flax module that is called as `discrete.DiscreteNetwork` is. If its `axis_name` is not None, a training
        must run under a mapped axis of that name (`jax.shard_map`), and each device has its part of a batch.
      optimizer: the optax optimizer of the weights.
      total_steps: number of steps of the whole training; 0 if the network is only tested.
      drop_path: probability of drop-path at the end of the training; it grows linearly from 0 at the start.
      auxiliary_weight: factor of the auxiliary head's loss.
      label_smoothing: the fraction of a label that is spread equally over all classes, its own included.
      ema: decay per step of the exponential moving average of weights and running statistics. The decay used is the
        smaller one of `ema` and (1 + step) / (10 + step). With 0 no average is kept.

    Raises:
      ValueError: a field is of another type or out of range.
    """

    network: nn.Module
    optimizer: Any
    total_steps: Annotated[int, at_least(0)]
    drop_path: Annotated[float, below(1)] = 0.0
    auxiliary_weight: Annotated[float, at_least(0)] = 0.0
    label_smoothing: Annotated[float, from_to(0, 1)] = 0.0
    ema: Annotated[float, below(1)] = 0.0

    def __post_init__(self) -> None:
        check_optimizer("optimizer", self.optimizer)

    @property
    def axis_name(self) -> str | None:
        """The mapped axis over which batches are spread, or None."""
        return getattr(self.network, "axis_name", None)


class TrainState(flax.struct.PyTreeNode):
    """The state of a training: a pytree of arrays.

    Attributes:
      step: i32[], number of steps done.
      params: weights.
      batch_stats: running statistics.
      fixed: other collections of the network, which the training does not change, such as the genotype of an
        `EncodedNetwork`.
      averaged: moving average of {'params', 'batch_stats'}; {} if `TrainProblem.ema` is 0.
      opt_state: state of the optimizer.
      key: stays the same; the key of each draw is derived from it and the step by `epochs.key_for`.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    fixed: dict
    averaged: dict
    opt_state: optax.OptState
    key: jax.Array

    @property
    def variables(self) -> Variables:
        """The variables to test the network with: `averaged` if it is kept, otherwise `params` and `batch_stats`; and
        `fixed`."""
        return (self.averaged or {"params": self.params, "batch_stats": self.batch_stats}) | self.fixed


def init_training(
    problem: TrainProblem, key: jax.Array, variables: Variables, fixed: Mapping[str, Any] = MappingProxyType({})
) -> TrainState:
    """Makes the state from which a training starts.

    Args:
      problem: what to train.
      key: the only source of randomness of the training; it is stored in the state.
      variables: {'params', 'batch_stats'} to start from, for instance from `discrete.init_variables`. They are not
        copied, so donating the state deletes them.
      fixed: other collections of the network; see `TrainState`.
    """
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        fixed=dict(fixed),
        averaged=jax.tree.map(jnp.copy, variables) if problem.ema else {},
        opt_state=problem.optimizer.init(variables["params"]),
        key=key,
        **variables,
    )


def train_step(problem: TrainProblem, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Updates the weights once.

    Args:
      problem: static.
      state: the state before the step; it may be donated.
      batch: {'image': f32[B, H, W, C], 'label': i32[B]}, augmented images. A label that is no class makes
        train_loss NaN.

    Returns:
      (state, metrics): the state after the step; and, for this batch and the weights before the update, train_loss
      (the mean cross-entropy with smoothed labels, without the loss of the auxiliary head) and train_accuracy (a
      fraction), both f32[].

    Raises:
      ValueError: the batch has another form.
    """
    check_batch("batch", batch)
    drop_path = problem.drop_path * jnp.float32(state.step) / problem.total_steps
    rngs = {"draws": key_for(state.key, Purpose.DRAWS, state.step)}
    if problem.drop_path:
        rngs["drop_path"] = key_for(state.key, Purpose.DROP_PATH, state.step)

    def objective(params):
        logits, updated = problem.network.apply(
            {"params": params, "batch_stats": state.batch_stats, **state.fixed},
            batch["image"],
            train=True,
            drop_path=drop_path,
            rngs=rngs,
            mutable=["batch_stats", "auxiliary"],
        )
        check_labels(batch, len(logits))
        labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), problem.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, labels).mean()
        total = loss
        for auxiliary in jax.tree.leaves(updated.get("auxiliary", {})):
            total += problem.auxiliary_weight * optax.softmax_cross_entropy(auxiliary, labels).mean()
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
        known = jnp.all((batch["label"] >= 0) & (batch["label"] < logits.shape[-1]))
        metrics = {"train_loss": jnp.where(known, loss, jnp.nan), "train_accuracy": accuracy}
        return total, (metrics, updated["batch_stats"])

    gradient, (metrics, batch_stats) = devices.grad(objective, problem.axis_name, has_aux=True)(state.params)
    updates, opt_state = problem.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if problem.ema:
        decay = jnp.minimum(problem.ema, (1 + state.step) / (10 + state.step))
        averaged = optax.incremental_update({"params": params, "batch_stats": batch_stats}, averaged, 1 - decay)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, averaged=averaged, opt_state=opt_state
    )
    return state, metrics


def train_epoch(
    problem: TrainProblem,
    state: TrainState,
    data: Batch,
    augmentation: Augmentation,
    batch_size: int,
    steps: int | jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
    """Runs the steps of one epoch in one compiled loop, with data on the device that are shuffled and augmented there.

    Compile it with `jax.jit(train_epoch, static_argnums=(0, 3, 4), donate_argnums=1)`. See `epochs.run_epoch` for the
    order of the data and for running an epoch in several calls.

    Args:
      problem: static.
      state: the state before; it may be donated.
      data: {'image': u8[N, H, W, C], 'label': i32[N]}.
      augmentation: static.
      batch_size: static. N % batch_size images are not used in this epoch.
      steps: the number of steps to take, which may be traced; by default a whole epoch, N // batch_size. The epoch must
        have that many steps left, which is not checked.

    Returns:
      (state, metrics): the state after, and the mean of the metrics of `train_step` over the steps.

    Raises:
      ValueError: `batch_size` is less than 1 or larger than N.
    """
    step, purposes = functools.partial(train_step, problem), (Purpose.ORDER, Purpose.AUGMENTATION)
    return run_epoch(step, state, (data,), purposes, augmentation, batch_size, steps, problem.axis_name)


# Test -----------------------------------------------------------------------------------------------------------------


def classify(network: nn.Module, augmentation: Augmentation, variables: Variables, images: jax.Array) -> jax.Array:
    """Computes logits f32[B, num_classes] of images u8[B, H, W, C] with the running statistics in `variables`.

    The images are only normalised, by the mean and std of `augmentation`. `variables` are as `TrainState.variables`.
    """
    plain = dataclasses.replace(augmentation, pad=0, flip=False, cutout=0)
    logits: Any = network.apply(variables, augment(plain, jax.random.key(0), images), train=False)
    return logits


def test_step(network: nn.Module, augmentation: Augmentation, variables: Variables, batch: Batch) -> Metrics:
    """Tests one batch. Add the results of all batches and give the sums to `summarize`.

    Compile it with static_argnums=(0, 1).

    Args:
      network: static.
      augmentation: static; see `classify`.
      variables: as `TrainState.variables`.
      batch: {'image': u8[B, H, W, C], 'label': i32[B]}; an image of the label -1 is not counted.

    Returns:
      loss: f32[], sum of the cross-entropies.
      top5: i32[], number of images whose label is among the five largest logits, or among all if there are fewer.
      confusion: i32[classes, classes], number of images by label (row) and by largest logit (column).
    """
    logits, counts = classify(network, augmentation, variables, batch["image"]), batch["label"] >= 0
    labels = jnp.maximum(batch["label"], 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    largest = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    classes = logits.shape[-1]
    return {
        "loss": jnp.sum(losses * counts),
        "top5": jnp.sum(jnp.any(largest == labels[:, None], axis=-1) & counts),
        "confusion": jnp.zeros((classes, classes), jnp.int32).at[labels, largest[:, 0]].add(counts),
    }


def summarize(sums: dict[str, np.ndarray]) -> dict[str, Any]:
    """Computes the result of a test from the sums of what `test_step` gives, for at least one image.

    Returns:
      images: number of images tested.
      loss: mean cross-entropy.
      top1, top5: accuracies, as fractions.
      per_class: a list with the accuracy for each label, or None for a label that no image has.
      confusion: as `test_step`, as nested lists.
    """
    confusion = np.asarray(sums["confusion"])
    images, per_label = int(confusion.sum()), confusion.sum(axis=1)
    return {
        "images": images,
        "loss": float(sums["loss"]) / images,
        "top1": float(np.trace(confusion)) / images,
        "top5": float(sums["top5"]) / images,
        "per_class": [float(hit / n) if n else None for hit, n in zip(np.diag(confusion), per_label, strict=True)],
        "confusion": confusion.tolist(),
    }


def export_classifier(
    network: nn.Module,
    augmentation: Augmentation,
    variables: Variables,
    image_shape: tuple[int, int, int],
) -> bytes:
    """Serialises `classify`, with the weights, as StableHLO.

    `jax.export.deserialize(data).call(images)` gives f32[B, num_classes] for images u8[B, *image_shape] with any B; it
    needs only JAX. The same variables give the same bytes: the paths of source files are left out.

    Args:
      network: the trained network.
      augmentation: see `classify`.
      variables: as `TrainState.variables`.
      image_shape: (H, W, C).
    """
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"batch, {', '.join(map(str, image_shape))}"), jnp.uint8)
    function = jax.jit(lambda images: classify(network, augmentation, variables, images))
    frames = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # otherwise paths and lines of source files are included
    try:
        return bytes(export.export(function, platforms=("cpu", "cuda", "tpu"))(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)
