"""Several steps of a search or a training in one compiled loop."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp

from prdarts_jax.data.sources import Augmentation, augment

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
State = TypeVar("State")


def key_for(key: jax.Array, purpose: int, count: jax.Array) -> jax.Array:
    """A key of its own for each purpose and step or epoch."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), count)


def repeat(
    step: Callable[[State], tuple[State, Metrics]], state: State, steps: int | jax.Array
) -> tuple[State, Metrics]:
    """Takes `steps` steps.

    Args:
      step: state in, (state, metrics) out.
      state: before.
      steps: how many, at least 1; may be traced.

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
      order: i32[N], the order of the epoch.
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
