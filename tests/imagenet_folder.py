"""A folder as TFDS prepares ImageNet, with a few noisy images of many sizes."""

import io
import json
from pathlib import Path

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
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
            "file_name": tfds.features.Text(),
        }
    )
    features.save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    half = COUNT // 2
    splits = [
        {"name": "train", "filepathTemplate": template, "shardLengths": [str(half), str(half)]},
        {"name": "validation", "filepathTemplate": template, "shardLengths": [str(VALIDATION)]},
    ]
    info = {"name": "imagenet2012", "version": "5.1.0", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    rng = np.random.default_rng(0)
    for number in range(2):
        _write_file(shard(root, number), range(number * half, (number + 1) * half), rng)
    _write_file(folder / "imagenet2012-validation.array_record-00000-of-00001", range(VALIDATION), rng)
    return root


def shard(root: Path, number: int) -> Path:
    """A file of 'train'."""
    return root / "imagenet2012" / "5.1.0" / f"imagenet2012-train.array_record-0000{number}-of-00002"


def _write_file(path: Path, positions: range, rng: np.random.Generator) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for position in positions:
        shape = (20 + position, 60 - position) + (() if position % 5 == 0 else (3,))
        pixels = (grey(position) + rng.integers(-9, 10, shape)).astype(np.uint8)
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(jpeg.getvalue())
        example.features.feature["label"].int64_list.value.append(position)
        example.features.feature["file_name"].bytes_list.value.append(b"name")
        writer.write(example.SerializeToString())
    writer.close()
