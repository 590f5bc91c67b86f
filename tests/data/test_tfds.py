"""Any prepared name of TFDS is a data set."""

from pathlib import Path

import imagenet_folder
import numpy as np
import pytest

from prdarts_jax.data import sources


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
