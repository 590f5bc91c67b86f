"""Image files, read by Pillow into bytes of one kind, and resizing."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from prdarts_jax.refusals import cut

# Of files that are taken for images, as torchvision's ImageFolder has them, and GIF.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_LARGEST = 2**14  # side in pixels of a picture


class Header(NamedTuple):
    """What a file says of its image."""

    height: int
    width: int
    grey: bool
    transparent: bool  # somewhere


def header(path: Path) -> Header:
    """What a file says of its image, without decoding it.

    Raises:
      ValueError: naming the file, it is no image that can be used.
    """

    def look(image):
        # Of a PNG without EXIF before its pixels, `getexif` would decode these to look for it behind them.
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        return Header(height, width, image.mode in ("1", "L", "LA"), image.has_transparency_data)

    return _opened(path, look)


def read(path: Path, channels: int) -> np.ndarray:
    """The image of a file as a viewer shows it: turned as EXIF says, what is transparent on white, of an animation the
    first picture.

    Args:
      path: of the file.
      channels: 1, for grey, or 3.

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
    """The result of a function of the open image, and whatever goes wrong as one sentence."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels are of the kind {image.mode}, and must have 8 bits a channel")
            if max(image.size) > _LARGEST:
                raise ValueError(f"it has {image.width}x{image.height} pixels, and may have {_LARGEST} a side at most")
            return use(image)
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        cause = str(error).replace(f" {str(path)!r}", "").replace(f" '{path}'", "")
        raise ValueError(
            f"{cut(str(path), 300)} cannot be read as an image ({cut(cause, 150)}): repair the file or take it away"
        ) from None


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """u8[H, W, C] -> u8[height, width, C], whatever their aspects.

    Areas are averaged where both sides are whole multiples of the new ones; else it is Pillow's bilinear filter, which
    is antialiased where it shrinks.

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
