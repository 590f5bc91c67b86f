"""Data sets: their registry, those held in memory as arrays, and their halves for a search.

Nothing here touches a network: data lie prepared on the disk, or the error says how to prepare them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from prdarts_jax.data import tfds
from prdarts_jax.data.tfds import Folder, Source, check_split
from prdarts_jax.refusals import listed, shown

# Decides the split of digits and which images a subset keeps; never change it.
_STORED_SEED = 0
# Images decoded at once, so that only one chunk is ever held twice.
_CHUNK = 1000


class Entry(NamedTuple):
    """A data set of the registry.

    Attributes:
      open: (name, data_dir, split) -> that split; raises as `open_split`.
      streamed: whether `streaming` reads it from disk during a training; `load` holds the others in memory.
    """

    open: Callable[[str, Folder | None, str], Source]
    streamed: bool = False


def _digits(name: str, data_dir: Folder | None, split: str) -> Source:
    from sklearn.datasets import load_digits

    check_split(name, split, ("train", "test"))
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(_STORED_SEED).permutation(len(labels))
    cut = len(labels) * 4 // 5
    chosen = order[:cut] if split == "train" else order[cut:]

    def read(indices: list[int]) -> list[dict[str, Any]]:
        return [{"image": images[i], "label": labels[i]} for i in chosen[indices]]

    return Source((8, 8, 1), 10, len(chosen), read)


DATASETS: Mapping[str, Entry] = {
    "digits": Entry(_digits),
    "cifar10": Entry(functools.partial(tfds.open_split, "cifar10")),
    "cifar100": Entry(functools.partial(tfds.open_split, "cifar100")),
    "svhn": Entry(functools.partial(tfds.open_split, "svhn_cropped")),
    "fashion_mnist": Entry(functools.partial(tfds.open_split, "fashion_mnist")),
    "imagenet": Entry(functools.partial(tfds.open_split, "imagenet2012"), streamed=True),
}


def open_split(name: str, data_dir: Folder | None = None, *, split: str = "train") -> Source:
    """Opens one split of a data set, without a network and without TensorFlow.

    Args:
      name: a key of `DATASETS`. 'digits' is embedded in scikit-learn (8x8, about 80 % are 'train'); the others are
        read from array_record files that TFDS prepared.
      data_dir: the folder of TFDS, holding e.g. cifar10/3.0.2/; by default TFDS's own, $TFDS_DATA_DIR or else
        ~/tensorflow_datasets.
      split: 'train', 'test', 'validation' or another that the data set has.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown name or split, or files that cannot be read; the last also later, when they are read.
    """
    return _open(DATASETS, name, data_dir, split)


def _open(allowed: Mapping[str, Entry], name: str, data_dir: Folder | None, split: str) -> Source:
    if not isinstance(name, str) or name not in allowed:
        raise ValueError(f"Unknown data set {shown(name)}: allowed are {listed(name, allowed)}.")
    return allowed[name].open(name, data_dir, split)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory."""

    name: str  # a key of `DATASETS`
    images: np.ndarray  # u8[N, H, W, C]
    labels: np.ndarray  # i32[N], in [0, num_classes)
    num_classes: int


def load(
    name: str,
    data_dir: Folder | None = None,
    *,
    split: str = "train",
    image_size: int = 0,
    num_examples: int = 0,
    others: bool = False,
) -> Dataset:
    """Reads one split of a data set into memory, without a network and without TensorFlow.

    Args:
      name: a key of `DATASETS` that is not streamed.
      data_dir, split: as for `open_split`.
      image_size: side in pixels to shrink to by averaging areas; 0 keeps the original.
      num_examples: keeps that many images, the same ones in every call; 0 keeps all.
      others: keeps those that `num_examples` leaves out instead.

    Raises:
      FileNotFoundError, ValueError: as `open_split`, or an impossible image_size or num_examples.
    """
    in_memory = {key: entry for key, entry in DATASETS.items() if not entry.streamed}
    source = _open(in_memory, name, data_dir, split)
    height, width, channels = source.shape
    if height is None or height != width:
        raise ValueError(f"{name} has images of {height}x{width} pixels, but must have square ones of one size.")
    allowed = [size for size in range(1, height + 1) if height % size == 0]
    if type(image_size) is not int or image_size not in (0, *allowed):
        raise ValueError(
            f"image_size is {shown(image_size)}, but {name} has {height}x{height} images: allowed are "
            f"{', '.join(map(str, allowed))}, or 0 for the original size."
        )
    side = image_size or height
    if type(num_examples) is not int or not 0 <= num_examples <= source.length:
        raise ValueError(
            f"num_examples is {shown(num_examples)}, but {name} has {source.length} images in its split "
            f"{split!r}: allowed are 1 to {source.length}, or 0 for all."
        )
    order = np.arange(source.length)
    if num_examples:
        order = np.random.default_rng(_STORED_SEED).permutation(order)
        order = order[num_examples:] if others else order[:num_examples]
    images = np.empty((len(order), side, side, channels), np.uint8)
    labels = np.empty(len(order), np.int32)
    for start in range(0, len(order), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        examples = source.read(order[chunk].tolist())
        images[chunk] = _shrink(np.stack([example["image"] for example in examples]), side)
        labels[chunk] = [example["label"] for example in examples]
    return Dataset(name, images, labels, source.num_classes)


def split_halves(dataset: Dataset, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Cuts a data set into the two disjoint halves of a bilevel search.

    The seed decides them, in every run and on every machine. Of an odd number of images, N, one is left out.

    Returns:
      (train, val), each {'image': u8[N // 2, H, W, C], 'label': i32[N // 2]}.
    """
    half = len(dataset.labels) // 2
    order = np.random.default_rng(seed).permutation(len(dataset.labels))
    train, val = ({"image": dataset.images[i], "label": dataset.labels[i]} for i in order[: 2 * half].reshape(2, half))
    return train, val


def statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, with pixels in [0, 1].

    Both are C floats; std is at least one grey level, 1 / 255, so that a constant channel can be divided by it.
    """
    axes = (0, 1, 2)
    mean = dataset.images.mean(axes, dtype=np.float64)
    # The square of a byte fits 16 bits, so no float copy of all the images is needed.
    square = np.square(dataset.images, dtype=np.uint16).mean(axes, dtype=np.float64)
    std = np.sqrt(np.maximum(square - mean**2, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Averages areas: u8[N, H, H, C] to u8[N, side, side, C], where side divides H."""
    count, height, _, channels = images.shape
    if side == height:
        return images
    factor = height // side
    blocks = images.reshape(count, side, factor, side, factor, channels)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
