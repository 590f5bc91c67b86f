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
from prdarts_jax.data.source import DataSet, Source, check_split, held_out
from prdarts_jax.refusals import shown

# Of a data set: more than any of ours has.
_SIDE, _CLASSES, _EXAMPLES = 4096, 10**6, 10**8
_LABELS = 1000  # images that are in memory at once where only their labels are read

Folder = str | os.PathLike[str]


def open_split(tfds_name: str, name: str, data_dir: Folder | None, split: str) -> Source:
    """A split of the newest version of the data set that TFDS, in messages we, call by these names.

    Args:
      tfds_name: in TFDS; with /CONFIG behind it where the data set has several.
      name: in messages.
      data_dir: the folder of TFDS, holding e.g. cifar10/3.0.2/; by default TFDS's own, $TFDS_DATA_DIR or else
        ~/tensorflow_datasets.
      split: one that the data set has.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown split, or files that cannot be read; the last also later, when they are read.
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
            raise ValueError(f"{split} has {len(source):,} examples, and must have 1 to {_EXAMPLES:,}")

    def read(indices: list[int]) -> Sequence[dict[str, Any]]:
        with _blaming_files(name, folder, prepare):
            return [
                _checked_example(example, f"example {index} of {split}", shape, len(classes))
                for index, example in zip(indices, source.__getitems__(indices), strict=True)
            ]

    read([len(source) - 1])  # since a file may have fewer than the description says
    return Source(shape, len(classes), len(source), read, classes)


def find(tfds_name: str, data_dir: Folder | None, test_share: float, test_seed: int) -> DataSet | None:
    """A data set of any name that lies prepared in the folder of TFDS, or None.

    Its images of 'test' are tested, or else of 'validation', or else those that `held_out` takes from 'train'.

    Raises:
      FileNotFoundError, ValueError: as `open_split`.
    """
    if not re.fullmatch(r"\w{1,100}(/\w{1,100})?", tfds_name) or not _newest_version(_root(data_dir) / tfds_name):
        return None
    builder, folder, prepare = _prepared(tfds_name, tfds_name, data_dir)
    with _blaming_files(tfds_name, folder, prepare):
        known = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in known), None)
    if test:
        return of_splits(tfds_name, tfds_name, data_dir, test)
    source = open_split(tfds_name, tfds_name, data_dir, "train")
    chunks = (range(start, min(start + _LABELS, len(source))) for start in range(0, len(source), _LABELS))
    labels = [example["label"] for chunk in chunks for example in source.read(list(chunk))]
    source = dataclasses.replace(source, labels=np.array(labels, np.int32))
    return held_out(tfds_name, source, test_share, test_seed)


def of_splits(tfds_name: str, name: str, data_dir: Folder | None, test: str = "test") -> DataSet:
    """The data set whose test images are in the split `test`; each split is read only when it is opened."""

    def open_one(split: str) -> Source:
        check_split(name, split, ("train", "test"))
        return open_split(tfds_name, name, data_dir, test if split == "test" else split)

    return DataSet(name, open_one)


def _root(data_dir: Folder | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return refusals.path("data_dir", root).absolute()


def _prepared(tfds_name: str, name: str, data_dir: Folder | None) -> tuple[Any, Path, str]:
    """(builder, folder, how to prepare it) of a data set; raises as `open_split`."""
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
    # Only now, since it takes a second and digits need none of it.
    import tensorflow_datasets as tfds

    with _blaming_files(name, folder, prepare):
        # Unlike tfds.builder and tfds.data_source, this never looks for the data in a network.
        return tfds.builder_from_directory(folder), folder, prepare


def _checked_features(features: Any, folder: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(shape of the images, names of the classes) of a data set's features."""
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
            f"its images are {np.dtype(image.np_dtype)}{shown(image.shape)}, and must be uint8(H, W, 1) or (H, W, 3) "
            f"with sides of 1 to {_SIDE}"
        )
    if num_classes is None or not 0 < num_classes <= _CLASSES:
        raise ValueError(f"it has {num_classes} classes, and must have 1 to {_CLASSES:,}")
    names = folder / "label.labels.txt"
    if names.exists() and (named := len(names.read_text().strip().splitlines())) != num_classes:
        raise ValueError(f"it has {num_classes} classes, but {names.name} has the names of {named}")
    return image.shape, tuple(features["label"].names)


def _checked_example(
    example: Mapping[str, Any], name: str, shape: tuple[int, int, int], num_classes: int
) -> dict[str, Any]:
    """An example with its image decoded, if it is as the features say."""
    label = example["label"]
    if label is None or not 0 <= label < num_classes:
        raise ValueError(f"{name} has the label {shown(label)}, and must have one from 0 to {num_classes - 1}")
    try:
        opened = Image.open(io.BytesIO(example["image"]))
    except UnidentifiedImageError:
        raise ValueError(f"{name} has no image of a known form") from None
    with opened as image:
        found = (image.height, image.width, {"L": 1, "RGB": 3}.get(image.mode))
        fits = all(side in (None, there) for side, there in zip(shape[:2], found, strict=False))
        # Where sizes differ, images may be grey beside those of three channels, as some of ImageNet are.
        if not fits or not found[2] or found[2] != shape[2] and None not in shape[:2]:
            raise ValueError(
                f"{name} has an image of {image.height}x{image.width} pixels of the kind {image.mode}, and must have "
                f"one of the shape {shape}, of bytes"
            )
        pixels = np.asarray(image)
    return {**example, "image": pixels.reshape(*pixels.shape[:2], -1)}


def _newest_version(folder: Path) -> Path | None:
    # Other names are preparations under way or broken off, e.g. incomplete.A1B2C3_3.0.2.
    versions = [path for path in folder.glob("*") if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", path.name)]
    return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


@contextmanager
def _blaming_files(name: str, folder: Path, prepare: str) -> Iterator[None]:
    """Turns whatever the readers raise about damaged files into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ImportError) and error.name != "tensorflow":  # which only damaged files ask for
            raise
        cause = refusals.cut(str(error), 150)
        raise ValueError(
            f"Data set {name} cannot be read: a file in {folder} is damaged or of another format "
            f"than array_record ({cause}); move that folder away first. {prepare}"
        ) from error
