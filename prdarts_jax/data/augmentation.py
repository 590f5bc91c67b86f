"""Augmentation of training images inside a compiled step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.devices import draw_part
from prdarts_jax.refusals import shown


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The settings of `augment`, hashable; with pad=0, flip=False and cutout=0 it only normalises.

    Attributes:
      mean: mean of each channel, for pixels in [0, 1]; a tuple of C floats.
      std: standard deviation of each channel, for pixels in [0, 1]; a tuple of C floats.
      pad: number of black pixels added on each side before a random crop of the original size.
      flip: whether to mirror left and right with probability 1/2.
      cutout: side in pixels of the square that is set to 0 after normalising; 0 turns it off.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 4
    flip: bool = True
    cutout: int = 0


def augment(
    augmentation: Augmentation, key: jax.Array, images: jax.Array | np.ndarray, axis_name: str | None = None
) -> jax.Array:
    """Pads and crops, flips, normalises and cuts out a square, with random numbers of their own for each image.

    The padding is black before normalising, as in DARTS (Liu, Simonyan, Yang, ICLR 2019). The square of Cutout (DeVries
    and Taylor, 2017) has its centre anywhere in the image and is clipped at the border. Cutout comes after normalising,
    so the 0 in the square is the mean colour.

    Args:
      augmentation: static.
      key: a random key; do not use it again.
      images: u8[B, H, W, C], the batch, or the part of it that this device has.
      axis_name: the mapped axis over which the batch is spread, if any. Each image is then augmented as it would be in
        the whole batch on one device.

    Returns:
      f32[B, H, W, C].

    Raises:
      ValueError: the images are of another dtype or shape, or have not as many channels as `mean` and `std`.
    """
    channels = len(augmentation.mean)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels or len(augmentation.std) != channels:
        raise ValueError(
            f"images are {images.dtype}{shown(images.shape)}, but must be uint8(B, H, W, {channels}), from 0 to 255, "
            f"with a channel for each number of mean={augmentation.mean} and std={augmentation.std}"
        )
    batch, height, width, _ = images.shape
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    pad = augmentation.pad
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    top, left = draw_part(lambda n: jax.random.randint(crop_key, (2, n, 1), 0, 2 * pad + 1), batch, axis_name, 1)
    rows, columns = jnp.arange(height), jnp.arange(width)
    if augmentation.flip:
        mirrored = draw_part(lambda n: jax.random.bernoulli(flip_key, shape=(n, 1)), batch, axis_name)
        columns = jnp.where(mirrored, columns[::-1], columns)
    # On a CPU, one gather for crop and flip is faster than one dynamic_slice per image.
    cropped = padded[jnp.arange(batch)[:, None, None], (top + rows)[:, :, None], (left + columns)[:, None, :]]
    mean, std = jnp.array(augmentation.mean), jnp.array(augmentation.std)
    normalised = (cropped.astype(jnp.float32) / 255 - mean) / std
    if not augmentation.cutout:
        return normalised
    sides = jnp.array([height, width])[:, None, None]
    centre = draw_part(lambda n: jax.random.randint(cutout_key, (2, n, 1), 0, sides), batch, axis_name, 1)
    first = centre - augmentation.cutout // 2
    cut_rows, cut_columns = (
        (places >= start) & (places < start + augmentation.cutout)
        for places, start in zip((jnp.arange(height), jnp.arange(width)), first, strict=True)
    )
    return jnp.where((cut_rows[:, :, None] & cut_columns[:, None, :])[..., None], 0.0, normalised)
