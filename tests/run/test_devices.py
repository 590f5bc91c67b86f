"""Many devices give what one gives: eight of the CPU in a process of its own, and vmap where that shows it."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SCRIPT_PATH

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import take_batch
from prdarts_jax.run import loop

EIGHT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
ON_EIGHT = os.environ | SCRIPT_PATH | EIGHT
JOBS = ("stream", "supernets")
SLOW_TOO = os.environ.get("PRDARTS_SLOW_TESTS") == "1"
SLOW = pytest.mark.skipif(not SLOW_TOO, reason="takes minutes: runs with PRDARTS_SLOW_TESTS=1")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{'eight/search/arch': ..., 'one/...'}, see eight_devices.py."""
    path = tmp_path_factory.mktemp("devices") / "found.npz"
    script = Path(__file__).with_name("eight_devices.py")
    subprocess.run(
        [sys.executable, script, path, *(JOBS if SLOW_TOO else ())], env=ON_EIGHT, check=True, cwd=script.parent
    )
    return dict(np.load(path, allow_pickle=True))


def of(found, prefix):
    return {name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)}


@pytest.mark.parametrize("what", ("search", "train", "population", *(pytest.param(job, marks=SLOW) for job in JOBS)))
def test_eight_devices_give_what_one_gives(found, what):
    """After 20 steps of the same global batches, or nine of each seed of a population, whose devices are two times
    four: within 1e-4 of the largest number of each kind."""
    eight, one = of(found, f"eight/{what}/"), of(found, f"one/{what}/")
    assert eight.keys() == one.keys()
    for name, expected in one.items():
        np.testing.assert_allclose(eight[name], expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name)


def test_one_device_needs_no_collectives(found):
    assert found["one/collectives"].item() == {}


def test_the_step_reduces_moments_and_gradients_and_gathers_nothing(found):
    """No collective moves images: what is reduced has the size of a weight, of a logit's array or of a moment, of which
    two or three go together."""
    collectives = found["eight/collectives"].item()
    assert collectives.keys() == {"all-reduce"}
    found_shapes = re.findall(r"(\w+)\[([\d,]*)\]", " ".join(collectives["all-reduce"]))
    assert {dtype for dtype, _ in found_shapes} == {"f32"}
    shapes = [tuple(map(int, filter(None, sides.split(",")))) for _, sides in found_shapes]
    sizes = set(found["sizes"].tolist())
    assert len(shapes) > 30
    for shape in shapes:
        assert math.prod(shape) in sizes or (shape[0] in (2, 3) and math.prod(shape[1:]) in sizes)


# Parts of a batch, by vmap --------------------------------------------------------------------------------------------


def test_parts_of_a_batch_are_the_batch_that_one_device_takes():
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (40, 6, 5, 3), np.uint8), "label": rng.integers(0, 9, 40)}
    images = jax.tree.map(jnp.array, images)
    order = jnp.array(rng.permutation(40))
    augmentation = Augmentation((0.4, 0.5, 0.6), (0.2, 0.3, 0.2), pad=2, flip=True, cutout=3)

    def take(axis_name):
        return take_batch(augmentation, images, order, jnp.int32(2), 12, jax.random.key(1), axis_name)

    whole = jax.jit(lambda: take(None))()
    parts = jax.jit(jax.vmap(lambda _: take("data"), axis_name="data"))(jnp.arange(4))
    np.testing.assert_array_equal(parts["label"].ravel(), whole["label"])
    np.testing.assert_array_equal(parts["image"].reshape(whole["image"].shape), whole["image"])


def test_a_gradient_is_that_of_the_whole_batch():
    x, w = jnp.arange(12.0).reshape(4, 3), jnp.float32(0.3)

    def loss(w, x):
        values = jnp.sin(w * x)
        return values.mean(), values.max()

    gradient, largest = jax.vmap(devices.grad(loss, "data", has_aux=True), (None, 0), axis_name="data")(w, x)
    np.testing.assert_allclose(gradient, np.full(4, jax.grad(lambda w: jnp.sin(w * x).mean())(w)), rtol=1e-6)
    np.testing.assert_allclose(largest, np.full(4, np.sin(0.3 * np.asarray(x)).max(1).mean()), rtol=1e-6)
    alone, _ = devices.grad(loss, has_aux=True)(w, x)
    np.testing.assert_allclose(alone, gradient[0], rtol=1e-6)


def test_random_numbers_of_parts_are_those_of_the_whole():
    def draw(n):
        return jax.random.uniform(jax.random.key(0), (2, n, 3))

    parts = jax.vmap(lambda _: devices.draw_part(draw, 5, "data", 1), axis_name="data")(jnp.arange(3))
    np.testing.assert_array_equal(jnp.concatenate(list(parts), axis=1), draw(15))
    np.testing.assert_array_equal(devices.draw_part(draw, 5, None, 1), draw(5))


# A mesh ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds, count, shape", [(1, 8, (1, 8)), (4, 8, (4, 2)), (8, 4, (4, 1)), (3, 8, (1, 8))])
def test_the_mesh_splits_seeds_over_devices_and_then_batches(seeds, count, shape):
    assert devices.mesh_shape(seeds, count) == shape


def test_processes_with_more_devices_than_others_are_refused():
    unequal = [SimpleNamespace(process_index=process) for process in (0, 1, 1, 1)]
    with pytest.raises(ValueError, match=r"must have as many devices as each other, but have \[1, 3\]"):
        devices.make_mesh(devices=unequal)


@pytest.mark.parametrize("temporary, advised", [(10**6, False), (10**15, True)])
def test_the_memory_of_a_step_comes_with_advice_where_it_is_too_much(temporary, advised):
    sizes = {"argument_size_in_bytes": 3 * 10**8, "output_size_in_bytes": 2 * 10**8, "alias_size_in_bytes": 10**8}
    analysis = SimpleNamespace(**sizes, temp_size_in_bytes=temporary)
    text = loop.memory_in_words(SimpleNamespace(memory_analysis=lambda: analysis))
    assert text.startswith(f"needs {(4 * 10**8 + temporary) / 1e9:.2f} GB of memory on each device")
    assert advised == ("set config.accumulate to take a batch in pieces" in text)
    assert "not tell" in loop.memory_in_words(SimpleNamespace(memory_analysis=lambda: None))


def test_a_batch_that_does_not_divide_is_refused():
    class Eight:
        shape = {"seed": 1, "data": 8}

    devices.check_divides(64, Eight, "config.batch_size")
    with pytest.raises(ValueError, match=r"config\.batch_size=60 must be a multiple of 8, the devices that share a"):
        devices.check_divides(60, Eight, "config.batch_size")
