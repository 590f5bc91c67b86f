"""Reads data sets that TFDS prepared as array_record files."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prdarts_jax.data.splits import Source, check_split


def open_split(tfds_name: str, name: str, data_dir: str | os.PathLike[str] | None, split: str) -> Source:
    """Opens one split of the newest version of a data set, without a network and without TensorFlow.

    Args:
      tfds_name: TFDS's name of the data set, which is that of its folder.
      name: ours, for messages.
      data_dir: the folder of TFDS; by default TFDS's own, $TFDS_DATA_DIR or else ~/tensorflow_datasets.
      split: one that the data set has.

    Raises:
      FileNotFoundError: the data set is not there, or a part of it is missing.
      ValueError: an unknown split, or files that cannot be read; the last also later, when they are read.
    """
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
