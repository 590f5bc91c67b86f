"""Finding data sets by name or path, loading them into memory, and splitting them into the two halves of a search.

Nothing here uses a network. Data must be on the disk already; if they are not, the error says how to prepare them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.data import arrays, folders, pictures, tfds
from prdarts_jax.data.source import DataSet, Source, class_counts, subset
from prdarts_jax.data.tfds import Folder
from prdarts_jax.refusals import cut, shown

# The seed of the split of digits and of the images that `num_examples` keeps; never change it.
_STORED_SEED = 0
# The number of images that are decoded at once, so that never more than one chunk is held twice.
_CHUNK = 1000
LARGEST = 4096  # the largest side in pixels that images may be resized to

Size = int | tuple[int, ...]


def _digits(name: str, data_dir: Folder | None) -> DataSet:
    def open_split(split: str) -> Source:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        order = np.random.default_rng(_STORED_SEED).permutation(len(labels))
        trained = len(labels) * 4 // 5
        chosen = order[:trained] if split == "train" else order[trained:]

        def read(indices: list[int]) -> list[dict[str, Any]]:
            return [{"image": images[i], "label": labels[i]} for i in chosen[indices]]

        return Source((8, 8, 1), 10, len(chosen), read)

    return DataSet(name, open_split)


def _imagenet(name: str, data_dir: Folder | None) -> DataSet:
    return tfds.of_splits("imagenet2012", name, data_dir, test="validation")._replace(streamed=True)


# The data sets with names of our own: (name, data_dir) -> data set. No file is opened before `DataSet.open`.
DATASETS: Mapping[str, Callable[[str, Folder | None], DataSet]] = MappingProxyType(
    {
        "digits": _digits,
        "cifar10": functools.partial(tfds.of_splits, "cifar10"),
        "cifar100": functools.partial(tfds.of_splits, "cifar100"),
        "svhn": functools.partial(tfds.of_splits, "svhn_cropped"),
        "fashion_mnist": functools.partial(tfds.of_splits, "fashion_mnist"),
        "imagenet": _imagenet,
    }
)


def find(name: str, data_dir: Folder | None = None, *, test_share: float = 0.2, test_seed: int = 0) -> DataSet:
    """Finds a data set by its name or path, without a network and without TensorFlow.

    Args:
      name: one of these: a key of `DATASETS`, 'digits', 'cifar10', 'cifar100', 'svhn', 'fashion_mnist' or 'imagenet';
        the name of another data set that TFDS has prepared as array_record files; the path of a folder of images (see
        `folders.find`), of the folder cifar-10-batches-py or of an .npz (see `arrays.from_npz`). 'digits' comes with
        scikit-learn: 8x8 grey pixels; four fifths of the images are always 'train'.
      data_dir: the folder of TFDS, which has for example cifar10/3.0.2/ in it; by default $TFDS_DATA_DIR, or else
        ~/tensorflow_datasets.
      test_share, test_seed: `share` and `seed` of `source.held_out`, which holds test images out if a folder, an .npz
        or a data set of TFDS has none.

    Raises:
      FileNotFoundError: the data set is not there, or one of its files is missing.
      ValueError: the name is unknown, or a file cannot be read.
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
        if path.is_absolute() or "." in name:
            raise FileNotFoundError(f"There is no file or folder {shown(name)} with images")
        if prepared := tfds.find(name, data_dir, test_share, test_seed):
            return prepared
    raise ValueError(
        f"Unknown data set {shown(name)}: allowed are {', '.join(DATASETS)}, another name that TFDS has "
        "prepared in data_dir, and the path of a folder of class folders, of an .npz or of cifar-10-batches-py"
        f"{refusals.near(name, DATASETS)}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedSplit:
    """One split of a data set, loaded into memory.

    Attributes:
      name: the name of the data set.
      images: u8[N, H, W, C].
      labels: i32[N], in [0, num_classes).
      num_classes: number of classes.
      classes: the names of the classes, or () if they have none.
      notes: as `Source.notes`.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def load(
    data: str | DataSet,
    data_dir: Folder | None = None,
    *,
    split: str = "train",
    image_size: Size = 0,
    num_examples: int = 0,
    others: bool = False,
) -> LoadedSplit:
    """Loads one split of a data set into memory.

    Args:
      data: the data set, or its name or path.
      data_dir: the folder in which `find` looks for a name.
      split: 'train' or 'test'.
      image_size: a side in pixels, or (height, width), to which images are resized (see `pictures.resized`); 0 keeps
        the original size.
      num_examples: the number of images to keep, drawn by a fixed seed, so the same ones in every call; 0 keeps all.
      others: whether to keep instead the images that a `num_examples` above 0 leaves out.

    Raises:
      FileNotFoundError, ValueError: as `find`; or as `size_of` and `kept` for `image_size` and `num_examples`.
    """
    data = data if isinstance(data, DataSet) else find(data, data_dir)
    source = data.open(split)
    name = cut(data.name, 300)
    height, width = size_of(source, image_size, name)
    source = subset(source, kept(source, num_examples, f"the split {split!r} of {name}", others))
    images = np.empty((len(source), height, width, source.shape[2]), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        examples = source.read(list(range(start, min(start + _CHUNK, len(source)))))
        for place, example in enumerate(examples, start):
            images[place] = _fitting(example["image"], images.shape[1:], bool(image_size), name)
            labels[place] = example["label"]
    return LoadedSplit(data.name, images, labels, source.num_classes, source.classes, source.notes)


def describe(data: Source | LoadedSplit, name: str, tested: int = 0, how: str = "") -> str:
    """Says in one or two lines which data a run uses.

    Args:
      data: a split; its classes and their sizes are given, and on a second line its `notes`.
      name: the name of the data set, as shown.
      tested: the number of test images, as shown; 0 if the run does not test.
      how: the end of the first line, about how the images are used.
    """
    classes = f"{data.num_classes:,} classes"
    if data.labels is not None:
        classes = class_counts(data.labels, data.classes, data.num_classes)
    number = f"{len(data):,} images" + (f", and {tested:,} test images," if tested else "")
    return "\n".join([f"{number} of {name}, {classes}{how}", *(["; ".join(data.notes)] if data.notes else [])])


def is_size(value: Any) -> bool:
    """Whether `load` can resize images to this `image_size`."""
    sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    return value == 0 or all(type(side) is int and 1 <= side <= LARGEST for side in sides)


def size_of(source: Source, image_size: Size, name: str) -> tuple[int, int]:
    """The (height, width) in pixels that the images of a source have after resizing to `image_size` (see `load`).

    `name` is the name of the data set in messages.

    Raises:
      ValueError: `image_size` is neither 0 nor an integer or a pair of integers from 1 to `LARGEST`; or it is 0 and
        the images differ in size.
    """
    if not is_size(image_size):
        raise ValueError(
            f"image_size is {shown(image_size)}: allowed are 1 to {LARGEST}, a pair (height, width), or 0 for "
            "the original size"
        )
    if image_size:
        rows, columns = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        return rows, columns
    height, width, _ = source.shape
    if height is None or width is None:
        raise ValueError(
            f"the images of {name} differ in size, so image_size=0 must be above 0, for instance 32, or (48, 64) for "
            "height and width"
        )
    return height, width


def kept(source: Source, num_examples: int, where: str, others: bool = False) -> np.ndarray:
    """The indices of the images that `num_examples` keeps, or with `others` leaves out (see `load`): integers, [n].

    They are in random order; with num_examples=0 they are all indices in ascending order.

    Args:
      source: all images.
      num_examples, others: as for `load`.
      where: what has the images, for the message.

    Raises:
      ValueError: `num_examples` is not an integer from 0 to len(source).
    """
    if type(num_examples) is not int or not 0 <= num_examples <= len(source):
        raise ValueError(
            f"num_examples is {shown(num_examples)}, but {where} has {len(source)} images: allowed are 1 to "
            f"{len(source)}, or 0 for all."
        )
    order = np.arange(len(source))
    if not num_examples:
        return order
    order = np.random.default_rng(_STORED_SEED).permutation(order)
    return order[num_examples:] if others else order[:num_examples]


def _fitting(image: np.ndarray, shape: tuple[int, ...], resize: bool, name: str) -> np.ndarray:
    """Checks an image and resizes it to `shape`, (H, W, C): u8[H, W, C], or u8[H, W, 1] if it is grey.

    Raises:
      ValueError: the image has another dtype or number of channels, or another size while `resize` is False.
    """
    pixels = np.atleast_3d(image)
    if (
        pixels.dtype != np.uint8
        or pixels.shape[2] not in (1, shape[2])
        or not (resize or pixels.shape[:2] == shape[:2])
    ):
        raise ValueError(
            f"{name} has an image {pixels.dtype}{pixels.shape}, but all must be uint8{shape}; image_size resizes them"
        )
    return pictures.resized(pixels, *shape[:2])


def split_halves(dataset: LoadedSplit, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits N images at random into the two disjoint halves of a bilevel search; if N is odd, one image is left out.

    The same seed gives the same halves in every run and on every machine.

    Returns:
      (train, val), for the weights and for the logits, each {'image': u8[N // 2, H, W, C], 'label': i32[N // 2]}.
    """
    train, val = (
        {"image": dataset.images[indices], "label": dataset.labels[indices]}
        for indices in half_indices(len(dataset.labels), seed, (0.5, 0.5))
    )
    return train, val


def half_indices(images: int, seed: int, shares: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Draws two disjoint sets of indices by the seed.

    Args:
      images: the number of images; indices are below it.
      seed: decides which indices are drawn.
      shares: the fraction of the images in each set, rounded down to a whole number of images. Their sum must be at
        most 1; this is not checked.

    Returns:
      Two arrays of integers, in random order.

    >>> half_indices(5, 0, (0.4, 0.2))
    (array([2, 4]), array([3]))
    """
    order = np.random.default_rng(seed).permutation(images)
    first, second = (int(share * images + 1e-9) for share in shares)  # 0.29 * 100 is a little less than 29
    return order[:first], order[first : first + second]


def statistics(dataset: LoadedSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes (mean, std) for pixels in [0, 1], each a tuple with one float per channel, for `Augmentation`.

    The standard deviation is at least one grey level, 1 / 255, so that a constant channel can be divided by it.
    """
    axes = (0, 1, 2)
    mean = dataset.images.mean(axes, dtype=np.float64)
    # The square of a byte fits into 16 bits, so no float copy of all images is needed.
    square = np.square(dataset.images, dtype=np.uint16).mean(axes, dtype=np.float64)
    std = np.sqrt(np.maximum(square - mean**2, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
