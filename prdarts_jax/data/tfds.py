"""One split of a data set, read in pieces, and those that TFDS prepared as array_record files."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Folder = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set that can be read in pieces; cloudpickle can send it to another process.

    `read` takes positions and gives dicts of 'image', u8[H, W, C] or u8[H, W], and 'label', in [0, num_classes).
    """

    shape: tuple[int, int, int]  # (H, W, C) of its images; H and W are None where they differ
    num_classes: int
    length: int  # number of images
    read: Callable[[list[int]], Sequence[dict[str, Any]]]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read([index])[0]


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Raises a ValueError with the split, the data set's name and what is allowed, if that does not have it."""
    if split not in allowed:
        raise ValueError(f"Unknown split {split!r} of {name}: allowed are {', '.join(allowed)}.")


def open_split(tfds_name: str, name: str, data_dir: Folder | None, split: str) -> Source:
    """`sources.open_split` of the newest version of the data set that TFDS, in messages we, call by these names."""
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
    check_split(name, split, tuple(info.splits))
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
