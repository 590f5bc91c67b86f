"""Several steps of a search or a training in one compiled loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from prdarts_jax.data.augmentation import Augmentation, augment

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
State = TypeVar("State")


def key_for(key: jax.Array, purpose: int, count: jax.Array) -> jax.Array:
    """Derives a key from `key`, a purpose and the number of a step or epoch, i32[]; `key` may be used again.

    Different purposes or counts give independent keys.
    """
    return jax.random.fold_in(jax.random.fold_in(key, purpose), count)


def repeat(
    step: Callable[[State], tuple[State, Metrics]], state: State, steps: int | jax.Array
) -> tuple[State, Metrics]:
    """Applies `step` to a state `steps` times in a compiled loop.

    Args:
      step: state -> (state, metrics), with metrics that are numbers, [].
      state: any pytree of arrays.
      steps: at least 1, which is not checked; it may be traced.

    Returns:
      (state, metrics): the last state, and the mean of each metric over the steps, f32[].
    """
    # Under jit the step is traced only once, for the shapes of the metrics and for the body of the loop.
    step = jax.jit(step)

    def body(_, carry):
        state, metrics = step(carry[0])
        return state, jax.tree.map(lambda total, metric: total + metric.astype(total.dtype), carry[1], metrics)

    def zero(metric):
        # Sums of bool or bfloat16 would be wrong.
        return jnp.zeros(metric.shape, jnp.promote_types(metric.dtype, jnp.float32))

    totals = jax.tree.map(zero, jax.eval_shape(step, state)[1])
    state, totals = jax.lax.fori_loop(0, steps, body, (state, totals))
    return state, jax.tree.map(lambda a: a / steps, totals)


def take_batch(
    augmentation: Augmentation,
    data: Batch,
    order: jax.Array,
    position: jax.Array,
    batch_size: int,
    key: jax.Array,
    axis_name: str | None = None,
) -> Batch:
    """Takes and augments batch number `position` of an epoch; on a mapped axis, only this device's part of the batch.

    Args:
      augmentation: static.
      data: {'image': u8[N, H, W, C], 'label': i32[N]}.
      order: i32[N], the permutation of the images in this epoch.
      position: i32[], from 0 to N // batch_size - 1.
      batch_size: the size of the whole batch; static.
      key: the key of the augmentation; do not use it again.
      axis_name: the mapped axis over which the batch is spread, if any; its size divides `batch_size`.

    Returns:
      {'image': f32[B, H, W, C], 'label': i32[B]}, where B is `batch_size`, divided by the size of the mapped axis if
      there is one.
    """
    start, images = position * batch_size, batch_size
    if axis_name is not None:
        images = batch_size // jax.lax.axis_size(axis_name)
        start += jax.lax.axis_index(axis_name) * images
    indices = jax.lax.dynamic_slice_in_dim(order, start, images)
    return {"image": augment(augmentation, key, data["image"][indices], axis_name), "label": data["label"][indices]}


def run_epoch(
    step: Callable[..., tuple[Any, Metrics]],
    state: Any,
    datasets: Sequence[Batch],
    purposes: tuple[int, int],
    augmentation: Augmentation,
    batch_size: int,
    steps: int | jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[Any, Metrics]:
    """Runs the steps of one epoch; each step takes one batch of each data set, shuffled and augmented on the device.

    Orders and augmentation depend only on the state's key and step. So an epoch may be run in several calls with fewer
    `steps` each, with the same result.

    Args:
      step: called as `step(state, *batches)`, with one batch of each data set; returns (state, metrics). It must add 1
        to `state.step` and leave `state.key` unchanged.
      state: a pytree with the fields `step`, i32[], the number of steps done in all epochs, and `key`, from which all
        keys are derived by `key_for`.
      datasets: each {'image': u8[N, H, W, C], 'label': i32[N]}, all with the same N.
      purposes: two numbers for `key_for`: one for the orders of an epoch, one for the augmentation of a step. Each of
        several data sets gets a key of its own, made by `jax.random.split`.
      augmentation: static.
      batch_size: static. The last N % batch_size images of an order are not used in this epoch.
      steps: the number of steps to take; by default a whole epoch, N // batch_size. The epoch must have that many steps
        left, which is not checked.
      axis_name: the mapped axis over which batches are spread, if any.

    Returns:
      (state, metrics), as `repeat`.

    Raises:
      ValueError: `batch_size` is less than 1 or larger than N, or the data sets differ in size.
    """
    images = len(datasets[0]["label"])
    if any(len(data["label"]) != images for data in datasets):
        sizes = " and ".join(str(len(data["label"])) for data in datasets)
        raise ValueError(f"the data sets of an epoch must have equally many images, but have {sizes}")
    if not 0 < batch_size <= images:
        raise ValueError(f"batch_size={batch_size} must be from 1 to {images}, the images of each data set")
    steps_per_epoch = images // batch_size
    of_orders, of_images = purposes

    def keys(purpose, count):
        key = key_for(state.key, purpose, count)
        return [key] if len(datasets) == 1 else jax.random.split(key, len(datasets))

    orders = [jax.random.permutation(key, images) for key in keys(of_orders, state.step // steps_per_epoch)]

    def next_step(state):
        position = state.step % steps_per_epoch
        batches = [
            take_batch(augmentation, data, order, position, batch_size, key, axis_name)
            for data, order, key in zip(datasets, orders, keys(of_images, state.step), strict=True)
        ]
        return step(state, *batches)

    return repeat(next_step, state, steps_per_epoch if steps is None else steps)
