"""Folders of images of one's own, against what Pillow reads of the same files by itself."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prdarts_jax.data import pictures, sources
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


def test_what_is_ignored_in_folders_of_classes_is_counted(folder: Path) -> None:
    notes = "files of other kinds, ignored: 1"
    assert notes in sources.find(str(folder)).open("train").notes
    save(folder / "b" / "more" / "1.png", photograph(0, 8, 8, 3))
    (folder / "b" / ".cache").mkdir()
    assert "folders in folders of classes, ignored: 1" in sources.find(str(folder)).open("train").notes
    folder.rename(folder.parent / "train")
    save(folder.parent / "test" / "a" / "more" / "1.png", photograph(0, 8, 8, 3))
    save(folder.parent / "test" / "a" / "1.png", photograph(0, 8, 8, 3))
    found = sources.find(str(folder.parent)).open("train").notes
    assert {notes, "folders in folders of classes, ignored: 2"} <= {*found}


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


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
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


@pytest.mark.parametrize("share", [0.0, 1.0, 20, -0.5])
def test_a_share_that_is_none_is_refused(folder: Path, share: float) -> None:
    with pytest.raises(ValueError, match=f"^test_share={share} must be above 0 and below 1$"):
        sources.find(str(folder), test_share=share)


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


def test_the_identity_changes_with_the_pixels_of_files_of_the_same_size(tmp_path: Path) -> None:
    found = set()
    for grey in (0, 200):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir(exist_ok=True)
            for number in range(3):
                Image.fromarray(np.full((4, 4), grey, np.uint8)).save(tmp_path / name / f"{number}.bmp")
        found.add(sources.find(str(tmp_path)).identity)
    assert len(found) == 2


@pytest.mark.parametrize("size", [(5, 7), (40, 26), (8, 3), (64, 64)])
def test_resizing_is_pillow_s_antialiased_filter(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 13, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pictures.resized(image, *size), np.asarray(expected))
    np.testing.assert_array_equal(pictures.resized(image[..., :2], *size), np.asarray(expected)[..., :2])


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
