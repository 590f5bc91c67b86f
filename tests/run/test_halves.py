"""A search on images streamed from disk: which images its halves hold, their order, and a stop in mid-epoch."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from shared import BEST_CELL, assert_same_run, make_toy, refused, stop_at, tiny_config

from prdarts_jax import devices
from prdarts_jax.data import arrays, sources
from prdarts_jax.run import feeds, halves, loop, problems, search, settings, train

pytestmark = pytest.mark.usefixtures("no_pictures")

COUNT = 40


def numbered():
    """Images whose label is their place, but for the two of the test."""
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 9, 11, 3))
    every = {"image": images, "label": np.arange(COUNT)}
    return arrays.from_arrays(every, {name: array[:2] for name, array in every.items()}, name="numbered")


def streamed(method="darts", **fields):
    """A search of 40 images in batches of two, 20 for the weights and 5 for the logits."""
    shares = {"num_examples": 0, "memory": 0.0, "image_size": 8, "weights_share": 0.5, "logits_share": 0.125}
    return tiny_config(method, **shares | {"batch_size": 2, "workers": 0, "steps_per_call": 4} | fields)


def seen(config, step, steps):
    """The labels of the batches of each half from a step on, i32[2, steps, batch]."""
    opened = halves.open_halves(config, numbered())
    ((_, calls),) = opened.calls(SimpleNamespace(step=step, calls=lambda: [steps]))
    return np.array([[batch["label"] for batch in call] for call in calls]).swapaxes(0, 1)


def test_the_halves_are_disjoint_shares_and_each_is_seen_whole_before_it_begins_again():
    weights, logits = seen(streamed(), 0, 20)
    assert halves.open_halves(streamed(), numbered()).steps_per_epoch == 10
    for epoch in (weights[:10], weights[10:]):
        assert len(set(epoch.ravel())) == 20 and set(epoch.ravel()) == set(weights.ravel())
    assert len(set(logits.ravel())) == 5 and not set(logits.ravel()) & set(weights.ravel())
    for two in np.split(logits, 10):  # four of the five
        assert len(set(two.ravel())) == 4
    assert not np.array_equal(weights[:10], weights[10:]) and not np.array_equal(logits[:2], logits[2:4])
    for step in (1, 7, 10, 13):
        np.testing.assert_array_equal(seen(streamed(), step, 20 - step), [weights[step:], logits[step:]])
    other = seen(streamed(split_seed=1), 0, 20)
    assert set(other[0].ravel()) != set(weights.ravel())


@pytest.fixture
def colours(tmp_path):
    """The path of a folder of 24 images of two classes and of mixed sizes, and two for the test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 2)):
        for number in range(count):
            path = tmp_path / "own" / split / ("dark", "light")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = 120 * (number % 2) + rng.integers(0, 120, (9 + number % 3, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(tmp_path / "own")


def test_a_search_from_disk_goes_on_in_mid_epoch_as_if_it_had_not_stopped(colours, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(problems, "make_supernet", make_toy)
    # After each epoch it also needs batches of the logits' images as they are.
    config = streamed("random_search", dataset=colours, **{"random_search.samples": 3})
    config.update({"logits_share": 0.25, "augmentation": {"cutout": 2}})
    search.run(config, tmp_path / "whole")
    said = capsys.readouterr().out
    assert "24 images of" in said
    assert ", 2 classes: dark 12, light 12; streamed from disk, 12 for the weights and 6 for the logits\n" in said
    with pytest.MonkeyPatch.context() as patch, pytest.raises(loop.Stopped, match="stopped at step 10 of 12"):
        stop_at(patch, 10)
        search.run(config, tmp_path / "parts")
    search.run(config, tmp_path / "parts")
    assert "resumed at step 10 of 12" in capsys.readouterr().out
    assert_same_run(tmp_path / "parts", tmp_path / "whole")

    (tmp_path / "own" / "train" / "dark" / "0.png").unlink()
    with pytest.raises(ValueError, match="belongs to another run: images is .*26 files.* there and .*25 files"):
        search.run(config, tmp_path / "parts")


def test_batches_as_they_are_begin_again_where_there_are_too_few():
    opened = halves.open_halves(streamed(), numbered())
    batches = jax.device_get(opened.plain_batches(4))
    assert batches["image"].shape == (4, 2, 8, 8, 3) and batches["label"].shape == (4, 2)
    labels = batches["label"].ravel()
    assert len(set(labels[:5])) == 5 and labels[5:].tolist() == labels[:3].tolist()
    mean, std = (np.array(a) for a in (opened.augmentation.mean, opened.augmentation.std))
    pixels = 255 * (batches["image"] * std + mean)
    np.testing.assert_allclose(
        pixels, np.broadcast_to(batches["label"][..., None, None, None], pixels.shape), atol=1e-3
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"seeds": 2}, "config.seeds=2 must be 1 for images that are streamed from disk"),
        (
            {"image_size": (8, 9)},
            "config.image_size=(8, 9) must be above 0, and one number, for images that are streamed from disk, since "
            "they are cropped to squares",
        ),
        (
            {"batch_size": 6},
            "config.batch_size=6 must be at most 5, the smaller share of the 40 images of numbered in use: 20 train "
            "the weights, 5 the logits",
        ),
        (
            {"augmentation": {"pad": 0, "flip": False, "cutout": 9}},
            "config.augmentation.cutout=9 must be at most 8, the images' shorter side",
        ),
        ({"num_examples": 41}, "num_examples is 41, but numbered has 40 images: allowed are 1 to 40, or 0 for all."),
        ({"memory": 1.0}, "config.logits_share=0.125 must be 0.5 for images in memory; config.memory=0 streams them"),
        (
            {"discretization": "best_of"},
            "config.discretization='best_of' must be 'own' for images that are streamed from disk",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused(fields, message, tmp_path):
    with refused(message):
        search.run(streamed(**fields), tmp_path / "run", numbered())
    assert not (tmp_path / "run").exists()


def test_a_method_that_chooses_by_images_in_memory_is_refused(tmp_path):
    (tmp_path / "own.py").write_text(BEST_CELL)
    method = f"{tmp_path}/own.py:best"
    message = f"config.method={method!r} must choose its cell by the logits for images that are streamed from disk"
    with refused(message):
        search.run(streamed(method), tmp_path / "run", numbered())


def test_a_training_on_streamed_images_does_not_test_on_the_rest():
    config = settings.training()
    config.update({"memory": 0.0, "image_size": 8, "num_examples": 20, "batch_size": 4, "test_on_rest": True})
    with refused("config.test_on_rest=True must be False for images that are streamed from disk"):
        train.check(config, numbered())


@pytest.mark.parametrize(("images", "share", "number"), [(100, 0.29, 29), (100, 0.57, 57), (40, 0.49, 19), (7, 0.1, 0)])
def test_a_share_is_the_whole_number_below_it(images, share, number):
    first, second = sources.half_indices(images, 0, (share, 0.0))
    assert (len(first), len(second)) == (number, 0)


def test_images_in_memory_are_those_that_take_less_than_the_config_allows():
    size = 40 * 8 * 8 * 3 / 1e9
    for memory, streams in ((0.99 * size, True), (1.01 * size, False)):
        config = streamed(memory=memory, logits_share=0.5)
        opened = halves.open_halves(config, numbered())
        assert isinstance(opened, halves.InMemory) != streams and opened.image_shape == (2, 8, 8, 3)
    assert devices.make_mesh().size == opened.mesh.size
    training = settings.training()
    training.update({"memory": 0.5 * size, "num_examples": 10})
    for training.test_on_rest in (False, True):  # with it, all images are read
        assert feeds.is_streamed(training, numbered()) == training.test_on_rest
