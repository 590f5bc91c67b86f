"""Wrong data sets and images: of each (folder) -> (what is drawn, what reads it)."""

import io
import json
import pickle
import shutil

import imagenet_folder
import numpy as np
from hypothesis import strategies as st
from PIL import Image
from wrong import changed, damaged, reader, refused

from prdarts_jax.data import pictures, sources


def tfds_folders(folder):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    version = folder / "whole" / "fashion_mnist" / "3.0.1"
    imagenet_folder.describe(version, features, {"train": [3]})
    image = imagenet_folder.encoded(np.zeros((4, 4), np.uint8), "PNG")
    good = {"image": image, "label": 3}
    records = version / "fashion_mnist-train.array_record-00000-of-00001"
    imagenet_folder.write_file(records, [good] * 3)
    files = {path.name: path.read_bytes() for path in version.iterdir()}
    described = ("dataset_info.json", "features.json")
    form = st.sampled_from(["PNG", "JPEG", "GIF", "BMP"])
    pixels = st.sampled_from([(4, 4), (5, 4), (4, 4, 3), (4, 4, 4)]).map(lambda shape: np.zeros(shape, np.uint8))
    images = damaged(image) | st.builds(_encoded, pixels, form)
    examples = st.builds(lambda image, label: {"image": image, "label": label}, images, st.integers(-(2**62), 2**62))

    def contents(name):
        made = damaged(files[name])
        if name in described:
            made |= changed(json.loads(files[name])).map(json.dumps).map(str.encode)
        return st.tuples(st.just(name), made)

    def read(drawn):
        name, content = drawn
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.copytree(folder / "whole", folder / "data")
        path = folder / "data" / "fashion_mnist" / "3.0.1" / (name or records.name)
        if name:
            path.write_bytes(content)
        else:
            imagenet_folder.write_file(path, [good, content, good])
        refused(sources.load, "fashion_mnist", folder / "data")

    names = st.sampled_from([*described, records.name, "label.labels.txt"])
    files["label.labels.txt"] = b"\n".join(b"%d" % label for label in range(10))
    return names.flatmap(contents) | st.tuples(st.just(""), examples), read


def image_folders(folder):
    rng = np.random.default_rng(0)
    shapes = {"a/0.png": (5, 4, 3), "a/1.jpg": (9, 9, 3), "b/0.gif": (6, 6), "b/1.bmp": (6, 7, 3), "b/2.tif": (4, 4)}
    files = {
        name: _encoded(rng.integers(0, 256, shape).astype(np.uint8), Image.registered_extensions()[name[3:]])
        for name, shape in shapes.items()
    }
    of_classes = st.text("abc. /\0", min_size=1, max_size=3)
    contents = st.sampled_from(sorted(files)).flatmap(lambda name: st.tuples(st.just(name), damaged(files[name])))
    renamed = st.tuples(of_classes.map(lambda name: f"{name}/0.png"), st.just(files["a/0.png"]))

    def read(drawn):
        shutil.rmtree(folder / "own", ignore_errors=True)
        for name, content in [*files.items(), drawn]:
            path = folder / "own" / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except (OSError, ValueError):  # no name of a file
                return
        refused(lambda: sources.load(str(folder / "own"), image_size=4))

    return contents | renamed, read


def npz_files(folder):
    images, labels = np.zeros((4, 3, 5), np.uint8), np.arange(4) % 2
    kinds = [images, labels, images[0], images / 255, labels[:, None], labels.astype(str), np.array([{}]), images[:0]]
    names = st.sampled_from(["images", "labels", "x_train", "y_train", "x_test", "y_test", ""])
    made = st.dictionaries(names, st.sampled_from(kinds), max_size=4)

    def saved(arrays, compressed):
        file = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(file, **{"images": images, "labels": labels} | arrays)
        return file.getvalue()

    files = st.builds(saved, made, st.booleans())
    path = folder / "own.npz"
    return files | files.flatmap(damaged), reader(path, lambda _: sources.load(str(path)))


def cifar_folders(folder):
    batch = {b"labels": [0, 1], b"data": np.zeros((2, 3072), np.uint8)}
    whole = {name: pickle.dumps(batch, protocol=2) for name in ("data_batch_1", "data_batch_2", "test_batch")}
    whole["batches.meta"] = pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=2)
    odd = st.sampled_from([None, [], {}, "x", 10**400, batch[b"data"], batch[b"data"][0], [0, -1], [0, 2**80], [b"a"]])
    values = st.dictionaries(st.sampled_from([b"labels", b"data", b"label_names", b"more"]), odd)
    made = values.map(lambda changes: pickle.dumps(batch | changes, protocol=2)) | odd.map(pickle.dumps)
    contents = st.sampled_from(sorted(whole)).flatmap(
        lambda name: st.tuples(st.just(name), made | damaged(whole[name]))
    )

    def read(drawn):
        for name, content in (whole | dict([drawn])).items():
            (folder / name).write_bytes(content)
        refused(sources.load, str(folder))

    return contents, read


def _encoded(pixels, form):
    return imagenet_folder.encoded(pixels[..., :3] if form == "JPEG" else pixels, form)


def image_files(folder):
    good = [_encoded(np.zeros((5, 4, 3), np.uint8), form) for form in ("PNG", "JPEG", "GIF", "BMP")]
    path = folder / "image"
    return st.sampled_from(good).flatmap(damaged), reader(path, lambda _: pictures.read(path, 3))
