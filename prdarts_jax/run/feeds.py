"""Where a training gets its batches: from arrays on the device, or streamed from disk."""

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

from prdarts_jax import devices
from prdarts_jax.data import sources, streaming
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.evaluation.training import TrainProblem, test_step, train_epoch, train_step
from prdarts_jax.run import settings
from prdarts_jax.run.loop import Run


class Feed(abc.ABC):
    """Training and test images of one data set, in batches of batch_size / accumulate that are spread over a mesh.

    Attributes:
      name: of the data set.
      num_classes: number of classes.
      classes: their names, where they have some.
      image_shape: (B, H, W, C) of a batch.
      steps_per_epoch: batches of the training images.
      augmentation: what compiled code does to an image.
      mesh: of the devices.
    """

    name: str
    num_classes: int
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int, int]
    steps_per_epoch: int
    augmentation: Augmentation
    mesh: Mesh

    @abc.abstractmethod
    def function(self, problem: TrainProblem) -> Callable:
        """`jax.jit` of (state, *arguments) -> (state, mean metrics), with the arguments that `calls` gives."""

    @abc.abstractmethod
    def example(self) -> tuple[Any, ...]:
        """Arguments, or their shapes, to compile `function` for."""

    @abc.abstractmethod
    def calls(self, run: Run) -> Iterator[tuple[int, Iterable[tuple[Any, ...]]]]:
        """From here to the end of the run: so many steps, and the arguments of the calls of `function` that do them."""

    @abc.abstractmethod
    def test_batches(self) -> Iterator[dict[str, Any]]:
        """The test images in batches of one shape, as `training.test_step` takes them."""


def open_feed(config: ConfigDict, mesh: Mesh) -> Feed:
    """The data of a valid training config.

    Raises:
      ValueError, OSError: for data that cannot be used, in one sentence.
    """
    return (_Streamed if sources.DATASETS[config.dataset].streamed else InMemory)(config, mesh)


class InMemory(Feed):
    """All images are on the device, where one call does all of the steps."""

    def __init__(self, config: ConfigDict, mesh: Mesh, section: str = "") -> None:
        read = {"image_size": config.image_size}
        train = sources.load(config.dataset, config.data_dir or None, num_examples=config.num_examples, **read)
        settings.validate_against_data(config, train, section)
        batch_size = config.batch_size // config.accumulate
        self.name, self.num_classes, self.mesh = train.name, train.num_classes, mesh
        self.image_shape = (batch_size, *train.images.shape[1:])
        self.steps_per_epoch = len(train.labels) // batch_size
        self.augmentation = Augmentation(*sources.statistics(train), **config.augmentation)
        self._train, self._test = train, sources.load(config.dataset, config.data_dir or None, split="test", **read)
        if config.test_on_rest:
            unused = {"num_examples": config.num_examples, "others": True, **read}
            rest = sources.load(config.dataset, config.data_dir or None, **unused)
            images, labels = (np.concatenate([getattr(d, n) for d in (self._test, rest)]) for n in ("images", "labels"))
            self._test = dataclasses.replace(self._test, images=images, labels=labels)

    @functools.cached_property
    def _images(self) -> dict[str, jax.Array]:
        return devices.device_put({"image": self._train.images, "label": self._train.labels}, self.mesh)

    def function(self, problem: TrainProblem) -> Callable:
        """Of (state, images, steps)."""
        return jax.jit(devices.shard_map(self.epoch(problem), self.mesh), donate_argnums=0)

    def epoch(self, problem: TrainProblem) -> Callable:
        """`function` of one device, not compiled."""

        def epoch(state, images, steps):
            return train_epoch(problem, state, images, self.augmentation, self.image_shape[0], steps)

        return epoch

    def test(self, problem: TrainProblem) -> Callable:
        """(state, `test_images`) -> the sums of `training.test_step` over them, on one device, not compiled."""

        def test(state, batches):
            def step(batch):
                return test_step(problem.network, self.augmentation, state.variables, batch)

            return jax.tree.map(lambda sums: jnp.sum(sums, axis=0), jax.lax.map(step, batches))

        return test

    def test_images(self) -> dict[str, jax.Array]:
        """All batches of test images in one: u8[batches, B, H, W, C], and their labels."""
        return devices.device_put(jax.tree.map(lambda *a: np.stack(a), *self._host_batches()), self.mesh)

    def example(self) -> tuple[Any, ...]:
        """The images, and one step."""
        return self._images, jnp.int32(1)

    def calls(self, run: Run) -> Iterator[tuple[int, Iterable[tuple[Any, ...]]]]:
        """One call does all of the steps."""
        for steps in run.calls():
            yield steps, [(self._images, jnp.int32(steps))]

    def test_batches(self):
        """Black images of label -1 fill up the last one."""
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
    """Images are read, cropped, mirrored and jittered by other processes; a call does one step, of one batch."""

    def __init__(self, config: ConfigDict, mesh: Mesh) -> None:
        if not config.image_size or config.num_examples:
            raise ValueError(
                f"config.image_size={config.image_size} must be above 0 and config.num_examples={config.num_examples} "
                f"must be 0 for {config.dataset}, whose images differ in size and are all used"
            )
        self._train, self._test = (
            sources.open_split(config.dataset, config.data_dir or None, split=s) for s in ("train", "validation")
        )
        images, batch_size = len(self._train), config.batch_size // config.accumulate
        if config.batch_size > images:
            raise ValueError(f"config.batch_size={config.batch_size} must be at most {images}, the images there are")
        self.name, self.num_classes, self.mesh = config.dataset, self._train.num_classes, mesh
        self.image_shape = (batch_size, config.image_size, config.image_size, 3)
        self.steps_per_epoch = images // batch_size
        self.augmentation = Augmentation(streaming.MEAN, streaming.STD, pad=0, flip=False)
        self._size = {"image_size": config.image_size, "batch_size": batch_size, "workers": config.workers}
        self._seed = config.seed

    def function(self, problem):
        def step(state, batch):
            image = augment(self.augmentation, jax.random.key(0), batch["image"])
            return train_step(problem, state, {"image": image, "label": batch["label"]})

        parts = devices.shard_map(step, self.mesh, (devices.REPLICATED, devices.SPREAD))
        return jax.jit(parts, donate_argnums=0)

    def example(self):
        spread = devices.sharding(self.mesh, devices.SPREAD) if self.mesh.size > 1 else None
        image = jax.ShapeDtypeStruct(self.image_shape, jnp.uint8, sharding=spread)
        return ({"image": image, "label": jax.ShapeDtypeStruct(self.image_shape[:1], jnp.int32, sharding=spread)},)

    def calls(self, run):
        batches = self._train_batches(run.step)
        for steps in run.calls():
            yield steps, ((devices.device_put_local(batch, self.mesh),) for batch in itertools.islice(batches, steps))

    def _train_batches(self, step: int) -> Iterator[streaming.Batch]:
        """Those of all steps from this one on."""
        first, start = divmod(step, self.steps_per_epoch)
        share = (jax.process_index(), jax.process_count())
        for epoch in itertools.count(first):
            yield from streaming.train_batches(
                self._train, **self._size, seed=self._seed, epoch=epoch, start=start, share=share
            )
            start = 0

    def test_batches(self):
        for batch in streaming.test_batches(self._test, **self._size):
            yield devices.device_put(batch, self.mesh, devices.SPREAD)
