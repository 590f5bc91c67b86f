"""Many devices give what one gives: two or eight of the CPU in a process of its own, and vmap where that shows it."""

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
from scripts import SCRIPT_PATH

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import take_batch
from prdarts_jax.run import loop

JOBS = {2: ("search", "darts", "cells"), 8: ("search", "train", "darts", "r_darts", "stream", "supernets")}


@pytest.fixture(scope="module", params=[2, pytest.param(8, marks=pytest.mark.slow)], ids=str)
def found(request, tmp_path_factory):
    """{'many/search/arch': ..., 'one/...'}, see many_devices.py."""
    path = tmp_path_factory.mktemp("devices") / "found.npz"
    script = Path(__file__).with_name("many_devices.py")
    environment = os.environ | SCRIPT_PATH | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(request.param)}
    subprocess.run([sys.executable, script, path, *JOBS[request.param]], env=environment, check=True)
    return dict(np.load(path, allow_pickle=True))


def test_many_devices_give_what_one_gives(found):
    """After the same global batches, or three epochs of each seed of a population, whose seeds two parts of the devices
    share: within 1e-4 of the largest number of each kind."""
    compared = {name.removeprefix("one/") for name in found if name.startswith("one/")}
    assert compared == {name.removeprefix("many/") for name in found if name.startswith("many/")}
    for name in compared - {"search/collectives"}:
        expected = found[f"one/{name}"]
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found[f"many/{name}"], expected, rtol=0, atol=tolerance, err_msg=name)


def test_cells_on_two_devices_are_those_of_one_bit_for_bit(found):
    names = [name.removeprefix("one/") for name in found if name.startswith("one/cells/")]
    if not names:
        pytest.skip("cells are trained with two devices only")
    for name in names:
        np.testing.assert_array_equal(found[f"many/{name}"], found[f"one/{name}"], err_msg=name)


def test_the_step_reduces_moments_and_gradients_and_gathers_nothing(found):
    """No collective moves images: what is reduced has the size of a weight, of a logit's array or of a moment, of which
    two or three go together. One device needs none."""
    assert found["one/search/collectives"].item() == {}
    collectives = found["many/search/collectives"].item()
    assert collectives.keys() == {"all-reduce"}
    found_shapes = re.findall(r"(\w+)\[([\d,]*)\]", " ".join(collectives["all-reduce"]))
    assert {dtype for dtype, _ in found_shapes} == {"f32"}
    shapes = [tuple(map(int, filter(None, sides.split(",")))) for _, sides in found_shapes]
    sizes = set(found["one/search/sizes"].tolist())
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
    with pytest.raises(ValueError, match=r"must have the same number of devices, but have \[1, 3\]"):
        devices.make_mesh(devices=unequal)


@pytest.mark.parametrize("temporary, advised", [(10**6, False), (10**15, True)])
def test_the_memory_of_a_step_comes_with_advice_where_it_is_too_much(temporary, advised):
    sizes = {"argument_size_in_bytes": 3 * 10**8, "output_size_in_bytes": 2 * 10**8, "alias_size_in_bytes": 10**8}
    analysis = SimpleNamespace(**sizes, temp_size_in_bytes=temporary)
    shardings = [jax.sharding.SingleDeviceSharding(jax.devices()[0])]
    compiled = SimpleNamespace(memory_analysis=lambda: analysis, input_shardings=shardings)
    text = loop.memory_in_words(compiled, "evaluation.")
    assert text.startswith(f"needs {(4 * 10**8 + temporary) / 1e9:.2f} GB of memory on each device")
    assert advised == ("set config.evaluation.accumulate to take a batch in pieces" in text)
    unknown = SimpleNamespace(memory_analysis=lambda: None, input_shardings=shardings)
    assert "does not report" in loop.memory_in_words(unknown)


def test_a_batch_that_does_not_divide_is_refused():
    class Eight:
        shape = {"seed": 1, "data": 8}

    devices.check_divides(64, Eight, "config.batch_size")
    with pytest.raises(
        ValueError,
        match=r"config\.batch_size=60 must be a multiple of 8, the devices that share a",
    ):
        devices.check_divides(60, Eight, "config.batch_size")
