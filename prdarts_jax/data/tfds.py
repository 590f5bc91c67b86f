"""Data sets that TFDS prepared as array_record files."""

import dataclasses
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from prdarts_jax import refusals
from prdarts_jax.data.source import DataSet, Source, check_split, checksum, held_out
from prdarts_jax.refusals import shown

# The largest side in pixels, and the largest numbers of classes and of examples.
_SIDE, _CLASSES, _EXAMPLES = 4096, 10**6, 10**8
_LABELS = 1000  # the number of images in memory at once when only their labels are needed

Folder = str | os.PathLike[str]


def open_split(tfds_name: str, name: str, data_dir: Folder | None, split: str) -> Source:
    """Opens a split of the newest version of a data set.

    Args:
      tfds_name: the name in TFDS, followed by /CONFIG if the data set has several configs.
      name: the name in messages.
      data_dir: the folder of TFDS, which has for example cifar10/3.0.2/ in it; by default $TFDS_DATA_DIR, or else
        ~/tensorflow_datasets.
      split: a split of the data set, by its name in TFDS.

    Raises:
      FileNotFoundError: the data set is not there, or one of its files is missing.
      ValueError: the split is unknown, or a file cannot be read. `Source.read` may raise it later, too.
    """
    builder, folder, prepare = _prepared(tfds_name, name, data_dir)
    import tensorflow_datasets as tfds

    with _blaming_files(name, folder, prepare):
        splits = {known: list(map(Path, info.filepaths)) for known, info in builder.info.splits.items()}
        shape, classes = _checked_features(builder.info.features, folder)
    check_split(name, split, tuple(splits))
    with _blaming_files(name, folder, prepare):
        missing = [file for file in splits[split] if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"Data set {name} is incomplete: {missing[0]} is missing. {prepare}")
    with _blaming_files(name, folder, prepare):
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        if not 0 < len(source) <= _EXAMPLES:
            raise ValueError(f"{split} has {len(source):,} examples, but must have 1 to {_EXAMPLES:,}")

    def read(indices: list[int]) -> Sequence[dict[str, Any]]:
        with _blaming_files(name, folder, prepare):
            return [
                _checked_example(example, f"example {index} of {split}", shape, len(classes))
                for index, example in zip(indices, source.__getitems__(indices), strict=True)
            ]

    read([len(source) - 1])  # a file may have fewer examples than the description says
    return Source(shape, len(classes), len(source), read, classes)


def find(tfds_name: str, data_dir: Folder | None, test_share: float, test_seed: int) -> DataSet | None:
    """Finds a data set of any name that is prepared in the folder of TFDS; returns None if it is not there.

    The test images are those of its split 'test', or else of 'validation', or else `held_out` takes them from 'train'.

    Raises:
      FileNotFoundError, ValueError: as `open_split`.
    """
    if not re.fullmatch(r"\w{1,100}(/\w{1,100})?", tfds_name) or not _newest_version(_root(data_dir) / tfds_name):
        return None
    builder, folder, prepare = _prepared(tfds_name, tfds_name, data_dir)
    with _blaming_files(tfds_name, folder, prepare):
        known = list(builder.info.splits)
    identity = f"version {folder.name}, {checksum(folder, sorted(path for path in folder.iterdir() if path.is_file()))}"
    test = next((split for split in ("test", "validation") if split in known), None)
    if test:
        return of_splits(tfds_name, tfds_name, data_dir, test)._replace(identity=identity)
    source = open_split(tfds_name, tfds_name, data_dir, "train")
    chunks = (range(start, min(start + _LABELS, len(source))) for start in range(0, len(source), _LABELS))
    labels = [example["label"] for chunk in chunks for example in source.read(list(chunk))]
    source = dataclasses.replace(source, labels=np.array(labels, np.int32))
    return held_out(tfds_name, source, test_share, test_seed, identity)


def of_splits(tfds_name: str, name: str, data_dir: Folder | None, test: str = "test") -> DataSet:
    """A data set whose test images are in the split `test`. No file is read before a split is opened."""

    def open_one(split: str) -> Source:
        return open_split(tfds_name, name, data_dir, test if split == "test" else split)

    return DataSet(name, open_one)


def _root(data_dir: Folder | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return refusals.path("data_dir", root).absolute()


def _prepared(tfds_name: str, name: str, data_dir: Folder | None) -> tuple[Any, Path, str]:
    """(builder, folder, a sentence that says how to prepare it) of a data set; raises as `open_split`."""
    root = _root(data_dir)
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
    # Imported only here, since the import takes a second and digits do not need it.
    import tensorflow_datasets as tfds

    with _blaming_files(name, folder, prepare):
        # Unlike tfds.builder and tfds.data_source, this never uses a network.
        return tfds.builder_from_directory(folder), folder, prepare


def _checked_features(features: Any, folder: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Checks the features of a data set and returns (shape of the images, names of the classes)."""
    import tensorflow_datasets as tfds

    for name, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if name not in features or not isinstance(features[name], kind):
            raise ValueError(f"among its features must be {name}, of the kind {kind.__name__}")
    image, num_classes = features["image"], features["label"].num_classes
    sides, channels = image.shape[:-1], image.shape[-1]
    if (
        np.dtype(image.np_dtype) != np.uint8
        or channels not in (1, 3)
        or not all(s is None or 0 < s <= _SIDE for s in sides)
    ):
        raise ValueError(
            f"its images are {np.dtype(image.np_dtype)}{shown(image.shape)}, but must be uint8(H, W, 1) or (H, W, 3) "
            f"with sides of 1 to {_SIDE}"
        )
    if num_classes is None or not 0 < num_classes <= _CLASSES:
        raise ValueError(f"it has {num_classes} classes, but must have 1 to {_CLASSES:,}")
    names = folder / "label.labels.txt"
    if names.exists() and (named := len(names.read_text().strip().splitlines())) != num_classes:
        raise ValueError(f"it has {num_classes} classes, but {names.name} has the names of {named}")
    return image.shape, tuple(features["label"].names)


def _checked_example(
    example: Mapping[str, Any], name: str, shape: tuple[int, int, int], num_classes: int
) -> dict[str, Any]:
    """The example with its image decoded.

    Raises:
      ValueError: the label or the image is not as the features say.
    """
    label = example["label"]
    if label is None or not 0 <= label < num_classes:
        raise ValueError(f"{name} has the label {shown(label)}, but must have one from 0 to {num_classes - 1}")
    try:
        opened = Image.open(io.BytesIO(example["image"]))
    except UnidentifiedImageError:
        raise ValueError(f"{name} has no image of a known format") from None
    with opened as image:
        found = (image.height, image.width, {"L": 1, "RGB": 3}.get(image.mode))
        fits = all(side in (None, there) for side, there in zip(shape[:2], found, strict=False))
        # If sizes differ, some images may be grey while others have three channels, as in ImageNet.
        if not fits or not found[2] or found[2] != shape[2] and None not in shape[:2]:
            raise ValueError(
                f"{name} has an image of {image.height}x{image.width} pixels of the kind {image.mode}, but must have "
                f"one of the shape {shape} of uint8"
            )
        pixels = np.asarray(image)
    return {**example, "image": pixels.reshape(*pixels.shape[:2], -1)}


def _newest_version(folder: Path) -> Path | None:
    # Folders with other names are unfinished preparations, for example incomplete.A1B2C3_3.0.2.
    versions = [path for path in folder.glob("*") if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", path.name)]
    return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


@contextmanager
def _blaming_files(name: str, folder: Path, prepare: str) -> Iterator[None]:
    """Turns any error that damaged files cause into a ValueError of one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ImportError) and error.name != "tensorflow":  # only damaged files need TensorFlow
            raise
        cause = refusals.cut(str(error), 150)
        raise ValueError(
            f"Data set {name} cannot be read: a file in {folder} is damaged or of another format "
            f"than array_record ({cause}); move that folder away first. {prepare}"
        ) from error
