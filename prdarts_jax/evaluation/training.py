"""Training a discrete network from scratch, and its test: pure functions, as in `search/step.py`.

    step = jax.jit(train_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, batch)

A batch is {'image': f32[B, H, W, C], 'label': i32[B]}.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainProblem:
    """What stays the same over a training: a static, hashable argument.

    Attributes:
      network: a Flax module called as `discrete.DiscreteNetwork`. If it has an `axis_name`, a batch is the part of one
        device; see `devices.py`.
      optimizer: of its weights.
      total_steps: length of the training; progress is step / total_steps.
      drop_path: probability that a path is cut at the end; it grows linearly from 0.
      auxiliary_weight: factor of the auxiliary head's loss.
      label_smoothing: share of every label that is spread over all classes.
      ema: decay a step of the running mean of weights and statistics, at most (1 + step) / (10 + step); 0 keeps none.
    """

    network: nn.Module
    optimizer: optax.GradientTransformation
    total_steps: int
    drop_path: float = 0.0
    auxiliary_weight: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0

    @property
    def axis_name(self) -> str | None:
        """The mapped axis over which batches are spread, if any."""
        return getattr(self.network, "axis_name", None)


class TrainState(flax.struct.PyTreeNode):
    """What changes: arrays only.

    Attributes:
      step: i32[], steps done.
      params: weights.
      batch_stats: running statistics.
      fixed: collections that the network reads and nothing changes, such as the genotype of an `EncodedNetwork`.
      averaged: running mean of {'params', 'batch_stats'}, empty without `TrainProblem.ema`.
      opt_state: state of the optimizer.
      key: never consumed; every draw is made from it, the step and a purpose.
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
        """What to test: the running mean where there is one."""
        return (self.averaged or {"params": self.params, "batch_stats": self.batch_stats}) | self.fixed


def init_training(
    problem: TrainProblem, key: jax.Array, variables: Variables, fixed: Mapping[str, Any] = MappingProxyType({})
) -> TrainState:
    """The state a training starts from.

    Args:
      problem: what to train.
      key: the training's only source of randomness.
      variables: {'params', 'batch_stats'} to start from, for instance of `discrete.init_variables`.
      fixed: other collections that the network reads; see `TrainState`.
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
    """One update of the weights.

    Args:
      problem: static.
      state: before; may be donated.
      batch: {'image': f32[B, H, W, C], 'label': i32[B]}.

    Returns:
      (state, metrics): the state after, and f32[] scalars of the batch before the update: train_loss (cross-entropy of
      the smoothed labels, without the auxiliary head's) and train_accuracy (a fraction).
    """
    drop_path = problem.drop_path * jnp.float32(state.step) / problem.total_steps
    rngs = {"draws": key_for(state.key, 3, state.step)}
    if problem.drop_path:
        rngs["drop_path"] = key_for(state.key, 0, state.step)

    def objective(params):
        logits, updated = problem.network.apply(
            {"params": params, "batch_stats": state.batch_stats, **state.fixed},
            batch["image"],
            train=True,
            drop_path=drop_path,
            rngs=rngs,
            mutable=["batch_stats", "auxiliary"],
        )
        labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), problem.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, labels).mean()
        total = loss
        for auxiliary in jax.tree.leaves(updated.get("auxiliary", {})):
            total += problem.auxiliary_weight * optax.softmax_cross_entropy(auxiliary, labels).mean()
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
        return total, ({"train_loss": loss, "train_accuracy": accuracy}, updated["batch_stats"])

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
    """Steps of one epoch in one compiled loop, the data on the device, shuffled and augmented there.

    The order of the data and their augmentation are a function of the state's key and step alone, so an epoch may be
    run in parts. Compile with `jax.jit(train_epoch, static_argnums=(0, 3, 4), donate_argnums=1)`.

    Args:
      problem: static.
      state: before; its step says where in which epoch to begin.
      data: {'image': u8[N, H, W, C], 'label': i32[N]}.
      augmentation: static.
      batch_size: static; what is left over of N is not used in this epoch.
      steps: how many steps to take; by default an epoch's. The epoch must have that many left.

    Returns:
      (state, metrics): the state after, and the metrics of `train_step` averaged over the steps.
    """
    step = functools.partial(train_step, problem)
    return run_epoch(step, state, (data,), (1, 2), augmentation, batch_size, steps, problem.axis_name)


# Test -----------------------------------------------------------------------------------------------------------------


def classify(network: nn.Module, augmentation: Augmentation, variables: Variables, images: jax.Array) -> jax.Array:
    """Logits f32[B, num_classes] of images u8[B, H, W, C], which are normalised as `augmentation` says and not else
    changed."""
    plain = dataclasses.replace(augmentation, pad=0, flip=False, cutout=0)
    logits: Any = network.apply(variables, augment(plain, jax.random.key(0), images), train=False)
    return logits


def test_step(network: nn.Module, augmentation: Augmentation, variables: Variables, batch: Batch) -> Metrics:
    """What a batch adds to a test; sum it over the batches. Compile with static_argnums=(0, 1).

    Args:
      network: static.
      augmentation: static; see `classify`.
      variables: `TrainState.variables`.
      batch: {'image': u8[B, H, W, C], 'label': i32[B]}; an image of label -1 does not count.

    Returns:
      loss: f32[], sum of the cross-entropies.
      top5: i32[], how many have their label among the five largest logits.
      confusion: i32[classes, classes], how many of label (row) were classified as (column).
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
    """The result of a test from the sums of `test_step`'s counts.

    Returns:
      images: how many were tested.
      loss: mean cross-entropy.
      top1, top5: accuracies, fractions.
      per_class: accuracy for each label, None where no image has it.
      confusion: as `test_step`, nested lists.
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
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """`classify` as serialised StableHLO, the weights inside.

    `jax.export.deserialize(data).call(images)` gives f32[B, num_classes] for images u8[B, *image_shape] of any B, with
    JAX alone. The same variables give the same bytes, wherever they come from and wherever the package lies.

    Args:
      network: what was trained.
      augmentation: see `classify`.
      variables: `TrainState.variables`.
      image_shape: (H, W, C).
      platforms: where it shall run.
    """
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"batch, {', '.join(map(str, image_shape))}"), jnp.uint8)
    function = jax.jit(lambda images: classify(network, augmentation, variables, images))
    frames = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # else paths and lines of this machine's files are inside
    try:
        return bytes(export.export(function, platforms=platforms)(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)
