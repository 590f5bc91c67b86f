"""Data sets by name or path, those held in memory as arrays, and their halves for a search.

Nothing here touches a network: data lie prepared on the disk, or the error says how to prepare them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.data import arrays, folders, pictures, tfds
from prdarts_jax.data.source import DataSet, Source, check_split, class_counts, taking
from prdarts_jax.data.tfds import Folder
from prdarts_jax.refusals import cut, shown

# Decides the split of digits and which images a subset keeps; never change it.
_STORED_SEED = 0
# Images decoded at once, so that only one chunk is ever held twice.
_CHUNK = 1000
LARGEST = 4096  # side in pixels that images may be resized to

Size = int | tuple[int, ...]


def _digits(name: str, data_dir: Folder | None) -> DataSet:
    def open_split(split: str) -> Source:
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

    return DataSet(name, open_split)


def _imagenet(name: str, data_dir: Folder | None) -> DataSet:
    return tfds.of_splits("imagenet2012", name, data_dir, test="validation")._replace(streamed=True)


# Those with names of ours: (name, data_dir) -> the data set, of which nothing is opened yet.
DATASETS: Mapping[str, Callable[[str, Folder | None], DataSet]] = {
    "digits": _digits,
    "cifar10": functools.partial(tfds.of_splits, "cifar10"),
    "cifar100": functools.partial(tfds.of_splits, "cifar100"),
    "svhn": functools.partial(tfds.of_splits, "svhn_cropped"),
    "fashion_mnist": functools.partial(tfds.of_splits, "fashion_mnist"),
    "imagenet": _imagenet,
}


def find(name: str, data_dir: Folder | None = None, *, test_share: float = 0.2, test_seed: int = 0) -> DataSet:
    """A data set by its name or path, found without a network and without TensorFlow.

    Args:
      name: a key of `DATASETS` ('digits' is embedded in scikit-learn: 8x8, about 80 % are 'train'); or the path of a
        folder of images (see `folders.find`), of cifar-10-batches-py or of an .npz (see `arrays.from_npz`); or the name
        of another data set that TFDS has prepared as array_record files.
      data_dir: the folder of TFDS, holding e.g. cifar10/3.0.2/; by default TFDS's own, $TFDS_DATA_DIR or else
        ~/tensorflow_datasets.
      test_share, test_seed: which images are tested where there are none for it; see `source.held_out`.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown name, or files that cannot be read.
    """
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name](name, data_dir)
    if isinstance(name, str) and name:
        path = refusals.path("data set", name)
        if path.is_dir() and arrays.is_cifar(path):
            return arrays.from_cifar(path)
        if path.is_dir():
            return folders.find(path, test_share, test_seed)
        if path.is_file():
            return arrays.from_npz(path, test_share, test_seed)
        if prepared := tfds.find(name, data_dir, test_share, test_seed):
            return prepared
    raise ValueError(
        f"Unknown data set {shown(name)}: allowed are {', '.join(DATASETS)}, another name that TFDS has "
        "prepared in data_dir, and the path of a folder of class folders, of an .npz or of cifar-10-batches-py"
        f"{refusals.near(name, DATASETS)}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory."""

    name: str  # of the data set
    images: np.ndarray  # u8[N, H, W, C]
    labels: np.ndarray  # i32[N], in [0, num_classes)
    num_classes: int
    classes: tuple[str, ...] = ()  # their names, where they have some
    notes: tuple[str, ...] = ()  # as `Source.notes`


def load(
    data: str | DataSet,
    data_dir: Folder | None = None,
    *,
    split: str = "train",
    image_size: Size = 0,
    num_examples: int = 0,
    others: bool = False,
) -> Dataset:
    """Reads one split of a data set into memory.

    Args:
      data: the data set, or its name or path.
      data_dir: where it is looked for by its name; see `find`.
      split: 'train' or 'test'.
      image_size: side in pixels, or (height, width), to resize to (see `pictures.resized`); 0 keeps the original.
      num_examples: keeps that many images, the same ones in every call; 0 keeps all.
      others: keeps those that `num_examples` leaves out instead.

    Raises:
      FileNotFoundError, ValueError: as `find`, or an impossible image_size or num_examples.
    """
    data = data if isinstance(data, DataSet) else find(data, data_dir)
    source = data.open(split)
    name = cut(data.name, 300)
    height, width = size_of(source, image_size, name)
    source = taking(source, kept(source, num_examples, f"{name} has {{}} images in its split {split!r}", others))
    images = np.empty((len(source), height, width, source.shape[2]), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        examples = source.read(list(range(start, min(start + _CHUNK, len(source)))))
        for place, example in enumerate(examples, start):
            images[place] = _fitting(example["image"], images.shape[1:], bool(image_size), name)
            labels[place] = example["label"]
    return Dataset(data.name, images, labels, source.num_classes, source.classes, source.notes)


def describe(data: Source | Dataset, name: str, images: int) -> str:
    """What a run is about to use, in one or two lines: how many images, of which classes, and what was decided."""
    classes = f"{data.num_classes:,} classes"
    if data.labels is not None:
        classes = class_counts(data.labels, data.classes, data.num_classes)
    return "\n".join([f"{images:,} images of {name}, {classes}", *(["; ".join(data.notes)] if data.notes else [])])


def size_of(source: Source, image_size: Size, name: str) -> tuple[int, int]:
    """The height and width that the images of a source will have.

    Raises:
      ValueError: `image_size` is no size, or 0 where the images differ.
    """
    sizes = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    if (
        len(sizes) != 2
        or not all(type(side) is int for side in sizes)
        or not (image_size == 0 or all(1 <= side <= LARGEST for side in sizes))
    ):
        raise ValueError(
            f"image_size is {shown(image_size)}: allowed are 1 to {LARGEST}, a (height, width) of two such, or 0 for "
            "the original size"
        )
    if image_size:
        return sizes
    height, width, _ = source.shape
    if height is None or width is None:
        raise ValueError(
            f"the images of {name} differ in size, so image_size=0 must be above 0, for instance 32, or (48, 64) for "
            "height and width"
        )
    return height, width


def kept(source: Source, num_examples: int, what: str, others: bool = False) -> np.ndarray:
    """The places of the images that `num_examples` keeps, or of the others; see `load`. `what` is for messages."""
    if type(num_examples) is not int or not 0 <= num_examples <= len(source):
        there = what.format(len(source))
        raise ValueError(
            f"num_examples is {shown(num_examples)}, but {there}: allowed are 1 to {len(source)}, or 0 for all."
        )
    order = np.arange(len(source))
    if not num_examples:
        return order
    order = np.random.default_rng(_STORED_SEED).permutation(order)
    return order[num_examples:] if others else order[:num_examples]


def _fitting(image: np.ndarray, shape: tuple[int, ...], resize: bool, name: str) -> np.ndarray:
    """u8 of the shape (H, W, C), from an image of maybe another size, or of one channel."""
    pixels = np.atleast_3d(image)
    if (
        pixels.dtype != np.uint8
        or pixels.shape[2] not in (1, shape[2])
        or not (resize or pixels.shape[:2] == shape[:2])
    ):
        raise ValueError(
            f"{name} has an image {pixels.dtype}{pixels.shape}, but must have such of uint8{shape}; image_size resizes"
        )
    return pictures.resized(pixels, *shape[:2])


def split_halves(dataset: Dataset, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Cuts a data set into the two disjoint halves of a bilevel search.

    The seed decides them, in every run and on every machine. Of an odd number of images, N, one is left out.

    Returns:
      (train, val), each {'image': u8[N // 2, H, W, C], 'label': i32[N // 2]}.
    """
    train, val = (
        {"image": dataset.images[places], "label": dataset.labels[places]}
        for places in half_places(len(dataset.labels), seed, (0.5, 0.5))
    )
    return train, val


def half_places(images: int, seed: int, shares: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint places of such shares of so many images, drawn by the seed, rounded down.

    >>> half_places(5, 0, (0.4, 0.2))
    (array([2, 4]), array([3]))
    """
    order = np.random.default_rng(seed).permutation(images)
    first, second = (int(share * images) for share in shares)
    return order[:first], order[first : first + second]


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
