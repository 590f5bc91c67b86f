"""What every data set is, wherever its images come from: two splits, each read in pieces."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prdarts_jax.refusals import cut, listed, shown


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set that can be read in pieces; cloudpickle can send it to another process.

    `read` takes positions and gives dicts of 'image', u8[H, W, C] or u8[H, W], and 'label', in [0, num_classes).
    """

    shape: tuple[int | None, int | None, int]  # (H, W, C) of its images; H and W are None where they differ
    num_classes: int
    length: int  # number of images
    read: Callable[[list[int]], Sequence[dict[str, Any]]]
    classes: tuple[str, ...] = ()  # their names, where they have some
    labels: np.ndarray | None = None  # i32[N], where they are known before the images are read
    notes: tuple[str, ...] = ()  # what was decided about the data, a phrase each

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]


class DataSet(NamedTuple):
    """A data set: training images and test images.

    Attributes:
      name: for messages.
      open: 'train' or 'test' -> that split. Raises a ValueError or an OSError where it cannot be read.
      identity: what changes where the images do, so that no run goes on with others; '' for prepared data.
      streamed: whether a run reads it from disk, however small it is.
    """

    name: str
    open: Callable[[str], Source]
    identity: str = ""
    streamed: bool = False


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Raises a ValueError with the split, the data set's name and what is allowed, if that does not have it."""
    if split not in allowed:
        raise ValueError(f"Unknown split {shown(split)} of {cut(name, 200)}: allowed are {listed(split, allowed)}.")


def taking(source: Source, places: np.ndarray) -> Source:
    """The images at these places of a source, in their order."""

    def read(indices: list[int]) -> Sequence[dict[str, Any]]:
        return source.read(places[indices].tolist())

    labels = None if source.labels is None else source.labels[places]
    return dataclasses.replace(source, length=len(places), read=read, labels=labels)


def held_out(name: str, source: Source, share: float, seed: int) -> DataSet:
    """A data set without test images of its own: of each class a share of the images, drawn by the seed, is held out.

    Of a class of two or more at least one is held out and one is not; a single image is for training.

    Args:
      name: for messages.
      source: all images, with labels.
      share: above 0 and below 1.
      seed: decides which images.

    Raises:
      ValueError: no class has two images.
    """
    assert source.labels is not None
    rng = np.random.default_rng(seed)
    chosen = np.zeros(source.length, bool)
    for label in range(source.num_classes):
        places = rng.permutation(np.flatnonzero(source.labels == label))
        chosen[places[: min(max(round(share * len(places)), 1), max(len(places) - 1, 0))]] = True
    if not chosen.any():
        raise ValueError(f"{cut(name, 200)} has one image a class, but must have two of some, to train and to test")
    note = f"no test images of their own: test_share={share} of each class is held out, drawn by test_seed={seed}"

    def open_split(split: str) -> Source:
        check_split(name, split, ("train", "test"))
        part = taking(source, np.flatnonzero(chosen == (split == "test")))
        return dataclasses.replace(part, notes=(*source.notes, note))

    return DataSet(name, open_split)


def class_counts(labels: np.ndarray, classes: Sequence[str], num_classes: int) -> str:
    """How many images the classes have, in a phrase.

    >>> class_counts(np.array([0, 0, 0, 0, 2]), ("cat", "dog", "owl"), 3)
    '3 classes: cat 4, dog 0, owl 1; careful: no image of dog'
    >>> class_counts(np.array([0] * 30 + [1] * 20), ("cat", "dog"), 2)
    '2 classes: cat 30, dog 20; the largest has 1.5 times as many as the smallest'
    >>> class_counts(np.arange(40) % 20, (), 20)
    '20 classes of 2 to 2 images each'
    """
    counts = np.bincount(labels, minlength=num_classes)
    names = list(classes or map(str, range(num_classes)))
    if num_classes <= 10:
        each = ", ".join(f"{cut(name, 40)} {count:,}" for name, count in zip(names, counts, strict=True))
        text = f"{num_classes} classes: {each}"
    else:
        text = f"{num_classes:,} classes of {counts.min():,} to {counts.max():,} images each"
    if counts.min() == 0:
        empty = [cut(name, 40) for name, count in zip(names, counts, strict=True) if not count]
        return f"{text}; careful: no image of {', '.join(empty[:3])}" + (
            f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        )
    if counts.max() > counts.min():
        text += f"; the largest has {counts.max() / counts.min():.1f} times as many as the smallest"
    return text
