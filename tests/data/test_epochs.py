"""An epoch draws what is written out here, of one data set and of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.struct import PyTreeNode

from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.data.epochs import repeat, run_epoch

AUGMENTATION = Augmentation(mean=(0.4,), std=(0.2,), pad=1, flip=True, cutout=2)
IMAGES, BATCH = 14, 4
EPOCH, POSITION = 2, 1


class State(PyTreeNode):
    step: jax.Array
    key: jax.Array


def fold(key, purpose, count):
    return jax.random.fold_in(jax.random.fold_in(key, purpose), count)


def pixels(seed):
    rng = np.random.default_rng(seed)
    return jax.device_put({"image": rng.integers(0, 256, (IMAGES, 5, 5, 1), np.uint8), "label": np.arange(IMAGES)})


@pytest.mark.parametrize("count", [1, 2])
def test_batches_are_those_of_the_keys_of_their_purposes(count):
    """One data set takes a key as it is; two share it out, and their orders are those that a vmap draws."""
    datasets, key = [pixels(seed) for seed in range(count)], jax.random.key(7)
    start = EPOCH * (IMAGES // BATCH) + POSITION

    def step(state, *batches):
        return state.replace(step=state.step + 1), {"batches": batches}

    @jax.jit
    def run(steps):
        return run_epoch(step, State(jnp.int32(start), key), datasets, (5, 6), AUGMENTATION, BATCH, steps)

    keys = [fold(key, 5, EPOCH), fold(key, 6, start)]
    of_orders, of_images = [k[None] if count == 1 else jax.random.split(k) for k in keys]
    orders = jax.vmap(lambda k: jax.random.permutation(k, IMAGES))(of_orders)[:, POSITION * BATCH :][:, :BATCH]
    state, metrics = run(1)
    assert int(state.step) == start + 1 and len(metrics["batches"]) == count
    for batch, data, order, k in zip(metrics["batches"], datasets, orders, of_images, strict=True):
        np.testing.assert_array_equal(batch["label"], order)
        expected = jax.jit(augment, static_argnums=0)(AUGMENTATION, k, data["image"][order])
        np.testing.assert_allclose(batch["image"], expected, rtol=1e-6, atol=1e-6)


def test_means_are_of_numbers_of_any_type():
    def step(number):
        return number + 1, {"late": number >= 3, "half": jnp.bfloat16(1.0)}

    _, metrics = repeat(step, jnp.int32(0), 1000)
    assert metrics["late"] == pytest.approx(0.997) and metrics["half"] == 1.0


def test_data_sets_of_different_sizes_are_refused():
    datasets = [pixels(0), jax.tree.map(lambda a: a[:-1], pixels(1))]
    with pytest.raises(ValueError, match=f"must have equally many images, but have {IMAGES} and {IMAGES - 1}$"):
        run_epoch(None, None, datasets, (5, 6), AUGMENTATION, BATCH)
