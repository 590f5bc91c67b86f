"""The batches of a training: from arrays on the device, or streamed from disk."""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from prdarts_jax import devices, refusals
from prdarts_jax.data import sources, streaming
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.data.epochs import key_for
from prdarts_jax.data.source import DataSet, subset
from prdarts_jax.evaluation.training import Purpose, TrainProblem, test_step, train_epoch, train_step
from prdarts_jax.run import validation
from prdarts_jax.run.loop import Run


class Batches(abc.ABC):
    """The images of a run, in batches of batch_size / accumulate that are spread over a mesh.

    Attributes:
      num_classes: number of classes.
      description: of the images, in one or two lines.
      image_shape: (B, H, W, C) of a batch.
      steps_per_epoch: number of batches of the images that train the weights.
      augmentation: what compiled code does to an image.
      mesh: of the devices.
    """

    num_classes: int
    description: str
    image_shape: tuple[int, int, int, int]
    steps_per_epoch: int
    augmentation: Augmentation
    mesh: Mesh

    @abc.abstractmethod
    def function(self, problem: Any) -> Any:
        """`jax.jit` of (state, *arguments) -> (state, mean metrics), with the arguments of `calls`; of a search, the
        states of all seeds."""

    @abc.abstractmethod
    def example(self) -> tuple[Any, ...]:
        """The arguments of `function` after the state, or their shapes, to compile it for."""

    @abc.abstractmethod
    def calls(self, run: Run) -> Iterator[tuple[int, Iterable[tuple[Any, ...]]]]:
        """Yields, until the run ends, a number of steps and the arguments of the calls of `function` that do them."""


class Feed(Batches):
    """Training and test images of one data set.

    Attributes:
      name: of the data set.
      classes: their names; empty if they have none.
      cropped: True if the test uses the centre of an image, False if it uses the whole image.
    """

    name: str
    classes: tuple[str, ...]
    cropped: bool = False

    @abc.abstractmethod
    def test_batches(self) -> Iterator[dict[str, Any]]:
        """The test images in batches of one shape, as `training.test_step` takes them."""


def find_data(config: ConfigDict, given: DataSet | None = None) -> DataSet:
    """The data set that is given, or the one that a valid config names.

    Raises:
      ValueError, OSError: the data cannot be used; the message is one sentence.
    """
    if isinstance(given, DataSet):
        return given
    if given is not None:
        raise ValueError(f"data={refusals.shown(given)} must be a DataSet, for instance that of data.from_arrays")
    shares = {"test_share": config.test_share, "test_seed": config.test_seed}
    return sources.find(config.dataset, config.data_dir or None, **shares)


def identity(data: DataSet) -> dict[str, str]:
    """Fields of config.json beside the config, so that a run is not resumed after the user's images have changed."""
    return {"dataset": data.name} | ({"images": data.identity} if data.identity else {})


def is_streamed(config: ConfigDict, data: DataSet) -> bool:
    """Whether a run reads the images from disk, since in memory they would take more than `config.memory`."""
    if data.streamed:
        return True
    source = data.open("train")
    if not config.image_size and None in source.shape:
        return False  # they are refused when they are loaded
    height, width = sources.size_of(source, config.image_size, data.name)
    images = (not config.get("test_on_rest") and config.num_examples) or len(source)
    return height * width * source.shape[2] * images > config.memory * 1e9


def open_feed(config: ConfigDict, mesh: Mesh, data: DataSet) -> Feed:
    """The images of a data set for a valid training config.

    Raises:
      ValueError, OSError: the data cannot be used; the message is one sentence.
    """
    return (_Streamed if is_streamed(config, data) else InMemory)(config, mesh, data)


def stream_options(config: ConfigDict) -> dict[str, Any]:
    """The options with which `streaming` reads training images; refuses an image_size that it cannot use."""
    if type(config.image_size) is not int or not config.image_size:
        raise ValueError(
            f"config.image_size={config.image_size} must be above 0, and one number, for images that are streamed from "
            "disk, since they are cropped to squares"
        )
    validation.check_crop(config, "cutout", config.image_size)
    read = {"image_size": config.image_size, "workers": config.workers}
    share = (jax.process_index(), jax.process_count())
    return read | {"flip": config.augmentation.flip, "jitter": config.jitter, "share": share}


def stream_augmentation(config: ConfigDict) -> Augmentation:
    """What compiled code does to a streamed image, which is cropped and mirrored already."""
    return Augmentation(streaming.MEAN, streaming.STD, pad=0, flip=False, cutout=config.augmentation.cutout)


def batch_shape(image_shape: tuple[int, int, int, int], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of u8 images (B, H, W, C) and their labels, spread over the mesh."""
    spread = devices.sharding(mesh, devices.SPREAD)
    image = jax.ShapeDtypeStruct(image_shape, jnp.uint8, sharding=spread)
    return {"image": image, "label": jax.ShapeDtypeStruct(image_shape[:1], jnp.int32, sharding=spread)}


class InMemory(Feed):
    """All images are on the device; one call does several steps."""

    def __init__(self, config: ConfigDict, mesh: Mesh, data: DataSet, section: str = "") -> None:
        read = {"image_size": config.image_size}
        train = sources.load(data, num_examples=config.num_examples, **read)
        validation.validate_against_data(config, train, section)
        batch_size = config.batch_size // config.accumulate
        self.name, self.num_classes, self.classes, self.mesh = data.name, train.num_classes, train.classes, mesh
        self.image_shape = (batch_size, *train.images.shape[1:])
        self.steps_per_epoch = len(train.labels) // batch_size
        self.augmentation = Augmentation(*sources.statistics(train), **config.augmentation)
        self._train, self._test = train, sources.load(data, split="test", **read)
        channels = [images.images.shape[3] for images in (train, self._test)]
        if channels[0] != channels[1]:
            raise ValueError(
                f"{refusals.cut(data.name, 200)} has training images of {channels[0]} channels and test images of "
                f"{channels[1]}, but must have as many channels in both"
            )
        if self._test.images.shape[1:3] != train.images.shape[1:3]:
            (h, w), (height, width) = self._test.images.shape[1:3], train.images.shape[1:3]
            raise ValueError(
                f"config.image_size={config.image_size} must be above 0 for {refusals.cut(data.name, 200)}, whose "
                f"training images are {height}x{width} pixels and its test images {h}x{w}"
            )
        if config.test_on_rest:
            rest = sources.load(data, num_examples=config.num_examples, others=True, **read)
            images, labels = (np.concatenate([getattr(d, n) for d in (self._test, rest)]) for n in ("images", "labels"))
            self._test = dataclasses.replace(self._test, images=images, labels=labels)
        self.description = sources.describe(train, data.name, len(self._test))

    @functools.cached_property
    def _images(self) -> dict[str, jax.Array]:
        return devices.device_put({"image": self._train.images, "label": self._train.labels}, self.mesh)

    def function(self, problem: TrainProblem) -> Callable:
        """`function` of (state, images, steps)."""
        return jax.jit(devices.shard_map(self.epoch(problem), self.mesh), donate_argnums=0)

    def epoch(self, problem: TrainProblem) -> Callable:
        """`function` for one device, not compiled."""

        def epoch(state, images, steps):
            return train_epoch(problem, state, images, self.augmentation, self.image_shape[0], steps)

        return epoch

    def test(self, problem: TrainProblem) -> Callable:
        """(state, `test_images`) -> the sums of `training.test_step` over the images; for one device, not compiled."""

        def test(state, batches):
            def step(batch):
                return test_step(problem.network, self.augmentation, state.variables, batch)

            return jax.tree.map(lambda sums: jnp.sum(sums, axis=0), jax.lax.map(step, batches))

        return test

    def test_images(self) -> dict[str, jax.Array]:
        """All batches of test images in one array, u8[batches, B, H, W, C], and their labels."""
        return devices.device_put(jax.tree.map(lambda *a: np.stack(a), *self._host_batches()), self.mesh)

    def example(self) -> tuple[Any, ...]:
        """The images, and a number of steps."""
        return self._images, jnp.int32(1)

    def calls(self, run: Run) -> Iterator[tuple[int, Iterable[tuple[Any, ...]]]]:
        """One call does all of the steps."""
        for steps in run.calls():
            yield steps, [(self._images, jnp.int32(steps))]

    def test_batches(self):
        """The test images in batches; black images with the label -1 fill up the last one."""
        for batch in self._host_batches():
            yield devices.device_put(batch, self.mesh, devices.SPREAD)

    def _host_batches(self):
        batch_size = self.image_shape[0]
        for start in range(0, len(self._test.labels), batch_size):
            image, label = (a[start : start + batch_size] for a in (self._test.images, self._test.labels))
            missing = batch_size - len(label)
            yield {
                "image": np.pad(image, ((0, missing), (0, 0), (0, 0), (0, 0))),
                "label": np.pad(label, (0, missing), constant_values=-1),
            }


class _Streamed(Feed):
    """Other processes read, crop, mirror and jitter the images; a call does one step, with one batch."""

    cropped = True

    def __init__(self, config: ConfigDict, mesh: Mesh, data: DataSet) -> None:
        if config.test_on_rest:
            raise ValueError("config.test_on_rest=True must be False for images that are streamed from disk")
        self._options = stream_options(config)
        source, name = data.open("train"), data.name
        self._train = subset(source, sources.kept(source, config.num_examples, name))
        self._test = data.open("test")
        images, batch_size = len(self._train), config.batch_size // config.accumulate
        if config.batch_size > images:
            raise ValueError(f"config.batch_size={config.batch_size} must be at most {images}, the number of images")
        self.name, self.num_classes, self.classes, self.mesh = name, source.num_classes, source.classes, mesh
        self.description = sources.describe(self._train, name, len(self._test), "; streamed from disk")
        self.image_shape = (batch_size, config.image_size, config.image_size, 3)
        self.steps_per_epoch = images // batch_size
        self.augmentation = stream_augmentation(config)
        self._seed = config.seed

    def function(self, problem):
        def step(state, batch):
            key = key_for(state.key, Purpose.AUGMENTATION, state.step)
            image = augment(self.augmentation, key, batch["image"], problem.axis_name)
            return train_step(problem, state, {"image": image, "label": batch["label"]})

        parts = devices.shard_map(step, self.mesh, (devices.REPLICATED, devices.SPREAD))
        return jax.jit(parts, donate_argnums=0)

    def example(self):
        return (batch_shape(self.image_shape, self.mesh),)

    def calls(self, run):
        options = self._options | {"batch_size": self.image_shape[0], "seed": self._seed}
        batches = streaming.train_batches(self._train, step=run.step, **options)
        for steps in run.calls():
            yield steps, ((devices.device_put_local(batch, self.mesh),) for batch in itertools.islice(batches, steps))

    def test_batches(self):
        options = {name: self._options[name] for name in ("image_size", "workers")}
        for batch in streaming.test_batches(self._test, batch_size=self.image_shape[0], **options):
            yield devices.device_put(batch, self.mesh, devices.SPREAD)
