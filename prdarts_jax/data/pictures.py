"""Reading image files into arrays of uint8 by Pillow, and resizing."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from prdarts_jax.refusals import cut

# Files with these endings are taken for images: those of torchvision's ImageFolder, and GIF.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_LARGEST = 2**14  # the largest side of an image in pixels


class Header(NamedTuple):
    """What the header of a file says about its image."""

    height: int  # in pixels, after the rotation that EXIF asks for
    width: int
    grey: bool
    transparent: bool  # whether it has an alpha channel or a transparent colour


def header(path: Path) -> Header:
    """Reads the header of a file, without decoding the pixels.

    Raises:
      ValueError: the file is not an image that can be used; the message names the file.
    """

    def look(image):
        # For a PNG without EXIF before its pixels, `getexif` would decode the pixels to look for EXIF after them.
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        return Header(height, width, image.mode in ("1", "L", "LA"), image.has_transparency_data)

    return _opened(path, look)


def read(path: Path, channels: int) -> np.ndarray:
    """Reads the image of a file as a viewer shows it: rotated as EXIF says, transparent parts on white, and of an
    animation the first frame.

    Args:
      path: the file.
      channels: 1 for grey, or 3 for RGB. An image of the other kind is converted.

    Returns:
      u8[H, W, channels].

    Raises:
      ValueError: as `header`, or the file is damaged.
    """

    def decode(image):
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return pixels.reshape(*pixels.shape[:2], channels)

    return _opened(path, decode)


def _opened(path, use):
    """Returns `use(image)` for the open image; raises any error as a ValueError of one sentence that names the file."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels are of the kind {image.mode}, but must have 8 bits per channel")
            if max(image.size) > _LARGEST:
                raise ValueError(f"it has {image.width}x{image.height} pixels, but a side may have at most {_LARGEST}")
            return use(image)
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        cause = str(error).replace(f" {str(path)!r}", "").replace(f" '{path}'", "")
        raise ValueError(
            f"{cut(str(path), 300)} cannot be read as an image ({cut(cause, 150)}): repair or remove the file"
        ) from None


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes u8[H, W, C] to u8[height, width, C]; the aspect ratio may change.

    If both sides are whole multiples of the new ones, areas are averaged. Otherwise Pillow's bilinear filter is used,
    which is antialiased when an image gets smaller.

    >>> resized(np.array([[[0], [10]], [[20], [30]]], np.uint8), 1, 1)
    array([[[15]]], dtype=uint8)
    >>> resized(np.array([[[0], [100]]], np.uint8), 1, 4).ravel()
    array([  0,  25,  75, 100], dtype=uint8)
    """
    rows, columns, channels = pixels.shape
    if (rows, columns) == (height, width):
        return pixels
    if rows % height == 0 and columns % width == 0:
        blocks = pixels.reshape(height, rows // height, width, columns // width, channels)
        return np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.uint8)
    planes = (Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(channels))
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes], -1)
