"""Arrays of one's own, pipelines of Grain and CIFAR-10's pickles, against what NumPy and pickle read by themselves."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from shared import refused

from prdarts_jax.data import arrays, sources

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 9, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


@pytest.mark.parametrize("names", arrays._NAMES)
def test_an_npz_is_what_numpy_reads(tmp_path: Path, names: tuple[str, ...]) -> None:
    values = [IMAGES, LABELS[:, None], IMAGES[::-1][:6], LABELS[::-1][:6, None]]
    np.savez(tmp_path / "own.npz", **dict(zip(names, values, strict=False)), more=np.zeros(3))
    data = sources.find(str(tmp_path / "own.npz"), test_share=0.25)
    train, test = (sources.load(data, split=split) for split in ("train", "test"))
    assert train.classes == ("0", "1", "2")
    if len(names) == 4:
        for found, (images, labels) in ((train, values[:2]), (test, values[2:])):
            np.testing.assert_array_equal(found.images, images)
            np.testing.assert_array_equal(found.labels, labels.ravel())
    else:
        assert np.bincount(train.labels).tolist() == [3, 3, 3] and np.bincount(test.labels).tolist() == [1, 1, 1]
        both = {image.tobytes() for part in (train, test) for image in part.images}
        assert both == {image.tobytes() for image in IMAGES}


def test_a_file_of_another_kind_is_refused_without_numpy_s_advice(tmp_path: Path) -> None:
    np.savez(whole := tmp_path / "whole.npz", images=IMAGES, labels=LABELS)
    np.save(tmp_path / "array.npy", IMAGES)
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:500])
    for name in ("array.npy", "text.npz", "half.npz"):
        with refused(f"{tmp_path / name} is no .npz file, such as np.savez writes, or a part of one"):
            sources.find(str(tmp_path / name))


def test_what_is_held_out_is_a_part_of_the_identity() -> None:
    train = {"image": np.zeros((20, 4, 4), np.uint8), "label": np.arange(20) % 2}
    options = [{}, {"test_seed": 1}, {"test_share": 0.5}]
    assert len({arrays.from_arrays(train, **shares).identity for shares in options}) == 3


def test_labels_are_numbered_in_order_and_grey_images_have_a_channel() -> None:
    texts = np.array(["owl", "cat", "dog"])[LABELS]
    test = {"image": IMAGES[:3, ..., 0], "label": texts[:3]}
    data = arrays.from_arrays({"image": IMAGES[..., 0], "label": texts}, test)
    train = sources.load(data)
    assert train.classes == ("cat", "dog", "owl") and train.images.shape == (12, 6, 9, 1)
    assert train.labels.tolist() == [2, 0, 1] * 4 and sources.load(data, split="test").labels.tolist() == [2, 0, 1]
    gaps = sources.load(arrays.from_arrays({"image": IMAGES, "label": 7 * LABELS + 2}, test_share=0.1))
    assert gaps.classes == ("2", "9", "16") and set(gaps.labels) == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": IMAGES / 255},
            r"has images float64.*must have uint8.* \(images \* 255\).astype\('uint8'\) converts",
        ),
        ({"image": IMAGES[0, 0]}, r"has images uint8\(9, 3\), but must have uint8\(N, H, W\) or \(N, H, W, C\)$"),
        ({"image": IMAGES[:0], "label": LABELS[:0]}, r"has images \(0, 6, 9, 3\), but must have one or more"),
        ({"label": LABELS[:5]}, r"has labels int64\(5,\), but must have integers or texts, one for each of 12 images"),
        ({"label": LABELS / 2}, "has labels float64"),
        ({"label": 0 * LABELS}, "has 1 different labels, but must have two or more"),
        ({"label": None}, "has labels object"),
    ],
)
def test_arrays_of_another_kind_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^mine {message}"):
        arrays.from_arrays({"image": IMAGES, "label": LABELS} | change, name="mine")


def test_test_arrays_must_be_like_those_of_the_training() -> None:
    train = {"image": IMAGES, "label": LABELS}
    for test, message in (
        ({"image": IMAGES[..., :1], "label": LABELS}, r"has test images \(6, 9, 1\) with labels int64, but must have"),
        ({"image": IMAGES, "label": LABELS + 1}, "has the label 3 only in its test images"),
    ):
        with pytest.raises(ValueError, match=message):
            arrays.from_arrays(train, test)
    with pytest.raises(ValueError, match="has 3 different labels, but must have 2, one for each name in classes"):
        arrays.from_arrays(train, classes=("cat", "dog"))
    for classes in ((1, 2, 3), ("a", "a", "b")):
        with pytest.raises(ValueError, match="^classes=.* must be texts, all of them different$"):
            arrays.from_arrays(train, classes=classes)
    for share in (0.0, 20):
        with pytest.raises(ValueError, match="^test_share=.* must be above 0 and below 1$"):
            arrays.from_arrays(train, test_share=share)
    with pytest.raises(ValueError, match="must be a mapping with the arrays 'image' and 'label', but is {}"):
        arrays.from_arrays({})


def test_a_pipeline_of_grain_is_read_in_memory() -> None:
    import grain

    def example(i: int) -> dict:
        return {"image": IMAGES[i, : 3 + i % 3], "label": LABELS[i]}

    pipeline = grain.MapDataset.range(12).map(example)
    data = arrays.from_grain(pipeline, pipeline[:4], classes=("a", "b", "c"), name="mine")
    train = sources.load(data, image_size=(3, 9))
    np.testing.assert_array_equal(train.labels, LABELS)
    np.testing.assert_array_equal(train.images[3], IMAGES[3, :3])
    assert len(sources.load(data, split="test", image_size=4).labels) == 4
    with pytest.raises(ValueError, match="^the images of mine differ in size"):
        sources.load(data)
    for classes in (("a",), 2, "ab"):
        with pytest.raises(ValueError, match=r"^mine has classes=.*, but must have the names of two or more"):
            arrays.from_grain(pipeline, pipeline, classes=classes, name="mine")
    for wrong in ((IMAGES[0], 0), {"img": IMAGES[0]}):
        data = arrays.from_grain([wrong], [wrong], classes=("a", "b"), name="mine")
        with pytest.raises(ValueError, match="at position 0 of its split 'train', but must have mappings with 'image'"):
            data.open("train")


@pytest.mark.parametrize(
    "example", [(0, 1), {"image": 0}, *({"image": IMAGES[0], "label": label} for label in ("a", 0.5, [1], 3))]
)
def test_an_example_of_another_form_is_named_when_it_is_read(example: object) -> None:
    examples = [{"image": IMAGES[0], "label": 0}, example]
    source = arrays.from_grain(examples, examples, classes=("a", "b"), name="mine").open("train")
    with pytest.raises(ValueError, match=r"^mine has .* at position 1 of its split 'train', but must have "):
        source.read([0, 1])


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_an_image_of_another_form_is_named_when_it_is_read(image: np.ndarray) -> None:
    examples = [{"image": np.zeros((4, 4, 3), np.uint8), "label": 0}, {"image": image, "label": 1}]
    source = arrays.from_grain(examples, examples, classes=("a", "b"), name="mine").open("train")
    source.read([0])
    with pytest.raises(
        ValueError, match=r"^mine has an image \w+\(.*\) at position 1 of .*, but must have uint8\(H, W, 3"
    ):
        source.read([0, 1])


# CIFAR-10's pickles ---------------------------------------------------------------------------------------------------


def write_cifar(folder: Path, count: int = 10) -> np.ndarray:
    """A folder as its authors give it, with `count` images in each of its six files; the images."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6 * count, 3072)).astype(np.uint8)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, part in zip(names, np.split(images, 6), strict=True):
        batch = {b"batch_label": b"x", b"labels": list(range(count)), b"data": part, b"filenames": [b"a.png"] * count}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"num_cases_per_batch": count, b"label_names": [b"class %d" % n for n in range(count)], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def test_cifar_s_pickles_are_what_pickle_reads(tmp_path: Path) -> None:
    images = write_cifar(tmp_path / "cifar-10-batches-py")
    data = sources.find(str(tmp_path / "cifar-10-batches-py"))
    train, test = (sources.load(data, split=split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, images[:50])
    np.testing.assert_array_equal(test.images, images[50:])
    assert train.labels.tolist() == [*range(10)] * 5 and train.classes[3] == "class 3"


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, protocol: int) -> None:
    write_cifar(folder := tmp_path / "own")
    batch = {b"labels": [0], b"data": Harmful(tmp_path / "made")}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(ValueError, match=r"data_batch_1 cannot be read as .* \(it asks for posix.mkdir, which is not"):
        sources.find(str(folder))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("code", [b"\x96" + (2**40).to_bytes(8, "little"), b"Nr" + (2**31).to_bytes(4, "little")])
def test_a_pickle_that_asks_for_memory_is_refused(code: bytes, tmp_path: Path) -> None:
    path = tmp_path / "batches.meta"
    path.write_bytes(b"\x80\x05" + code + b".")
    with pytest.raises(ValueError, match="cannot be read as a file of cifar-10-batches-py"):
        arrays._unpickled(path)
