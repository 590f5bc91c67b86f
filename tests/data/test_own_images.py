"""Images of one's own, against what Pillow and NumPy read of the same files by themselves."""

import os
import pickle
from pathlib import Path

import imagenet_folder
import numpy as np
import pytest
from PIL import Image

from prdarts_jax.data import arrays, pictures, sources
from prdarts_jax.data.source import class_counts, subset


def photograph(seed: int, *shape: int) -> np.ndarray:
    """Smooth noise, so that filters can be told apart but not by much."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, *shape[2:])).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(shape[1::-1], Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of class 'b', five of 'a', of all kinds."""
    for number in range(10):
        save(tmp_path / "own" / "b" / f"{number}.png", photograph(number, 20 + number, 30, 3))
    for number, ending in enumerate(("jpg", "JPEG", "bmp", "tif", "webp")):
        save(tmp_path / "own" / "a" / f"{number}.{ending}", photograph(50 + number, 24, 18 + number, 3))
    (tmp_path / "own" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "own" / "a" / ".hidden.png").write_text("no image")
    (tmp_path / "own" / ".git").mkdir()
    return tmp_path / "own"


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_is_what_pillow_reads_of_its_files(folder: Path) -> None:
    train, test = (sources.load(str(folder), split=split, image_size=(12, 17)) for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b") and train.num_classes == 2
    assert train.images.shape == (12, 12, 17, 3) and test.images.shape == (3, 12, 17, 3)
    found = {
        image.tobytes(): label for part in (train, test) for image, label in zip(part.images, part.labels, strict=True)
    }
    for path in [*(folder / "a").glob("?.*"), *(folder / "b").iterdir()]:
        if path.suffix == ".txt":
            continue
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB").resize((17, 12), Image.Resampling.BILINEAR))
        assert found.pop(expected.tobytes()) == (path.parent.name == "b")
    assert not found


def test_of_each_class_a_share_is_held_out_by_the_seed(folder: Path) -> None:
    def test_images(share: float, seed: int) -> tuple[list[int], set[bytes], set[bytes]]:
        data = sources.find(str(folder), test_share=share, test_seed=seed)
        parts = [sources.load(data, split=split, image_size=8) for split in ("train", "test")]
        train, test = ({image.tobytes() for image in part.images} for part in parts)
        assert not train & test and len(train) + len(test) == 15
        assert f"test_share={share} of each class is held out, drawn by test_seed={seed}" in parts[0].notes[-1]
        return np.bincount(parts[1].labels).tolist(), train, test

    assert test_images(0.4, 0)[0] == [2, 4] and test_images(0.01, 0)[0] == [1, 1] and test_images(0.99, 0)[0] == [4, 9]
    assert test_images(0.4, 0) == test_images(0.4, 0) != test_images(0.4, 1)


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_a_folder_of_test_images_is_used_where_there_is_one(tmp_path: Path, test: str) -> None:
    for split, count in (("train", 3), (test, 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                save(tmp_path / split / name / f"{number}.png", photograph(number, 9, 7, 3))
    data = sources.find(str(tmp_path))
    for split, count in (("train", 3), ("test", 2)):
        found = sources.load(data, split=split)
        assert found.images.shape == (2 * count, 9, 7, 3) and found.labels.tolist() == [0] * count + [1] * count
        np.testing.assert_array_equal(found.images[count], photograph(0, 9, 7, 3))
    save(tmp_path / test / "owl" / "1.png", photograph(0, 9, 7, 3))
    with pytest.raises(ValueError, match=f"^{tmp_path}/{test}/owl is of a class that {tmp_path}/train does not have$"):
        sources.find(str(tmp_path))


def test_test_images_outside_of_folders_of_classes_are_refused(tmp_path: Path) -> None:
    for path in ("train/cat/1.png", "train/dog/1.png", "test/1.png"):
        save(tmp_path / path, photograph(0, 8, 8, 3))
    data = sources.find(str(tmp_path))
    assert len(data.open("train")) == 2
    with pytest.raises(ValueError, match=f"^{tmp_path}/test has no images in folders of classes, as {tmp_path}/train"):
        data.open("test")
    for name in ("cat", "dog"):
        save(tmp_path / "val" / name / "1.png", photograph(0, 8, 8, 3))
    assert len(sources.find(str(tmp_path)).open("test")) == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for path in ("train/1.png", "train/2.png", "bus/1.png"):
        save(tmp_path / path, photograph(0, 8, 8, 3))
    assert sources.find(str(tmp_path)).open("train").classes == ("bus", "train")
    (tmp_path / "test").mkdir()  # now train is the split, whose images are not in folders
    with pytest.raises(ValueError, match=f"^{tmp_path} has 0 folders of classes"):
        sources.find(str(tmp_path))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    for name in (b"cat", b"\xffdog"):
        save(tmp_path / os.fsdecode(name) / "1.png", photograph(1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"the class folder '\\udcffdog' in .* must have a name in UTF-8"):
        sources.find(str(tmp_path))


def test_images_of_every_kind_become_what_a_viewer_shows(tmp_path: Path) -> None:
    colours, grey = photograph(1, 8, 6, 3), photograph(2, 8, 6)
    alpha = np.linspace(0, 255, 48).reshape(8, 6).round().astype(np.uint8)
    share = alpha[..., None] / 255
    palette = Image.fromarray(colours).quantize(8)
    cases = {
        "rgba.png": (np.dstack([colours, alpha]), share * colours + (1 - share) * 255),
        "grey_alpha.png": (
            Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))),
            share * grey[..., None] + (1 - share) * 255,
        ),
        "grey.png": (grey, grey[..., None]),
        "palette.png": (palette, np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)]),
        "bits.png": (Image.fromarray(grey > 128), 255 * (grey > 128)[..., None]),
        "rgb.png": (colours, colours),
    }
    for name, (image, expected) in cases.items():
        found = pictures.read(save(tmp_path / name, image), 3)
        assert found.shape == (8, 6, 3) and found.dtype == np.uint8
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1)
    seen = [pictures.header(tmp_path / name) for name in cases]
    assert [header.grey for header in seen] == [False, True, True, False, True, False]
    assert [header.transparent for header in seen] == [True, True] + [False] * 4
    np.testing.assert_array_equal(pictures.read(tmp_path / "grey.png", 1), grey[..., None])


def test_an_image_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is at the right
    path = save(tmp_path / "turned.png", colours := photograph(1, 8, 6, 3), exif=exif)
    np.testing.assert_array_equal(pictures.read(path, 3), np.rot90(colours, -1))
    assert pictures.header(path)[:2] == (6, 8)


def test_images_are_grey_where_all_of_the_training_are(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(2):
            save(tmp_path / "train" / name / f"{number}.png", photograph(number, 8, 8))
            save(tmp_path / "test" / name / f"{number}.png", photograph(number, 8, 8, 3))
    data = sources.find(str(tmp_path))
    assert [sources.load(data, split=split).images.shape for split in ("train", "test")] == [(4, 8, 8, 1)] * 2
    save(tmp_path / "train" / "cat" / "0.png", photograph(0, 9, 8, 3))
    source = sources.find(str(tmp_path)).open("train")
    assert source.shape == (None, None, 3)
    assert source.notes == (
        "images from 8x8 to 9x8 pixels",
        "grey, so with three equal channels: 3 of 4",
    )


def test_files_that_are_no_images_are_named_before_anything_is_decoded(folder: Path, monkeypatch) -> None:
    whole = (folder / "b" / "3.png").read_bytes()
    (folder / "b" / "3.png").write_bytes(b"text")
    (folder / "b" / "7.png").write_bytes(whole[:30])
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "read", lambda *_: pytest.fail("an image is decoded"))
        with pytest.raises(ValueError) as error:
            sources.find(str(folder))
    assert str(error.value) == (
        f"{folder}/b/3.png cannot be read as an image (cannot identify image file): repair or remove the file; 1 "
        "more cannot be read either"
    )
    for name in ("3", "7"):
        (folder / "b" / f"{name}.png").write_bytes(whole[: len(whole) // 2])
    data = sources.find(str(folder), test_share=0.01)
    with pytest.raises(ValueError, match=rf"^{folder}/b/[37].png cannot be read as an image \(image file is truncated"):
        sources.load(data, image_size=8)


def test_sixteen_bits_a_channel_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", np.full((4, 4), 1000, np.uint16))
    with pytest.raises(ValueError, match="its pixels are of the kind I;16, but must have 8 bits per channel"):
        pictures.header(path)


def test_folders_without_classes_or_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path} has 0 folders of classes, but must have two or more"):
        sources.find(str(tmp_path))
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    save(tmp_path / "cat" / "1.png", photograph(0, 8, 8, 3))
    with pytest.raises(
        ValueError, match=rf"^the class folder {tmp_path}/dog has no image: no file ends in \.png, \.jpg"
    ):
        sources.find(str(tmp_path))
    save(tmp_path / "dog" / "1.png", photograph(0, 8, 8, 3))
    with pytest.raises(ValueError, match=f"^{tmp_path} has only one image per class, but at least one class must have"):
        sources.find(str(tmp_path))


def test_the_identity_changes_with_the_files(folder: Path) -> None:
    before = sources.find(str(folder)).identity
    assert sources.find(str(folder)).identity == before and before.startswith("15 files, ")
    (folder / "b" / "3.png").rename(folder / "a" / "3.png")
    assert sources.find(str(folder)).identity != before


@pytest.mark.parametrize("size", [(5, 7), (40, 26), (8, 3), (64, 64)])
def test_resizing_is_pillow_s_antialiased_filter(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 13, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pictures.resized(image, *size), np.asarray(expected))
    np.testing.assert_array_equal(pictures.resized(image[..., :2], *size), np.asarray(expected)[..., :2])


# Arrays ---------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"^mine has classes=\('a',\), but must have two or more"):
        arrays.from_grain(pipeline, pipeline, classes=("a",), name="mine")


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


# Names of TFDS --------------------------------------------------------------------------------------------------------


def prepare(root: Path, *splits: str) -> None:
    """A data set 'mine' of six images a split."""
    import tensorflow_datasets as tfds

    version = root / "mine" / "1.0.0"
    features = {"image": tfds.features.Image(shape=(4, 4, 3)), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    imagenet_folder.describe(version, features, {split: [6] for split in splits})
    for grey, split in enumerate(splits):
        image = imagenet_folder.encoded(np.full((4, 4, 3), grey, np.uint8), "PNG")
        path = version / f"mine-{split}.array_record-00000-of-00001"
        imagenet_folder.write_file(path, ({"image": image, "label": number % 2} for number in range(6)))


@pytest.mark.parametrize(("splits", "grey"), [(("train", "validation"), 1), (("train", "validation", "test"), 2)])
def test_any_prepared_name_of_tfds_is_a_data_set(tmp_path: Path, splits: tuple[str, ...], grey: int) -> None:
    prepare(tmp_path, *splits)
    train, test = (sources.load("mine", tmp_path, split=split) for split in ("train", "test"))
    assert train.classes == ("cat", "dog") and len(train.labels) == len(test.labels) == 6
    assert not train.images.any() and (test.images == grey).all()


def test_the_identity_of_a_name_of_tfds_changes_with_its_files(tmp_path: Path) -> None:
    for place, splits in (("one", ("train", "test")), ("other", ("train", "validation", "test")), ("rest", ("train",))):
        prepare(tmp_path / place, *splits)
    found = [sources.find("mine", tmp_path / place).identity for place in ("one", "one", "other", "rest")]
    assert found[0] == found[1] and len({*found}) == 3 and all(text.startswith("version 1.0.0, ") for text in found)


def test_of_a_name_of_tfds_without_a_test_a_share_is_held_out(tmp_path: Path) -> None:
    prepare(tmp_path, "train")
    train, test = (sources.load("mine", tmp_path, split=split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [2, 2] and np.bincount(test.labels).tolist() == [1, 1]


# ----------------------------------------------------------------------------------------------------------------------


def test_parts_of_a_source_are_its_images_in_another_order(folder: Path) -> None:
    source = sources.find(str(folder), test_share=0.01).open("train")
    part = subset(source, np.array([3, 0]))
    assert len(part) == 2 and part.labels.tolist() == source.labels[[3, 0]].tolist()
    for found, expected in zip(part.read([1, 0]), source.read([0, 3]), strict=True):
        np.testing.assert_array_equal(found["image"], expected["image"])


def test_what_is_said_of_many_classes_stays_short() -> None:
    labels = np.repeat(np.arange(500), 3)[:-3]
    assert class_counts(np.arange(1000) % 500, (), 500) == "500 classes of 2 images each"
    assert class_counts(labels, (), 500) == "500 classes of 0 to 3 images each; careful: no image of 499"


@pytest.mark.parametrize("code", [b"\x96" + (2**40).to_bytes(8, "little"), b"Nr" + (2**31).to_bytes(4, "little")])
def test_a_pickle_that_asks_for_memory_is_refused(code: bytes, tmp_path: Path) -> None:
    path = tmp_path / "batches.meta"
    path.write_bytes(b"\x80\x05" + code + b".")
    with pytest.raises(ValueError, match="cannot be read as a file of cifar-10-batches-py"):
        arrays._unpickled(path)
