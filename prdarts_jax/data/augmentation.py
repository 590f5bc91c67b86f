"""Augmentation of training images inside a compiled step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.devices import draw_part


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What `augment` does to a training image; pad=0, flip=False, cutout=0 only normalises.

    Attributes:
      mean: per channel, with pixels in [0, 1].
      std: per channel, with pixels in [0, 1].
      pad: black pixels added on each side before a random crop of the original size.
      flip: whether to mirror left and right with probability 1/2.
      cutout: side in pixels of the square set to 0 after normalising; 0 is off.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 4
    flip: bool = True
    cutout: int = 0


def augment(
    augmentation: Augmentation, key: jax.Array, images: jax.Array | np.ndarray, axis_name: str | None = None
) -> jax.Array:
    """Pads and crops, flips, normalises and cuts out, each image by its own random numbers.

    The padding is black before normalising, as in DARTS (Liu, Simonyan, Yang, ICLR 2019). The square of Cutout (DeVries
    and Taylor, 2017) has its centre anywhere in the image and is clipped at the border; it is 0, which is the mean
    colour, since it comes after normalising.

    Args:
      augmentation: static.
      key: consumed.
      images: u8[B, H, W, C].
      axis_name: mapped axis over which the batch is spread, if any.

    Returns:
      f32[B, H, W, C].
    """
    batch, height, width, _ = images.shape
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    pad = augmentation.pad
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    top, left = draw_part(lambda n: jax.random.randint(crop_key, (2, n, 1), 0, 2 * pad + 1), batch, axis_name, 1)
    rows, columns = jnp.arange(height), jnp.arange(width)
    if augmentation.flip:
        mirrored = draw_part(lambda n: jax.random.bernoulli(flip_key, shape=(n, 1)), batch, axis_name)
        columns = jnp.where(mirrored, columns[::-1], columns)
    # One gather for crop and flip is quicker on a CPU than one dynamic_slice an image.
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
