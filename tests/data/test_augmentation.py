"""Augmentation on the device, against slicing in NumPy and by statistics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prdarts_jax.data import augmentation
from prdarts_jax.data.augmentation import Augmentation

augment = jax.jit(augmentation.augment, static_argnums=0)
PLAIN = Augmentation(mean=(0.0,), std=(1.0,), pad=0, flip=False)


def bytes_images(count: int, side: int, channels: int = 1) -> np.ndarray:
    """Random images without a zero, so that black padding can be told from them."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, side, side, channels)).astype(np.uint8)


def test_nothing_but_normalising() -> None:
    images = bytes_images(5, 6, 3)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)
    only = Augmentation(mean, std, pad=0, flip=False)
    result = augment(only, jax.random.key(0), images)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, (images / 255 - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "images, what",
    [
        (np.ones((2, 4, 4, 3), np.float32), r"float32\(2, 4, 4, 3\)"),
        (np.ones((4, 4, 3), np.uint8), r"uint8\(4, 4, 3\)"),
        (np.ones((2, 4, 4, 1), np.uint8), r"uint8\(2, 4, 4, 1\)"),
    ],
)
def test_images_of_another_form_are_refused(images: np.ndarray, what: str) -> None:
    """A channel would be broadcast to three, and pixels in [0, 1] be taken as nearly black."""
    with pytest.raises(ValueError, match=r"std=\(0.25,\)"):
        augment(Augmentation((0.5,) * 3, (0.25,)), jax.random.key(0), np.ones((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=rf"^images are {what}, but must be uint8\(B, H, W, 3\), from 0 to 255, "):
        augment(Augmentation((0.5,) * 3, (0.25,) * 3), jax.random.key(0), images)


def test_crops_and_flips_are_uniform_and_independent_of_one_another() -> None:
    """Each result must be one of the 25 crops, mirrored or not, worked out by slicing."""
    side, pad, count = 4, 2, 5000
    image = bytes_images(1, side)[0]
    assert len(np.unique(image)) == side * side
    black = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crops = [black[top : top + side, left : left + side] for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
    views = crops + [crop[:, ::-1] for crop in crops]
    outcomes = {view.tobytes(): index for index, view in enumerate(views)}
    assert len(outcomes) == 50
    both = dataclasses.replace(PLAIN, pad=pad, flip=True)
    images = np.broadcast_to(image, (count, *image.shape))
    result = np.rint(np.asarray(augment(both, jax.random.key(1), images)) * 255)
    seen = [outcomes[r.tobytes()] for r in result.astype(np.uint8)]
    counts = np.bincount(seen, minlength=50)
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    assert scipy.stats.binomtest(int(counts[25:].sum()), count, 0.5).pvalue > 0.001


def test_padding_is_black_before_normalising() -> None:
    padded = dataclasses.replace(PLAIN, mean=(0.5,), std=(0.25,), pad=3)
    result = augment(padded, jax.random.key(2), np.full((64, 4, 4, 1), 255, np.uint8))
    np.testing.assert_array_equal(np.unique(np.round(result, 4)), [-2.0, 2.0])


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_is_a_clipped_square_around_any_pixel(side: int) -> None:
    size, count = 6, 3600
    cutting = dataclasses.replace(PLAIN, cutout=side)
    result = augment(cutting, jax.random.key(3), bytes_images(count, size))
    expected: dict[bytes, int] = {}
    for row in range(size):
        for column in range(size):
            mask = np.zeros((size, size), bool)
            top, left = row - side // 2, column - side // 2
            mask[max(0, top) : top + side, max(0, left) : left + side] = True
            expected[mask.tobytes()] = len(expected)
    assert len(expected) == size * size
    seen = [expected[(r[..., 0] == 0).tobytes()] for r in np.asarray(result)]
    assert scipy.stats.chisquare(np.bincount(seen, minlength=size * size)).pvalue > 0.001


def test_augmentation_compiles_and_batches_over_keys() -> None:
    everything = Augmentation((0.5,) * 3, (0.2,) * 3, pad=2, cutout=4)
    images = bytes_images(6, 8, 3)
    keys = jax.random.split(jax.random.key(4), 3)
    together = jax.vmap(lambda key: augment(everything, key, images))(keys)
    for key, result in zip(keys, together, strict=True):
        np.testing.assert_allclose(result, augment(everything, key, images), atol=1e-5)
    assert not np.array_equal(together[0], together[1])


def test_crop_and_cutout_are_independent() -> None:
    """As many offsets as centres: the same random numbers used twice would show at once."""
    side, pad, count = 5, 2, 4000
    both = Augmentation((0.5,), (0.25,), pad=pad, flip=False, cutout=1)
    white = np.full((count, side, side, 1), 255, np.uint8)
    result = np.round(augment(both, jax.random.key(5), white)[..., 0], 4)
    black = (result <= 0).all(2)
    top = pad - black[:, :pad].sum(1) + black[:, -pad:].sum(1)
    centre = (result == 0).any(2).argmax(1)
    table = np.zeros((side, side))
    np.add.at(table, (top, centre), 1)
    assert scipy.stats.chi2_contingency(table).pvalue > 0.001
