"""A folder as TFDS prepares ImageNet, with a few noisy images of many sizes."""

import functools
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COUNT, VALIDATION = 22, 7


def grey(position: int) -> int:
    """The grey of an image that shows its position, and so its label, through any crop."""
    return 10 + 10 * position


def write(root: Path) -> Path:
    """Writes imagenet2012: 22 images in two files of 'train', seven in one of 'validation', some stored as grey."""
    import tensorflow_datasets as tfds

    folder = root / "imagenet2012" / "5.1.0"
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    }
    half = COUNT // 2
    describe(folder, features, {"train": [half, half], "validation": [VALIDATION]})
    rng = np.random.default_rng(0)
    for number in range(2):
        write_file(
            shard(root, number), map(functools.partial(_example, rng), range(number * half, (number + 1) * half))
        )
    last = folder / "imagenet2012-validation.array_record-00000-of-00001"
    write_file(last, map(functools.partial(_example, rng), range(VALIDATION)))
    return root


def describe(folder: Path, features: dict[str, Any], splits: dict[str, list[int]]) -> None:
    """Makes the folder name/version of a data set, in it all but the examples; `splits` has the length of each file."""
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    listed = [
        {"name": name, "filepathTemplate": template, "shardLengths": list(map(str, lengths))}
        for name, lengths in splits.items()
    ]
    info = {"name": folder.parent.name, "version": folder.name, "fileFormat": "array_record", "splits": listed}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def write_file(path: Path, examples: Iterable[dict[str, bytes | int]]) -> None:
    """A file of examples, {name: value of a feature}."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for values in examples:
        example = tf_example_pb2.Example()
        for name, value in values.items():
            feature = example.features.feature[name]
            (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
        writer.write(example.SerializeToString())
    writer.close()


def encoded(pixels: np.ndarray, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def shard(root: Path, number: int) -> Path:
    """A file of 'train'."""
    return root / "imagenet2012" / "5.1.0" / f"imagenet2012-train.array_record-0000{number}-of-00002"


def _example(rng: np.random.Generator, position: int) -> dict[str, bytes | int]:
    shape = (20 + position, 60 - position) + (() if position % 5 == 0 else (3,))
    pixels = (grey(position) + rng.integers(-9, 10, shape)).astype(np.uint8)
    return {"image": encoded(pixels, "JPEG", quality=95), "label": position, "file_name": b"name"}
