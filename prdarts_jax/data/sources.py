"""Data sets as arrays, their halves for a search, and augmentation inside a compiled step.

Nothing here touches a network: a search reads data that lie prepared on the disk, or says how to
prepare them.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.devices import draw_part

_TFDS_NAMES = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "svhn": "svhn_cropped",
    "fashion_mnist": "fashion_mnist",
    "imagenet": "imagenet2012",
}
# Those that `load` holds in memory; `streaming` reads the others.
NAMES = ("digits", "cifar10", "cifar100", "svhn", "fashion_mnist")
STREAMED = ("imagenet",)

# Decides the split of digits and which images a subset keeps; never change it.
_STORED_SEED = 0
# Images decoded at once, so that only one chunk is ever held twice.
_CHUNK = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory.

    Attributes:
      name: one of `NAMES`.
      images: u8[N, H, W, C].
      labels: i32[N], in [0, num_classes).
      num_classes: number of classes.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    num_classes: int


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    image_size: int = 0,
    num_examples: int = 0,
) -> Dataset:
    """Reads one split of a data set, without a network and without TensorFlow.

    Args:
      name: one of `NAMES`. 'digits' is embedded in scikit-learn (8x8, about 80 % are 'train'); the
        others are read from array_record files that TFDS prepared.
      data_dir: the folder of TFDS, holding e.g. cifar10/3.0.2/; by default TFDS's own,
        $TFDS_DATA_DIR or else ~/tensorflow_datasets.
      split: 'train', 'test' or another that the data set has.
      image_size: side in pixels to shrink to by averaging areas; 0 keeps the original.
      num_examples: keeps that many images, the same ones in every call; 0 keeps all.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown name or split, an impossible image_size or num_examples, or files
        that cannot be read.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown data set {name!r}: allowed are {', '.join(NAMES)}.")
    source = _digits(split) if name == "digits" else open_split(name, data_dir, split=split)
    height, _, channels = source.shape
    side = image_size or height
    allowed = [size for size in range(1, height + 1) if height % size == 0]
    if side not in allowed:
        raise ValueError(
            f"image_size is {image_size}, but {name} has {height}x{height} images: allowed are "
            f"{', '.join(map(str, allowed))}, or 0 for the original size."
        )
    if not 0 <= num_examples <= source.length:
        raise ValueError(
            f"num_examples is {num_examples}, but {name} has {source.length} images in its split "
            f"{split!r}: allowed are 1 to {source.length}, or 0 for all."
        )
    order = np.arange(source.length)
    if num_examples:
        order = np.random.default_rng(_STORED_SEED).permutation(order)[:num_examples]
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

    Args:
      dataset: N images; for an odd N one image is left out.
      seed: decides the halves, in every run and on every machine.

    Returns:
      (train, val), each {'image': u8[N // 2, H, W, C], 'label': i32[N // 2]}.
    """
    half = len(dataset.labels) // 2
    order = np.random.default_rng(seed).permutation(len(dataset.labels))

    def take(indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": dataset.images[indices], "label": dataset.labels[indices]}

    return take(order[:half]), take(order[half : 2 * half])


def statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, with pixels in [0, 1].

    Returns:
      (mean, std), C floats each; std is at least one grey level, 1 / 255, so that a constant
      channel can be divided by it.
    """
    axes = (0, 1, 2)
    mean = dataset.images.mean(axes, dtype=np.float64)
    # The square of a byte fits 16 bits, so no float copy of all the images is needed.
    square = np.square(dataset.images, dtype=np.uint16).mean(axes, dtype=np.float64)
    std = np.sqrt(np.maximum(square - mean**2, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


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

    The padding is black before normalising, as in DARTS (Liu, Simonyan, Yang, ICLR 2019). The
    square of Cutout (DeVries and Taylor, 2017) has its centre anywhere in the image and is clipped
    at the border; it is 0, which is the mean colour, since it comes after normalising.

    Args:
      augmentation: static.
      key: one key, consumed.
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
    first_row, first_column = centre - augmentation.cutout // 2
    cut_rows = _within(jnp.arange(height), first_row, augmentation.cutout)
    cut_columns = _within(jnp.arange(width), first_column, augmentation.cutout)
    cut = cut_rows[:, :, None] & cut_columns[:, None, :]
    return jnp.where(cut[..., None], 0.0, normalised)


def _within(positions: jax.Array, first: jax.Array, length: int) -> jax.Array:
    return (positions >= first) & (positions < first + length)


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Averages areas: u8[N, H, H, C] to u8[N, side, side, C], where side divides H."""
    count, height, _, channels = images.shape
    if side == height:
        return images
    factor = height // side
    blocks = images.reshape(count, side, factor, side, factor, channels)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set that can be read in pieces; cloudpickle can send it to another process.

    Attributes:
      shape: (H, W, C) of its images; H and W are None where they differ.
      num_classes: number of classes.
      length: number of images.
      read: positions in, dicts out, of 'image', u8[H, W, C] or u8[H, W], and 'label', in [0, num_classes).
    """

    shape: tuple[int, int, int]
    num_classes: int
    length: int
    read: Callable[[list[int]], Sequence[dict[str, Any]]]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]


def _digits(split: str) -> Source:
    from sklearn.datasets import load_digits

    _check_split("digits", split, ("train", "test"))
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(_STORED_SEED).permutation(len(labels))
    cut = len(labels) * 4 // 5
    chosen = order[:cut] if split == "train" else order[cut:]

    def read(indices: list[int]) -> list[dict[str, Any]]:
        return [{"image": images[i], "label": labels[i]} for i in chosen[indices]]

    return Source((8, 8, 1), 10, len(chosen), read)


def open_split(name: str, data_dir: str | os.PathLike[str] | None = None, *, split: str = "train") -> Source:
    """Opens one split of the newest version of a data set that TFDS prepared as array_record files, without TensorFlow.

    Args:
      name: 'imagenet', which is TFDS's imagenet2012, or one of `NAMES` but 'digits'.
      data_dir: as for `load`.
      split: 'train', 'test', 'validation' or another that the data set has.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown name or split, or files that cannot be read; also later, when they are read.
    """
    if name not in _TFDS_NAMES:
        raise ValueError(f"Unknown data set {name!r}: allowed are {', '.join(_TFDS_NAMES)}.")
    tfds_name = _TFDS_NAMES[name]
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(root).expanduser().absolute()
    prepare = (
        "To prepare it once, where there is a network: pip install tensorflow tensorflow-datasets "
        'importlib_resources && python -c "import tensorflow_datasets as tfds; tfds.builder('
        f"{tfds_name!r}, data_dir={str(root)!r}, file_format='array_record')"
        '.download_and_prepare()"'
    )
    folder = _newest_version(root / tfds_name)
    if folder is None:
        raise FileNotFoundError(
            f"Data set {name} is not in data_dir {root}: expected the folder {root / tfds_name}"
            f"/VERSION with dataset_info.json and *.array_record* files. {prepare}"
        )
    for required in ("dataset_info.json", "features.json"):
        if not (folder / required).is_file():
            raise FileNotFoundError(f"Data set {name} is incomplete: {folder / required} is missing. {prepare}")
    # Only now, since it takes a second and digits need none of it.
    import tensorflow_datasets as tfds

    with _blaming_files(name, folder, prepare):
        # Unlike tfds.builder and tfds.data_source, this never looks for the data in a network.
        builder = tfds.builder_from_directory(folder)
        info = builder.info
    _check_split(name, split, tuple(info.splits))
    for file in map(Path, info.splits[split].filepaths):
        if not file.is_file():
            raise FileNotFoundError(f"Data set {name} is incomplete: {file} is missing. {prepare}")
    with _blaming_files(name, folder, prepare):
        source = builder.as_data_source(split)

    def read(indices: list[int]) -> Sequence[dict[str, Any]]:
        with _blaming_files(name, folder, prepare), _quiet():
            return source.__getitems__(indices)

    return Source(info.features["image"].shape, info.features["label"].num_classes, len(source), read)


def _newest_version(folder: Path) -> Path | None:
    # Other names are preparations under way or broken off, e.g. incomplete.A1B2C3_3.0.2.
    versions = [path for path in folder.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


def _check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    if split not in allowed:
        raise ValueError(f"Unknown split {split!r} of {name}: allowed are {', '.join(allowed)}.")


@contextmanager
def _blaming_files(name: str, folder: Path, prepare: str) -> Iterator[None]:
    """Turns whatever the readers raise about damaged files into one sentence."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        cause = str(error).partition("\n")[0]
        raise ValueError(
            f"Data set {name} cannot be read: a file in {folder} is damaged or of another format "
            f"than array_record ({cause}); move that folder away first. {prepare}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Mutes TFDS's advice to install OpenCV, which every first decoding would print."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
