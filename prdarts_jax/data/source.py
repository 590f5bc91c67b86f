"""The interface of every data set: two splits, each of which can be read in pieces."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prdarts_jax.refusals import cut, listed, shown


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set that can be read in pieces; cloudpickle can send it to another process.

    `len(source)` is the number of images, and `source[index]` reads one of them.

    Attributes:
      shape: (H, W, C) of the images; H and W are None if they differ between images.
      num_classes: number of classes.
      length: number of images.
      read: takes a list of indices and returns a dict for each, in the same order: 'image', u8[H, W, C] or u8[H, W],
        and 'label', an integer in [0, num_classes). Raises a ValueError or an OSError if a file cannot be read.
      classes: the names of the classes, or () if they have none.
      labels: the labels of all images, i32[length], if they are known before the images are read; otherwise None.
      notes: one phrase for each decision about the data that the user should know, for instance that test images were
        held out.
    """

    shape: tuple[int | None, int | None, int]
    num_classes: int
    length: int
    read: Callable[[list[int]], Sequence[dict[str, Any]]]
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]


class DataSet(NamedTuple):
    """A data set: training images and test images.

    Attributes:
      name: the name in messages.
      open_split: takes 'train' or 'test' and returns that split; called by `open`.
      identity: a text that differs for different images, for instance a checksum. A run is resumed only with the same
        identity. It is '' for the data sets of `sources.DATASETS`, whose name says which they are.
      streamed: whether a run always reads the images from disk, even if they fit into memory.
    """

    name: str
    open_split: Callable[[str], Source]
    identity: str = ""
    streamed: bool = False

    def open(self, split: str) -> Source:
        """The split 'train' or 'test'.

        Raises:
          ValueError, OSError: there is no such split, or it cannot be read.
        """
        check_split(self.name, split, ("train", "test"))
        return self.open_split(split)


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Raises a ValueError if `split` is not in `allowed`; its message has the split, the data set's name and what is
    allowed."""
    if split not in allowed:
        raise ValueError(f"Unknown split {shown(split)} of {cut(name, 200)}: allowed are {listed(split, allowed)}.")


def checksum(folder: Path, files: Iterable[Path]) -> str:
    """A checksum of the names, the sizes and the last 1024 bytes of files in a folder, in their order: eight
    hexadecimal digits."""

    def look(path: Path) -> bytes:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(size - 1024, 0))
            return f"{path.relative_to(folder)} {size}\n".encode(errors="surrogateescape") + file.read()

    with ThreadPoolExecutor() as pool:
        crc = functools.reduce(lambda crc, content: zlib.crc32(content, crc), pool.map(look, files), 0)
    return f"{crc:08x}"


def subset(source: Source, indices: np.ndarray) -> Source:
    """A source of the images with these indices, in the order of `indices`. It reads no image until it is asked to."""

    def read(positions: list[int]) -> Sequence[dict[str, Any]]:
        return source.read(indices[positions].tolist())

    labels = None if source.labels is None else source.labels[indices]
    return dataclasses.replace(source, length=len(indices), read=read, labels=labels)


def held_out(name: str, source: Source, share: float, seed: int, identity: str = "") -> DataSet:
    """Makes a data set of a source that has no test images: a share of each class is held out for the test.

    The number of images held out from a class is rounded to the nearest integer. A class of two or more images has at
    least one in each split. A single image stays in the training split.

    Args:
      name: the name of the data set in messages.
      source: all images, with `labels`.
      share: the share of each class that is held out, above 0 and below 1.
      seed: decides which images are held out.
      identity: of all images; that of the data set has share and seed, too.

    Raises:
      ValueError: `share` is out of range, or no class has two images.
    """
    if not (isinstance(share, float | np.floating) and 0 < share < 1):
        raise ValueError(f"test_share={shown(share)} must be above 0 and below 1")
    assert source.labels is not None
    rng = np.random.default_rng(seed)
    chosen = np.zeros(source.length, bool)
    for label in range(source.num_classes):
        indices = rng.permutation(np.flatnonzero(source.labels == label))
        chosen[indices[: min(max(round(share * len(indices)), 1), max(len(indices) - 1, 0))]] = True
    if not chosen.any():
        raise ValueError(
            f"{cut(name, 200)} has only one image per class, but at least one class must have two, to train and to test"
        )
    note = f"no test images of their own: test_share={share} of each class is held out, drawn by test_seed={seed}"

    def open_split(split: str) -> Source:
        part = subset(source, np.flatnonzero(chosen == (split == "test")))
        return dataclasses.replace(part, notes=(*source.notes, note))

    return DataSet(name, open_split, identity and f"{identity}, test_share={share}, test_seed={seed}")


def class_counts(labels: np.ndarray, classes: Sequence[str], num_classes: int) -> str:
    """Says in a phrase how many images each class has, or the fewest and the most if there are more than ten classes.

    Args:
      labels: integers in [0, num_classes), [N].
      classes: the names of the classes; () to use the labels as names.
      num_classes: number of classes.

    >>> class_counts(np.array([0, 0, 0, 0, 2]), ("cat", "dog", "owl"), 3)
    '3 classes: cat 4, dog 0, owl 1; careful: no image of dog'
    >>> class_counts(np.array([0] * 30 + [1] * 20), ("cat", "dog"), 2)
    '2 classes: cat 30, dog 20; the largest has 1.5 times as many as the smallest'
    >>> class_counts(np.arange(40) % 20, (), 20)
    '20 classes of 2 images each'
    """
    counts = np.bincount(labels, minlength=num_classes)
    names = list(classes or map(str, range(num_classes)))
    if num_classes <= 10:
        each = ", ".join(f"{cut(name, 40)} {count:,}" for name, count in zip(names, counts, strict=True))
        text = f"{num_classes} classes: {each}"
    else:
        most = f" to {counts.max():,}" if counts.max() > counts.min() else ""
        text = f"{num_classes:,} classes of {counts.min():,}{most} images each"
    if counts.min() == 0:
        empty = [cut(name, 40) for name, count in zip(names, counts, strict=True) if not count]
        return f"{text}; careful: no image of {', '.join(empty[:3])}" + (
            f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        )
    if counts.max() > counts.min():
        text += f"; the largest has {counts.max() / counts.min():.1f} times as many as the smallest"
    return text
