"""Your own images that are not separate picture files: arrays, a Grain source, an .npz, CIFAR-10's Python pickles."""

import io
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.data.source import DataSet, Source, held_out
from prdarts_jax.refusals import cut, shown

_SIDE, _CHANNELS = 4096, (1, 3)  # the largest side in pixels; the allowed numbers of channels
# The names that the arrays of an .npz may have: images and labels for training, then those for the test, if any.
_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels"),
)
Arrays = Mapping[str, np.ndarray]  # with the keys 'image' and 'label'


def from_arrays(
    train: Arrays,
    test: Arrays | None = None,
    *,
    classes: Sequence[str] = (),
    name: str = "arrays",
    test_share: float = 0.2,
    test_seed: int = 0,
) -> DataSet:
    """Makes a data set of arrays. Pass it as `data` to `run.search.run`, `run.train.run` or `prdarts_jax.evaluate`.

    Args:
      train: {'image': u8[N, H, W] or u8[N, H, W, C], 'label': integers or strings, [N] or [N, 1]}, with C = 1 or 3.
        Each label is replaced by its index among the sorted different labels.
      test: the test images in the same form, with labels that `train` has too. By default a part of `train` is held
        out (see `source.held_out`).
      classes: a name for each of the sorted different labels; by default the labels themselves.
      name: the name of the data set in messages.
      test_share, test_seed: `share` and `seed` of `source.held_out`, used only without `test`.

    Raises:
      ValueError: an array has another dtype or shape, there are fewer than two different labels, `classes` has another
        length or a name twice, `test` does not fit `train`, or there is no `test` and `test_share` is not between 0
        and 1 or no class has two images.

    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (30, 12, 16, 3)).astype(np.uint8)
    >>> data = from_arrays({"image": images, "label": np.arange(30) % 3}, classes=("cat", "dog", "owl"))
    >>> [len(data.open(split)) for split in ("train", "test")], data.open("train").shape
    ([24, 6], (12, 16, 3))
    """
    if not all(isinstance(of_label, str) for of_label in classes) or len({*classes}) < len(classes):
        raise ValueError(f"classes={shown(classes)} must be texts, all of them different")
    images, labels = _checked(train, name)
    known, numbers = np.unique(labels, return_inverse=True)
    if len(known) < 2 or classes and len(classes) != len(known):
        wanted = f"{len(classes)}, one for each name in classes" if classes else "two or more"
        raise ValueError(f"{cut(name, 200)} has {len(known)} different labels, but must have {wanted}")
    named = tuple(classes) or tuple(map(str, known.tolist()))
    identity = f"{len(labels)} images, {_crc(images, labels):08x}"
    source = _source(images, numbers, named)
    if test is None:
        return held_out(name, source, test_share, test_seed, identity)
    test_images, test_labels = _checked(test, name)
    if test_images.shape[1:] != images.shape[1:] or test_labels.dtype.kind != labels.dtype.kind:
        raise ValueError(
            f"{cut(name, 200)} has test images {test_images.shape[1:]} with labels {test_labels.dtype}, but must have "
            f"{images.shape[1:]} with labels {labels.dtype}, like the training images"
        )
    if unknown := sorted(set(test_labels.tolist()) - set(known.tolist())):
        raise ValueError(f"{cut(name, 200)} has the label {shown(unknown[0])} only in its test images")
    identity = f"{len(labels)} and {len(test_labels)} images, {_crc(images, labels, test_images, test_labels):08x}"
    splits = {"train": source, "test": _source(test_images, np.searchsorted(known, test_labels), named)}
    return DataSet(name, splits.__getitem__, identity)


def from_grain(train: Any, test: Any, *, classes: Sequence[str], name: str) -> DataSet:
    """Makes a data set of Grain pipelines that allow random access. Images are read when they are needed.

    Args:
      train: an object with `__len__` and `__getitem__`, for instance a `grain.MapDataset` or one of Grain's data
        sources. Each item is {'image': u8[H, W, C] or u8[H, W], 'label': an int in [0, len(classes))}. H and W may
        differ between images; all images must have as many channels as the first, 1 or 3.
      test: the test images in the same form.
      classes: the names of the labels.
      name: the name of the data set in messages and in config.json. A run is resumed only with a data set of the same
        name and the same numbers of images.

    Raises:
      ValueError: there are fewer than two classes. When the images are read: a split is empty, or an image or a label
        has another form.

    >>> import grain
    >>> image = np.zeros((20, 30, 3), np.uint8)
    >>> pipeline = grain.MapDataset.range(8).map(lambda i: {"image": image, "label": i % 2})
    >>> data = from_grain(pipeline, pipeline, classes=("cat", "dog"), name="mine")
    >>> len(data.open("train")), data.open("train").shape
    (8, (None, None, 3))
    """

    if not isinstance(classes, Sequence) or isinstance(classes, str) or len(classes) < 2:
        raise ValueError(f"{cut(name, 200)} has classes={shown(classes)}, but must have the names of two or more")

    def open_split(split: str) -> Source:
        examples = train if split == "train" else test
        if not len(examples):
            raise ValueError(f"{cut(name, 200)} has no images in its split {split!r}")

        def example_at(index: int) -> Any:
            example = examples[index]
            if not isinstance(example, Mapping) or {"image", "label"} - example.keys():
                raise ValueError(
                    f"{cut(name, 200)} has {shown(example)} at position {index} of its split {split!r}, but must "
                    "have mappings with 'image' and 'label'"
                )
            return example

        def read(indices: list[int]) -> list[dict[str, Any]]:
            found = [example_at(index) for index in indices]
            for index, example in zip(indices, found, strict=True):
                image = np.asarray(example["image"])
                if image.dtype != np.uint8 or image.ndim not in (2, 3) or np.atleast_3d(image).shape[2] != channels:
                    raise ValueError(
                        f"{cut(name, 200)} has an image {image.dtype}{shown(image.shape)} at position {index} of its "
                        f"split {split!r}, but must have uint8(H, W, {channels})"
                    )
                label = np.asarray(example["label"])
                if label.shape or label.dtype.kind not in "iu" or not 0 <= label < len(classes):
                    raise ValueError(
                        f"{cut(name, 200)} has the label {shown(example['label'])} at position {index} of its split "
                        f"{split!r}, but must have integers from 0 to {len(classes) - 1}"
                    )
            return found

        channels = np.atleast_3d(example_at(0)["image"]).shape[2]
        if channels not in _CHANNELS:
            raise ValueError(f"{cut(name, 200)} has images of {channels} channels, but must have 1 or 3")
        return Source((None, None, channels), len(classes), len(examples), read, tuple(classes))

    return DataSet(name, open_split, f"{len(train)} and {len(test)} images")


def _crc(*arrays: np.ndarray) -> int:
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(str)).data, crc)
    return crc


def _source(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Source:
    labels = labels.astype(np.int32)

    def read(indices: list[int]) -> list[dict[str, Any]]:
        return [{"image": images[index], "label": labels[index]} for index in indices]

    height, width, channels = images.shape[1:]
    return Source((height, width, channels), len(classes), len(labels), read, classes, labels)


def _checked(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Checks arrays and returns (images u8[N, H, W, C], labels [N])."""
    name = cut(name, 200)
    if not isinstance(arrays, Mapping) or {"image", "label"} - arrays.keys():
        raise ValueError(f"{name} must be a mapping with the arrays 'image' and 'label', but is {shown(arrays)}")
    images, labels = np.asarray(arrays["image"]), np.asarray(arrays["label"])
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        hint = "; (images * 255).astype('uint8') converts fractions" if images.dtype.kind == "f" else ""
        raise ValueError(
            f"{name} has images {images.dtype}{shown(images.shape)}, but must have uint8(N, H, W) or (N, H, W, C){hint}"
        )
    images = images if images.ndim == 4 else images[..., None]
    count, height, width, channels = images.shape
    if not (0 < count and 0 < height <= _SIDE and 0 < width <= _SIDE and channels in _CHANNELS):
        raise ValueError(
            f"{name} has images {shown(images.shape)}, but must have one or more, with sides of 1 to {_SIDE} and, on "
            "the last axis, 1 or 3 channels"
        )
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"{name} has labels {labels.dtype}{shown(labels.shape)}, but must have integers or texts, one for each of "
            f"{len(images)} images"
        )
    return np.ascontiguousarray(images), labels.ravel()


def from_npz(path: Path, test_share: float, test_seed: int) -> DataSet:
    """Reads an .npz and gives its arrays to `from_arrays`. Python objects in it are refused, never executed.

    The arrays must have the names `images` and `labels`; or `x_train`, `y_train`, `x_test` and `y_test`; or
    `train_images`, `train_labels`, `test_images` and `test_labels`.

    Args:
      path: the file; it must exist.
      test_share, test_seed: as for `from_arrays`; used only for `images` and `labels`.

    Raises:
      ValueError: the file is of another kind or damaged, its arrays have other names, or `from_arrays` refuses them.
    """
    try:
        with path.open("rb") as opened:
            is_zip = zipfile.is_zipfile(opened)
    except OSError as error:
        raise _unreadable(path, "an .npz of arrays without Python objects", error) from None
    if not is_zip:
        raise ValueError(f"{cut(str(path), 300)} is no .npz file, such as np.savez writes, or a part of one")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = next((names for names in _NAMES if set(names) <= set(file.files)), None)
            found = {name: file[name] for name in names or ()}
            there = file.files
    except Exception as error:  # damaged zip files and damaged arrays raise errors of many kinds
        raise _unreadable(path, "an .npz of arrays without Python objects", error) from None
    if names is None:
        wanted = "; or ".join(", ".join(names) for names in _NAMES)
        raise ValueError(f"{cut(str(path), 300)} has the arrays {refusals.listed('', there)}, but must have {wanted}")
    train, *test = ({"image": found[a], "label": found[b]} for a, b in zip(names[::2], names[1::2], strict=True))
    return from_arrays(train, *test, name=str(path), test_share=test_share, test_seed=test_seed)


# CIFAR-10's pickles ---------------------------------------------------------------------------------------------------


def is_cifar(folder: Path) -> bool:
    """Whether the folder looks like cifar-10-batches-py: it has a file data_batch_1."""
    return (folder / "data_batch_1").is_file()


def from_cifar(folder: Path) -> DataSet:
    """Reads CIFAR-10 from the folder cifar-10-batches-py, as its authors distribute it.

    The pickles are read by a restricted unpickler that knows only plain values and NumPy arrays, so no code in them is
    executed.

    Raises:
      ValueError, OSError: a file is missing, is damaged or has another form.
    """
    batches = sorted(folder.glob("data_batch_[0-9]"), key=lambda path: path.name)
    images, labels = zip(*map(_batch, batches), strict=True)
    test_images, test_labels = _batch(folder / "test_batch")
    names = _unpickled(folder / "batches.meta").get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{cut(str(folder / 'batches.meta'), 300)} must have a list label_names of bytes")
    train = {"image": np.concatenate(images), "label": np.concatenate(labels)}
    classes = [name.decode(errors="replace") for name in names]
    return from_arrays(train, {"image": test_images, "label": test_labels}, classes=classes, name=str(folder))


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads (images u8[N, 32, 32, 3], labels i64[N]) from one file."""
    batch = _unpickled(path)
    data, labels = batch.get(b"data"), batch.get(b"labels")
    pixels = data.array() if isinstance(data, _Pickled) else None
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**31 for label in labels):
        labels = []
    if pixels is None or not labels or pixels.shape != (len(labels), 3072):
        raise ValueError(
            f"{cut(str(path), 300)} must have data, uint8(N, 3072), and labels, a list of N integers, like the files "
            "of cifar-10-batches-py"
        )
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels)


class _Pickled:
    """Takes the place of a NumPy array or dtype when a pickle is read: keeps its pickled state, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...] = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray | None:
        """The array of uint8 whose state this is; None if it is the state of anything else."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, dtype, in_columns, content = self.state
        if not isinstance(dtype, _Pickled) or dtype.arguments[:1] not in ((b"u1",), ("u1",)):
            return None
        if type(content) is not bytes or type(shape) is not tuple or any(type(side) is not int for side in shape):
            return None
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if in_columns else "C")


# With these codes, and with a memo index above this one, a small file can make Python allocate much memory.
_BUFFERS, _MEMO = ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"), 10**6


class _Unpickler(pickle.Unpickler):
    """Reads dicts, lists, tuples, numbers, bytes and NumPy's arrays, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Pickled
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return _Pickled
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, *_: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")


def _unpickled(path: Path) -> dict[Any, Any]:
    file = refusals.file("file of cifar-10-batches-py", path, 2**28)
    try:
        text = file.read_bytes()
        for code, argument, _ in pickletools.genops(text):  # builds nothing, and raises if the text ends too early
            if code.name in _BUFFERS or (code.name.endswith("PUT") and int(str(argument)) > _MEMO):
                raise ValueError(f"its code {code.name} is not allowed")
        content = _Unpickler(io.BytesIO(text), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("it is not a dict")
    except Exception as error:  # damaged pickles raise errors of many kinds
        raise _unreadable(path, "a file of cifar-10-batches-py", error) from None
    return content


def _unreadable(path, what, error):
    cause = str(error) or type(error).__name__
    return ValueError(f"{cut(str(path), 300)} cannot be read as {what} ({cut(cause, 150)})")
