"""An epoch of a search uses every image at most once, in an order of its own, whether it runs at once or in parts."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import Table
from trees import assert_identical

from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_epoch
from prdarts_jax.spaces import SearchSpace

SPACE = SearchSpace("small", ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3"), nodes=3)
AS_IT_IS = Augmentation(mean=(0.0,), std=(1.0,), pad=0, flip=False)

jit_init = jax.jit(init_search, static_argnums=0)
jit_epoch = jax.jit(search_epoch, static_argnums=(0, 4, 5))


class Telltale(Table):
    """A supernet whose loss tells which images were in the batch: 2^i / 256 for an image of pixels i (label 0)."""

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        for t in self.layers:
            self.variable("arch", t, jnp.zeros, self.space.shape)
        unused = self.param("unused", nn.initializers.zeros, ())
        index = jnp.round(255 * images[:, 0, 0, 0])
        loss = jnp.exp2(index) / 256
        return jnp.stack([jnp.zeros_like(loss) + 0 * unused, jnp.log(jnp.expm1(loss))], axis=1)


FROZEN = optax.set_to_zero()
TELLTALE = SearchProblem(Telltale(SPACE), methods.darts(), FROZEN, FROZEN, total_steps=20)


def start(problem, seed=0):
    return jit_init(problem, jax.random.key(seed), jnp.zeros((2, 4, 4, 1)))


def telltale_data(pixels):
    """Images of 4x4 equal pixels."""
    image = jnp.broadcast_to(jnp.array(pixels, jnp.uint8)[:, None, None, None], (len(pixels), 4, 4, 1))
    return {"image": image, "label": jnp.zeros(len(pixels), jnp.int32)}


def run_parts(problem, state, parts, batch_size, data, augmentation=AS_IT_IS):
    """The state after parts of so many steps, and the metrics of each part."""
    found = []
    for steps in parts:
        state, metrics = jit_epoch(problem, state, *data, augmentation, batch_size, jnp.int32(steps))
        found.append(metrics)
    return state, found


def test_parts_of_an_epoch_are_the_epoch():
    problem = SearchProblem(Table(SPACE), methods.pr_darts(), optax.sgd(0.1, momentum=0.9), optax.adam(0.03), 5)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 22, 4, 4, 1)).astype(np.uint8)
    data = [{"image": jnp.array(half), "label": jnp.array(rng.integers(0, 2, 22), jnp.int32)} for half in images]
    augmentation = Augmentation(mean=(0.5,), std=(0.2,), pad=1, flip=True, cutout=2)
    run = functools.partial(run_parts, problem, start(problem), batch_size=4, data=data, augmentation=augmentation)
    whole, (mean,) = run([5])
    assert int(whole.step) == 5
    assert_identical(run([3, 2])[0], whole)
    singly, metrics = run([1] * 5)
    assert_identical(singly, whole)
    for name in mean:
        np.testing.assert_allclose(mean[name], np.mean([m[name] for m in metrics]), rtol=1e-5)
    assert len({float(m["train_loss"]) for m in metrics}) == 5


def test_every_batch_is_augmented_anew():
    data = telltale_data([3] * 6)
    crop = Augmentation(mean=(0.0,), std=(1.0,), pad=2, flip=False)
    # The images are the same and all in the batch, so only how many crops have a black corner tells the batches apart.
    _, metrics = run_parts(TELLTALE, start(TELLTALE), [1] * 10, 6, (data, data), crop)
    train, val = ([float(m[name]) for m in metrics] for name in ("train_loss", "val_loss"))
    assert len(set(train)) > 2 and len(set(val)) > 2 and train != val


@pytest.fixture(scope="module")
def orders():
    """For two keys, [half][epoch][step] -> indices of the images in the batch, told by the losses of `Telltale`."""
    images, size, epochs = 14, 3, 3
    steps = images // size
    data = telltale_data(range(images))

    def told(loss):
        mask = round(float(loss) * size * 256)
        assert abs(float(loss) * size * 256 - mask) < 0.2
        return [i for i in range(images) if mask >> i & 1]

    found = []
    for seed in (0, 1):
        _, metrics = run_parts(TELLTALE, start(TELLTALE, seed), [1] * epochs * steps, size, (data, data))
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
    data = telltale_data(range(6))
    state, metrics = jit_epoch(TELLTALE, start(TELLTALE), data, data, AS_IT_IS, 2)
    assert int(state.step) == 3
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(metrics[name], (2**6 - 1) / 256 / 6, rtol=1e-5)
