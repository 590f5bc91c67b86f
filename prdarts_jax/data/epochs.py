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
    """A key of its own for each purpose and step or epoch."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), count)


def repeat(
    step: Callable[[State], tuple[State, Metrics]], state: State, steps: int | jax.Array
) -> tuple[State, Metrics]:
    """Takes `steps` steps, at least 1, from a state; the number may be traced.

    Returns:
      (state, metrics): the state after, and the mean of each metric over the steps.
    """
    # Under jit the step is traced once for two uses: the shapes of the metrics, and the body of the loop.
    step = jax.jit(step)

    def body(_, carry):
        state, metrics = step(carry[0])
        return state, jax.tree.map(jnp.add, carry[1], metrics)

    totals = jax.tree.map(jnp.zeros_like, jax.eval_shape(step, state)[1])
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
    """Batch number `position` of an epoch, or this device's part of it.

    Args:
      augmentation: static.
      data: {'image': u8[N, H, W, C], 'label': i32[N]}.
      order: i32[N], of the epoch.
      position: i32[], at most N // batch_size - 1.
      batch_size: static.
      key: of the augmentation, consumed.
      axis_name: mapped axis over which the batch is spread, if any; its size divides `batch_size`.

    Returns:
      {'image': f32[batch_size, H, W, C], 'label': i32[batch_size]}, or as many as are in a part.
    """
    start, images = position * batch_size, batch_size
    if axis_name is not None:
        images = batch_size // jax.lax.axis_size(axis_name)
        start += jax.lax.axis_index(axis_name) * images
    places = jax.lax.dynamic_slice_in_dim(order, start, images)
    return {"image": augment(augmentation, key, data["image"][places], axis_name), "label": data["label"][places]}


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
    """Steps of one epoch, each on one batch of each data set, shuffled and augmented on the device.

    Orders and augmentation are a function of the state's key and step alone, so an epoch may be run in parts.

    Args:
      step: (state, a batch of each data set) -> (state, metrics); counts `state.step` and keeps `state.key`.
      state: its `step`, i32[], says where in which epoch to begin; its `key` is never consumed: every draw is made from
        it, the step and a purpose.
      datasets: each {'image': u8[N, H, W, C], 'label': i32[N]}, of the same N.
      purposes: of the keys (see `key_for`) for the orders of an epoch and for the augmentation of a step. One data set
        takes the key as it is, several share it out by `jax.random.split`.
      augmentation: static.
      batch_size: static; what is left over of N is not used in this epoch.
      steps: how many steps to take; by default an epoch's. The epoch must have that many left.
      axis_name: mapped axis over which batches are spread, if any.

    Returns:
      As `repeat`.

    Raises:
      ValueError: the data have no batch of this size.
    """
    images = len(datasets[0]["label"])
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
