"""One split of a data set, read in pieces."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


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


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Refuses a split that a data set does not have.

    Raises:
      ValueError: with the split, the data set's name and what is allowed.
    """
    if split not in allowed:
        raise ValueError(f"Unknown split {split!r} of {name}: allowed are {', '.join(allowed)}.")
