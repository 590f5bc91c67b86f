"""Data sets from disk, with every way they can be absent or damaged."""

import os
import subprocess
import sys
import time
from pathlib import Path

import imagenet_folder
import numpy as np
import pytest
from imagenet_folder import encoded

from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation

COUNT = 20


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A TFDS folder with a gray 12x12 fashion_mnist of 20 images, as TFDS itself lays it out."""
    import tensorflow_datasets as tfds

    folder = tmp_path / "fashion_mnist" / "3.0.1"
    features = {"image": tfds.features.Image(shape=(12, 12, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    imagenet_folder.describe(folder, features, {"train": [COUNT]})
    (tmp_path / "fashion_mnist" / "incomplete.A1B2C3_9.0.0").mkdir()
    examples = [{"image": encoded(x[..., 0], "PNG"), "label": y} for x, y in zip(*written(), strict=True)]
    imagenet_folder.write_file(shard(tmp_path), examples)
    return tmp_path


def written() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(3).integers(0, 256, (COUNT, 12, 12, 1), np.uint8)
    return images, np.arange(COUNT) % 10


def shard(root: Path) -> Path:
    return root / "fashion_mnist" / "3.0.1" / "fashion_mnist-train.array_record-00000-of-00001"


def test_digits_splits_cover_the_embedded_data() -> None:
    from sklearn.datasets import load_digits

    train, test = sources.load("digits"), sources.load("digits", split="test")
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert train.num_classes == 10 and set(train.labels) == set(test.labels) == set(range(10))
    assert train.images.max() == 255

    pixels, labels = load_digits(return_X_y=True)
    expected = np.column_stack([np.rint(pixels * 255 / 16), labels])
    both = np.concatenate([np.column_stack([d.images.reshape(-1, 64), d.labels]) for d in (train, test)])
    np.testing.assert_array_equal(sorted(both.tolist()), sorted(expected.tolist()))


def test_subset_is_the_same_in_every_call_and_begins_a_larger_one() -> None:
    small, large = (sources.load("digits", num_examples=n) for n in (200, 300))
    np.testing.assert_array_equal(small.images, large.images[:200])
    np.testing.assert_array_equal(small.labels, large.labels[:200])
    assert len(set(small.labels)) == 10
    assert not np.array_equal(small.labels, sources.load("digits").labels[:200])


def test_shrinking_averages_areas() -> None:
    whole, shrunk = sources.load("digits"), sources.load("digits", image_size=4)
    assert shrunk.images.shape == (1437, 4, 4, 1)
    for row in range(4):
        for column in range(4):
            area = whole.images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 0]
            np.testing.assert_array_equal(shrunk.images[:, row, column, 0], np.rint(area.mean((1, 2))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "no_such_set"}, "'no_such_set'.*digits, cifar10, cifar100, svhn, fashion_mnist"),
        ({"data": "digits", "split": "val"}, "'val'.*train, test"),
        ({"data": "cifar11"}, "'cifar11'.*fashion_mnist.*; did you mean 'cifar10'"),
        ({"data": ["digits"]}, r"Unknown data set \['digits'\]: allowed are digits"),
        ({"data": "digits", "num_examples": "5"}, "num_examples is '5'.*1 to 1437"),
        ({"data": "digits", "image_size": -8}, r"image_size is -8: allowed are 1 to 4096, a pair \(height, width\)"),
        ({"data": "digits", "image_size": (8, 0)}, r"image_size is \(8, 0\): allowed are 1 to 4096"),
        ({"data": "digits", "image_size": (8,)}, r"image_size is \(8,\): allowed are 1 to 4096"),
        ({"data": "digits", "image_size": True}, "image_size is True: allowed are 1 to 4096"),
        ({"data": "digits", "num_examples": 1438}, "num_examples is 1438.*1 to 1437"),
        ({"data": "digits", "num_examples": -1}, "num_examples is -1.*1 to 1437"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sources.load(**arguments)


@pytest.mark.parametrize("data", ["./nowhere", "../no/where", "~/no_such_folder", "/nowhere/images.npz"])
def test_a_path_of_nothing_is_refused_as_a_path(data: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"There is no file or folder '{data}' with images"):
        sources.load(data)


def test_prepared_folder_is_read_as_it_was_written(prepared: Path) -> None:
    images, labels = written()
    dataset = sources.load("fashion_mnist", prepared)
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.num_classes == 10
    subset = sources.load("fashion_mnist", prepared, num_examples=7, image_size=6)
    assert subset.images.shape == (7, 6, 6, 1)


def test_prepared_folder_is_found_by_the_variable_of_tfds_without_its_chatter(prepared: Path) -> None:
    """In a fresh process, where TensorFlow must stay out and no socket may be opened."""
    script = """
import socket, sys
def refuse(*_, **__): raise AssertionError("a network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from prdarts_jax.data import sources
print(len(sources.load("fashion_mnist").labels), "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TFDS_DATA_DIR": str(prepared)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "20 False\n", done.stderr
    assert "OpenCV" not in done.stderr


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar10"), ("svhn", "svhn_cropped"), ("cifar100", "cifar100")]
)
def test_missing_data_are_reported_at_once(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / folder / "incomplete.A1B2C3_3.0.2").mkdir(parents=True)
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        sources.load(name, tmp_path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert f"{tmp_path / folder}/VERSION" in message and "array_record" in message
    command = message[message.index('python -c "') + len('python -c "') : -1]
    compile(command, "command", "exec")
    assert f"tfds.builder('{folder}', data_dir='{tmp_path}'" in command


@pytest.mark.parametrize("missing", ["dataset_info.json", "features.json", "shard"])
def test_incomplete_folder_names_the_missing_file(prepared: Path, missing: str) -> None:
    file = shard(prepared)
    file = file if missing == "shard" else file.with_name(missing)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"incomplete: {file} is missing.*python -c"):
        sources.load("fashion_mnist", prepared)


@pytest.mark.parametrize("damage", ["empty", "half", "overwritten", "info", "format", "fewer"])
def test_damaged_folder_is_named(prepared: Path, damage: str) -> None:
    file = shard(prepared)
    content = file.read_bytes()
    info = file.with_name("dataset_info.json")
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        file.write_bytes(content[:300] + b"?" * 3000 + content[3300:])
    elif damage == "info":
        info.write_text(info.read_text()[:50])
    elif damage == "format":
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
        file.rename(str(file).replace("array_record", "tfrecord"))
    elif damage == "fewer":
        info.write_text(info.read_text().replace('"20"', '"30"'))
    with pytest.raises(ValueError, match=f"{file.parent} is damaged or of another.*python -c"):
        sources.load("fashion_mnist", prepared)


def pixels(*shape: int, kind: type = np.uint8) -> bytes:
    return encoded(np.full(shape, 7, kind), "PNG")


@pytest.mark.parametrize(
    ("example", "cause"),
    [
        ({"label": 10}, "example 3 of train has the label 10, but must have one from 0 to 9"),
        ({"label": -1}, "example 3 of train has the label -1, but must have one from 0 to 9"),
        ({"label": 2**40}, "example 3 of train has the label 1099511627776, but must have one from 0 to 9"),
        ({"label": None}, "example 3 of train has the label None, but must have one from 0 to 9"),
        (
            {"image": pixels(12, 12, kind=np.uint16)},
            "example 3 of train has an image of 12x12 pixels of the kind I;16, ",
        ),
        ({"image": pixels(12, 12, 4)}, "example 3 of train has an image of 12x12 pixels of the kind RGBA, "),
        ({"image": pixels(12, 12, 3)}, "example 3 of train has an image of 12x12 pixels of the kind RGB, "),
        ({"image": pixels(14, 12)}, "example 3 of train has an image of 14x12 pixels of the kind L, "),
        ({"image": pixels(9000, 9000)}, "example 3 of train has an image of 9000x9000 pixels of the kind L, "),
        ({"image": b"text"}, "example 3 of train has no image of a known format"),
    ],
)
def test_an_example_that_is_not_as_described_is_named(prepared: Path, example: dict, cause: str) -> None:
    examples: list[dict] = [{"image": pixels(12, 12), "label": 1} for _ in range(COUNT)]
    examples[3] = {name: value for name, value in (examples[3] | example).items() if value is not None}
    imagenet_folder.write_file(shard(prepared), examples)
    with pytest.raises(ValueError) as caught:
        sources.load("fashion_mnist", prepared)
    assert f"{shard(prepared).parent} is damaged or of another format than array_record ({cause}" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "before", "after", "cause"),
    [
        ("features.json", '"label"', '"class"', "among its features must be label, of the kind ClassLabel"),
        ("features.json", '{\n            "image"', '{\n            "pic"', "among its features must be image, of the"),
        (
            "features.json",
            '"numClasses": "10"',
            '"numClasses": "0"',
            "it has 0 classes, but must have 1 to 1,000,000",
        ),
        (
            "features.json",
            '"numClasses": "10"',
            '"numClasses": "-1"',
            "it has -1 classes, but must have 1 to 1,000,000",
        ),
        ("features.json", '"12"', '"0"', "its images are uint8(0, 0, 1), but must be uint8(H, W, 1) or (H, W, 3) with"),
        ("features.json", '"12"', f'"{2**40}"', "its images are uint8(1099511627776, 1099511627776, 1), but must be"),
        ("features.json", '"uint8"', '"uint16"', "its images are uint16(12, 12, 1), but must be uint8(H, W, 1) or"),
        ("dataset_info.json", '"20"', f'"{2**40}"', "train has 1,099,511,627,776 examples, but must have 1 to"),
        ("features.json", "{", "[" * 10**5, "maximum recursion depth exceeded"),
    ],
)
def test_a_description_of_what_cannot_be_used_is_refused(
    prepared: Path, file: str, before: str, after: str, cause: str
) -> None:
    path = shard(prepared).with_name(file)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError) as caught:
        sources.load("fashion_mnist", prepared)
    assert f"{path.parent} is damaged or of another format than array_record ({cause}" in str(caught.value)


def test_names_of_labels_must_be_as_many_as_there_are(prepared: Path) -> None:
    path = shard(prepared).with_name("label.labels.txt")
    path.write_text("\n".join(f"label {number}" for number in range(10)))
    assert sources.load("fashion_mnist", prepared).num_classes == 10
    path.write_text("")
    with pytest.raises(ValueError, match="it has 10 classes, but label.labels.txt has the names of 0"):
        sources.load("fashion_mnist", prepared)


@pytest.mark.parametrize("shape", [(None, None, 1), (12, 14, 1)])
def test_images_that_are_not_square_or_of_any_size_are_resized(tmp_path: Path, shape: tuple) -> None:
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=10)}
    imagenet_folder.describe(shard(tmp_path).parent, features, {"train": [1]})
    imagenet_folder.write_file(shard(tmp_path), [{"image": pixels(12, 14), "label": 1}])
    assert sources.load("fashion_mnist", tmp_path, image_size=(5, 20)).images.shape == (1, 5, 20, 1)
    if None in shape:
        with pytest.raises(ValueError, match="^the images of fashion_mnist differ in size, so image_size=0 must be ab"):
            sources.load("fashion_mnist", tmp_path)
    else:
        assert sources.load("fashion_mnist", tmp_path).images.shape == (1, 12, 14, 1)


def test_real_cifar10() -> None:
    if "PRDARTS_DATA_DIR" not in os.environ:
        pytest.skip("PRDARTS_DATA_DIR is unset: it names the folder whose tfds/ holds CIFAR-10")
    root = Path(os.environ["PRDARTS_DATA_DIR"]) / "tfds"
    dataset = sources.load("cifar10", root, num_examples=2500)
    assert dataset.images.shape == (2500, 32, 32, 3) and dataset.num_classes == 10
    assert np.bincount(dataset.labels).min() > 180
    mean, std = sources.statistics(dataset)
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=0.01)  # as published
    np.testing.assert_allclose(std, (0.2470, 0.2435, 0.2616), atol=0.01)


def test_halves_are_disjoint_equal_and_decided_by_the_seed() -> None:
    # Every image is its own index, so that the halves can be compared as sets.
    count = 101
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    dataset = sources.LoadedSplit("digits", images, np.arange(count, dtype=np.int32), count)
    train, val = sources.split_halves(dataset, seed=5)
    for half in (train, val):
        assert half["image"].shape == (50, 1, 1, 1) and half["image"].dtype == np.uint8
        assert half["label"].shape == (50,) and half["label"].dtype == np.int32
        np.testing.assert_array_equal(half["image"].ravel(), half["label"])
    assert len({*train["label"], *val["label"]}) == 100
    again, _ = sources.split_halves(dataset, seed=5)
    np.testing.assert_array_equal(again["label"], train["label"])
    other, _ = sources.split_halves(dataset, seed=6)
    assert not np.array_equal(other["label"], train["label"])


def test_statistics_agree_with_floating_point_and_floor_a_constant_channel() -> None:
    images = np.random.default_rng(0).integers(1, 256, (40, 8, 8, 3)).astype(np.uint8)
    images[..., 2] = 200
    mean, std = sources.statistics(sources.LoadedSplit("digits", images, np.zeros(40, np.int32), 10))
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], scaled.std((0, 1, 2))[:2], rtol=1e-12)
    assert std[2] == 1 / 255
    hash(Augmentation(mean, std))
