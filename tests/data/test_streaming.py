"""Batches from disk: their order and exact resuming, and the augmentation against its definition."""

import contextlib
import itertools
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagenet_folder
import numpy as np
import pytest
import scipy.stats
from imagenet_folder import COUNT, grey, shard
from PIL import Image

from prdarts_jax.data import sources, streaming
from prdarts_jax.data.source import Source

TRAIN: dict[str, Any] = {"image_size": 16, "batch_size": 4, "seed": 3, "step": 0, "workers": 0}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return imagenet_folder.write(tmp_path)


@pytest.fixture
def without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours stay as they are."""
    monkeypatch.setattr(streaming, "jitter_colours", lambda image, rng: image)


def in_memory(count: int, image: np.ndarray) -> Source:
    """A source of `count` equal images."""
    return Source((30, 30, 3), 1, count, lambda positions: [{"image": image, "label": 0} for _ in positions])


def train(source: Source, epoch: int = 0, start: int = 0, **changes: int | tuple[int, ...]) -> list[streaming.Batch]:
    """The batches of one epoch, from number `start` of it on."""
    options = TRAIN | changes
    count = len(source) // options["batch_size"]
    with contextlib.closing(streaming.train_batches(source, **options | {"step": epoch * count + start})) as batches:
        return list(itertools.islice(batches, count - start))


def joined(batches: list[streaming.Batch], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def same(ones: list[streaming.Batch], others: list[streaming.Batch]) -> None:
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one["label"], other["label"])
        np.testing.assert_array_equal(one["image"], other["image"])


def test_batches_are_the_same_from_any_number_of_workers_and_any_start(prepared: Path) -> None:
    source = sources.find("imagenet", prepared).open("train")
    assert source.num_classes == 1000 and len(source) == COUNT
    whole = train(source)
    assert len(whole) == COUNT // 4
    for batch in whole:
        assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
    same(train(source, workers=2), whole)
    same(train(source, workers=2, start=1), whole[1:])
    for start in range(6):
        same(train(source, start=start), whole[start:])


def test_the_shares_of_processes_are_the_batches(prepared: Path) -> None:
    source = sources.find("imagenet", prepared).open("train")
    shares = [train(source, start=1, share=(part, 2)) for part in (0, 1)]
    together = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    same(together, train(source, start=1))


def test_every_image_comes_once_an_epoch_with_its_label_in_another_order(prepared: Path, without_jitter: None) -> None:
    source = sources.find("imagenet", prepared).open("train")
    orders = []
    for changes in ({}, {"epoch": 1}, {"epoch": 2}, {"seed": 4}):
        batches = train(source, batch_size=1, **changes)
        labels = joined(batches, "label")
        assert sorted(labels) == list(range(COUNT))
        shown = joined(batches, "image").mean((1, 2, 3))
        np.testing.assert_allclose(shown, [grey(label) for label in labels], atol=4)
        orders.append(labels.tolist())
    assert len({tuple(order) for order in [*orders, range(COUNT)]}) == 5
    # No order is another one moved on, as epochs of one seed would be if they shared a permutation.
    assert all(
        np.mean(np.equal(a, np.roll(b, n))) < 0.5 for a in orders for b in orders if a != b for n in range(COUNT)
    )


def test_augmentation_differs_between_epochs_seeds_and_positions(without_jitter: None) -> None:
    """The same image everywhere, so that only the augmentation can tell two results apart."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    results = [
        image.tobytes()
        for changes in ({}, {"epoch": 1}, {"seed": 4})
        for image in joined(train(in_memory(20, pixels), **changes), "image")
    ]
    assert len(set(results)) == len(results) == 60


def test_test_batches_hold_every_image_in_order_and_fill_up_the_last(prepared: Path) -> None:
    source = sources.find("imagenet", prepared).open("train")
    batches = list(streaming.test_batches(source, image_size=21, batch_size=5, workers=0))
    assert [batch["image"].shape for batch in batches] == [(5, 21, 21, 3)] * 5
    labels, images = joined(batches, "label"), joined(batches, "image")
    assert labels.dtype == np.int32 and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, [*range(COUNT), -1, -1, -1])
    assert not images[COUNT:].any()
    np.testing.assert_allclose(images[:COUNT].mean((1, 2, 3)), [grey(n) for n in range(COUNT)], atol=2)
    same(list(streaming.test_batches(source, image_size=21, batch_size=5, workers=1)), batches)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 250)])
def test_test_images_are_the_centre_after_resizing(width: int, height: int) -> None:
    """Of a ramp, whose value tells the coordinate: 28 of 32 pixels of the shorter side, as 224 of 256."""
    source = in_memory(1, ramp(width, height))
    (batch,) = streaming.test_batches(source, image_size=28, batch_size=1, workers=0)
    scale = min(width, height) / 32
    offsets = (np.arange(28) + 0.5 - 14) * scale - 0.5
    np.testing.assert_allclose(batch["image"][0, :, :, 0].mean(0), width / 2 + offsets, atol=1)
    np.testing.assert_allclose(batch["image"][0, :, :, 1].mean(1), height / 2 + offsets, atol=1)
    np.testing.assert_allclose(batch["image"][..., 2], 127, atol=25)


def ramp(width: int, height: int) -> np.ndarray:
    """An image whose red is the column and whose green is the row; its blue is a board of chess, grey once averaged."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, (rows + columns) % 2 * 255], -1).astype(np.uint8)


def test_crops_have_the_distribution_of_their_definition() -> None:
    """In a square, an aspect r fits an area a where |log r| <= -log a, and so always up to an area of 3/4.

    So the density of areas is constant from 0.08 to 3/4, and falls from there as -log a / log 4/3.
    """
    side, count = 2000, 20_000
    rng = np.random.default_rng(0)
    left, top, right, bottom = np.array([streaming.random_crop(side, side, rng) for _ in range(count)]).T
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= side
    widths, heights = right - left, bottom - top
    area, aspect = widths * heights / side**2, widths / heights
    bounds = (area.min(), area.max(), aspect.min(), aspect.max())
    np.testing.assert_allclose(bounds, (0.08, 1, 3 / 4, 4 / 3), rtol=0.02)

    def mass(areas: np.ndarray) -> np.ndarray:
        large = np.maximum(areas, 3 / 4)
        beyond = (large - large * np.log(large)) - (3 / 4 - 3 / 4 * math.log(3 / 4))
        return np.minimum(areas, 3 / 4) - 0.08 + beyond / math.log(4 / 3)

    small = area < 3 / 4
    logs = scipy.stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3))
    assert scipy.stats.kstest(area, lambda areas: mass(areas) / mass(np.ones(1))).pvalue > 0.001
    assert scipy.stats.kstest(np.log(aspect[small]), logs.cdf).pvalue > 0.001
    x, y = (left[small] / (side - widths[small] + 1)), (top[small] / (side - heights[small] + 1))
    assert scipy.stats.kstest(x, "uniform").pvalue > 0.001
    assert scipy.stats.kstest(y, "uniform").pvalue > 0.001
    for one, other in itertools.combinations((area[small], aspect[small], x, y), 2):
        assert scipy.stats.spearmanr(one, other).pvalue > 0.001


def test_images_show_their_crop_and_half_of_them_mirrored(without_jitter: None) -> None:
    """The box of every crop is read off from a ramp, as the line through the values of the resized image."""
    width, height, size, count = 240, 200, 16, 1000
    source = in_memory(count, ramp(width, height))
    images = joined(train(source, image_size=size, batch_size=50), "image")
    np.testing.assert_allclose(images[..., 2], 127, atol=25)
    inner = np.arange(1, size - 1)  # at the border, bilinear resizing sees but one side
    across = np.polyfit(inner + 0.5, images[:, 1:-1, 1:-1, 0].mean(1).T + 0.5, 1)
    down = np.polyfit(inner + 0.5, images[:, 1:-1, 1:-1, 1].mean(2).T + 0.5, 1)
    mirrored = across[0] < 0
    assert scipy.stats.binomtest(int(mirrored.sum()), count, 0.5).pvalue > 0.001

    widths, heights = np.abs(across[0]) * size, down[0] * size
    left = np.where(mirrored, across[1] - widths, across[1])
    read = np.stack([widths * heights / (width * height), widths / heights, left / width, down[1] / height], 1)
    rng = np.random.default_rng(0)
    boxes = np.array([streaming.random_crop(width, height, rng) for _ in range(5000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    drawn = np.stack([w * h / (width * height), w / h, boxes[:, 0] / width, boxes[:, 1] / height], 1)
    for one, other in zip(read.T, drawn.T, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > 0.001
    for shown in (*read.T, np.roll(mirrored, 1)):
        assert scipy.stats.spearmanr(mirrored, shown).pvalue > 0.001


@pytest.mark.parametrize(
    ("width", "height", "box"), [(400, 20, (186, 0, 213, 20)), (20, 400, (0, 186, 20, 213)), (1, 1, (0, 0, 1, 1))]
)
def test_where_no_crop_fits_the_centre_is_taken(width: int, height: int, box: tuple[int, ...]) -> None:
    """In a strip of aspect 20, any box of 8 % of the area with an aspect of at most 4/3 is too high."""
    for seed in range(20):
        assert streaming.random_crop(width, height, np.random.default_rng(seed)) == box


def jittered(pixels: np.ndarray, count: int) -> np.ndarray:
    """The same image with the random numbers of `count` seeds; f64[count, H, W, 3]."""
    image = Image.fromarray(pixels.astype(np.uint8))
    results = [streaming.jitter_colours(image, np.random.default_rng(seed)) for seed in range(count)]
    return np.stack([np.asarray(result) for result in results]).astype(np.float64)


def test_jitter_draws_every_factor_uniformly() -> None:
    """The factors are read off from images that make one after the other visible.

    Only brightness changes a constant grey; only brightness and contrast the distance of two greys; only those and
    saturation the spread of a colour; and only the turn the hue.
    """
    count = 600
    constant = jittered(np.full((2, 2, 3), 160), count)
    brightness = constant[:, 0, 0, 0] / 160
    pair = jittered(np.repeat([[[80], [120]]], 3, -1), count)
    contrast = (pair[:, 0, 1, 0] - pair[:, 0, 0, 0]) / 40 / brightness
    colour = np.array([[[120, 90, 80]]])
    patch = jittered(colour, count)[:, 0, 0]
    saturation = np.ptp(patch, 1) / 40 / brightness / contrast
    expected = scipy.stats.uniform(0.6, 0.8)
    for factor in (brightness, contrast, saturation):
        assert factor.min() > 0.5 and factor.max() < 1.5
        assert scipy.stats.kstest(factor, expected.cdf).pvalue > 0.001
    turn = (hues(patch) - hues(colour[0]) + 0.5) % 1 - 0.5
    assert scipy.stats.kstest(turn, scipy.stats.uniform(-0.2, 0.4).cdf).pvalue > 0.001
    drawn = np.stack([brightness, contrast, turn])
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 4 / math.sqrt(count)


def hues(colours: np.ndarray) -> np.ndarray:
    """Hues in [0, 1) of colours [N, 3]."""
    import colorsys

    return np.array([colorsys.rgb_to_hsv(*colour / 255)[0] for colour in colours])


def test_jitter_computes_what_it_is_defined_as() -> None:
    """In plain NumPy, with the same random numbers, for images where saturation and clipping make the order matter."""
    pixels = np.random.default_rng(5).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    errors: list[float] = []
    other_errors: list[float] = []
    for seed in range(100):
        result = np.asarray(streaming.jitter_colours(Image.fromarray(pixels), np.random.default_rng(seed)))
        rng = np.random.default_rng(seed)
        factors = [*rng.uniform(0.6, 1.4, 3), rng.uniform(-0.2, 0.2)]
        order = rng.permutation(4)
        for wanted, into in ((order, errors), (order[::-1], other_errors)):
            values = pixels.astype(np.float64)
            for index in wanted:
                values = CHANGES[index](values, factors[index])
            into.append(np.abs(values - result).mean())
    assert max(errors) < 3
    assert np.mean(np.array(other_errors) > 5) > 0.5


def luma(values: np.ndarray) -> np.ndarray:
    return values @ [0.299, 0.587, 0.114]


def blend(degenerate: np.ndarray | float, values: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(degenerate + factor * (values - degenerate), 0, 255)


def turned(values: np.ndarray, turn: float) -> np.ndarray:
    import colorsys

    def one(colour: np.ndarray) -> list[float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour / 255)
        return [255 * channel for channel in colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)]

    return np.array([one(colour) for colour in values.reshape(-1, 3)]).reshape(values.shape)


CHANGES: list[Callable[[np.ndarray, float], np.ndarray]] = [
    lambda values, factor: blend(0.0, values, factor),
    lambda values, factor: blend(luma(values).mean(), values, factor),
    lambda values, factor: blend(luma(values)[..., None], values, factor),
    turned,
]


def test_images_are_mirrored_and_jittered_only_where_asked_for() -> None:
    source = in_memory(40, ramp(200, 200))
    for flip, jitter in ((False, False), (True, False)):
        images = joined(train(source, flip=flip, jitter=jitter), "image").astype(int)
        mirrored = images[:, 8, 1, 0] > images[:, 8, -2, 0]
        assert mirrored.any() == flip and not mirrored.all()
        np.testing.assert_allclose(images[..., 2], 127, atol=25)
    assert np.ptp(joined(train(source, flip=False, jitter=True), "image")[..., 2].astype(int)) > 60


def test_every_image_is_jittered_by_itself() -> None:
    colour = np.full((30, 30, 3), (200, 100, 50), np.uint8)
    assert len(np.unique(joined(train(in_memory(8, colour)), "image").reshape(8, -1), axis=0)) == 8


def test_unknown_missing_and_damaged_data_are_reported_in_a_sentence(prepared: Path) -> None:
    with pytest.raises(ValueError, match="'mnist'.*imagenet"):
        sources.find("mnist", prepared)
    with pytest.raises(ValueError, match="'val'.*train"):
        sources.find("imagenet", prepared).open("val")
    with pytest.raises(FileNotFoundError, match=f"{prepared}/elsewhere/imagenet2012/VERSION.*python -c"):
        sources.find("imagenet", prepared / "elsewhere").open("train")
    source = sources.find("imagenet", prepared).open("train")
    shard(prepared, 1).write_bytes(b"?" * 100_000)
    for workers in (0, 1):
        with pytest.raises(ValueError, match=f"{shard(prepared, 1).parent} is damaged or of another.*python -c"):
            train(source, workers=workers)
    assert not multiprocessing.active_children()
