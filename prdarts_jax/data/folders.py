"""Your own folder of images, with a folder for each class:

FOLDER/train/cat/1.jpg, FOLDER/test/dog/2.png    or, without test images    FOLDER/cat/1.jpg, FOLDER/dog/2.png
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from prdarts_jax.data import pictures
from prdarts_jax.data.source import DataSet, Source, checksum, held_out
from prdarts_jax.refusals import cut

# Allowed names of the folder of test images; the first one that exists is used.
_TESTS = ("test", "val", "valid", "validation")


def find(root: Path, test_share: float, test_seed: int) -> DataSet:
    """Finds the images of a folder and checks the header of each. Pixels are decoded later, by `Source.read`, which
    raises a ValueError if they are damaged.

    All images have one channel if all training images are grey, and three channels otherwise. In a class folder, files
    whose names end in none of `pictures.SUFFIXES` (.png, .jpg, .gif and others) and folders are ignored, and counted in
    the notes of the training images; what begins with a dot is ignored.

    Args:
      root: the folder; it must exist. Test images are read only beside `train`, from `test`, `val`, `valid` or
        `validation`.
      test_share, test_seed: `share` and `seed` of `source.held_out`, used only if there is no folder of test images.

    Raises:
      ValueError: a file is not an image, a class has no image, there are fewer than two classes, or a class of the test
        images is not among those for training. When the test images are opened: there are none in folders of classes.
    """
    name = str(root)
    train = root / "train"
    if not train.is_dir():
        train = root
    elif not _class_folders(train) and len(beside := _class_folders(root)) > 1 and not {*beside} & {*_TESTS}:
        train = root  # a class is called train
    classes = _class_folders(train)
    if len(classes) < 2:
        raise ValueError(
            f"{cut(name, 300)} has {len(classes)} folders of classes, but must have two or more, each with images, "
            "directly or in train/, or be cifar-10-batches-py"
        )
    if damaged := [name for name in classes if re.search("[\ud800-\udfff]", name)]:  # bytes that are not UTF-8
        raise ValueError(f"the class folder {damaged[0]!a} in {cut(str(train), 300)} must have a name in UTF-8")
    tests = [root / t for t in _TESTS if (root / t).is_dir()] if train != root else []
    test = next((folder for folder in tests if _class_folders(folder)), tests[0] if tests else None)
    files = _files(train, classes)
    test_files = _files(test, classes) if test else []
    if test and (unknown := sorted(set(_class_folders(test)) - set(classes))):
        raise ValueError(f"{cut(str(test / unknown[0]), 300)} is of a class that {cut(str(train), 300)} does not have")
    headers, test_headers = _headers(files), _headers(test_files)
    of_classes = [split / name for split in (train, test) if split for name in classes if (split / name).is_dir()]
    there = [path for folder in of_classes for path in folder.iterdir() if not path.name.startswith(".")]
    ignored = {
        "files of other kinds": sum(path.is_file() for path in there) - len(files) - len(test_files),
        "folders in folders of classes": sum(path.is_dir() for path in there),
    }
    source = _source(files, headers, classes, 1 if all(header.grey for header in headers) else 3, ignored)
    identity = f"{len(files) + len(test_files)} files, {checksum(root, [*files, *test_files])}"
    if not test:
        return held_out(name, source, test_share, test_seed, identity)
    splits = {"train": source, "test": _source(test_files, test_headers, classes, source.shape[2], {})}

    def open_split(split: str) -> Source:
        if split == "test" and not test_files:
            raise ValueError(
                f"{cut(str(test), 300)} has no images in folders of classes, as {cut(str(train), 300)} has: rename it, "
                "and a share of the training images is held out"
            )
        return splits[split]

    return DataSet(name, open_split, identity)


def _class_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: Sequence[str]) -> list[Path]:
    """The images of all classes, sorted, so that the order does not depend on the file system."""
    result = []
    for name in classes:
        found = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
        images = [path for path in found if path.suffix.lower() in pictures.SUFFIXES and not path.name.startswith(".")]
        if not images and (folder / name).is_dir():
            endings = ", ".join(pictures.SUFFIXES)
            raise ValueError(f"the class folder {cut(str(folder / name), 300)} has no image: no file ends in {endings}")
        result += images
    return result


def _headers(files: Sequence[Path]) -> list[pictures.Header]:
    """The headers of all files, in order.

    Raises:
      ValueError: some files are not images; the message names the first one.
    """

    def look(path):
        try:
            return pictures.header(path)
        except ValueError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(look, files))
    if errors := [header for header in found if isinstance(header, ValueError)]:
        more = f"; {len(errors) - 1} more cannot be read either" if errors[1:] else ""
        raise ValueError(f"{errors[0]}{more}")
    return found


def _source(
    files: Sequence[Path],
    headers: Sequence[pictures.Header],
    classes: Sequence[str],
    channels: int,
    ignored: Mapping[str, int],
) -> Source:
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[path.parent.name] for path in files], np.int32)
    sizes = Counter((header.height, header.width) for header in headers)
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)

    def one(index: int) -> dict[str, Any]:
        return {"image": pictures.read(files[index], channels), "label": labels[index]}

    def read(indices: list[int]) -> Sequence[dict[str, Any]]:
        if len(indices) == 1:
            return [one(indices[0])]
        with ThreadPoolExecutor() as pool:
            return list(pool.map(one, indices))

    notes = []
    if len(sizes) > 1:
        (smallest, _), (largest, _) = (pick(sizes.items(), key=lambda item: math.prod(item[0])) for pick in (min, max))
        notes.append(f"images from {smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} pixels")
    if channels == 3 and (grey := sum(header.grey for header in headers)):
        notes.append(f"grey, so with three equal channels: {grey} of {len(files)}")
    if transparent := sum(header.transparent for header in headers):
        notes.append(f"transparent, so put on white: {transparent} of {len(files)}")
    notes += [f"{what}, ignored: {number}" for what, number in ignored.items() if number]
    return Source((height, width, channels), len(classes), len(files), read, tuple(classes), labels, tuple(notes))
