"""The batches of a search: two halves of the images, in arrays on the device or streamed from disk."""

import abc
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.data import sources, streaming
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.data.source import DataSet, subset
from prdarts_jax.run import feeds, validation
from prdarts_jax.run.loop import Run
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.step import search_epoch, search_step


class Halves(feeds.Batches):
    """The images of a search: batches for the weights and for the logits."""

    @abc.abstractmethod
    def _first(self, images: int) -> Batch:
        """The first `images` of the images that train the logits, repeated if there are fewer: u8[images, H, W, C]."""

    def plain_batches(self, batches: int) -> dict[str, jax.Array]:
        """Batches of images that train the logits, not augmented and always the same: f32[batches, B, H, W, C], and
        their labels."""
        plain = dataclasses.replace(self.augmentation, pad=0, flip=False, cutout=0)
        shape, first = (batches, self.image_shape[0]), self._first(batches * self.image_shape[0])
        image = augment(plain, jax.random.key(0), first["image"])
        return {"image": image.reshape(*shape, *image.shape[1:]), "label": first["label"].reshape(shape)}


def open_halves(config: ConfigDict, data: DataSet) -> Halves:
    """The halves of a data set for a valid config of a search, on all devices.

    Raises:
      ValueError, OSError: the data cannot be used; the message is one sentence.
    """
    mesh = devices.make_mesh(config.seeds)
    devices.check_divides(config.batch_size // config.accumulate, mesh, "config.batch_size / config.accumulate")
    return (_Streamed if feeds.is_streamed(config, data) else InMemory)(config, mesh, data)


class InMemory(Halves):
    """All images are on the devices; one call does several steps, and each seed shuffles the images by itself."""

    def __init__(self, config: ConfigDict, mesh: Mesh, data: DataSet) -> None:
        for field in ("weights_share", "logits_share"):
            if config[field] != 0.5:
                raise ValueError(
                    f"config.{field}={config[field]} must be 0.5 for images in memory; config.memory=0 streams them"
                )
        dataset = sources.load(data, image_size=config.image_size, num_examples=config.num_examples)
        validation.validate_against_data(config, dataset)
        self.train, self.val = devices.device_put(sources.split_halves(dataset, config.split_seed), mesh)
        self.num_classes, self.mesh = dataset.num_classes, mesh
        self.description = sources.describe(dataset, data.name)
        batch_size = config.batch_size // config.accumulate
        self.image_shape = (batch_size, *dataset.images.shape[1:])
        self.steps_per_epoch = len(self.train["label"]) // batch_size
        self.augmentation = Augmentation(*sources.statistics(dataset), **config.augmentation)

    def function(self, problem: SearchProblem) -> Any:
        """`function` of (states, train, val, steps)."""

        def epoch(state, train, val, steps):
            return search_epoch(problem, state, train, val, self.augmentation, self.image_shape[0], steps)

        return devices.for_each_seed(epoch, self.mesh, *(devices.REPLICATED,) * 3, donate_argnums=0)

    def example(self) -> tuple[Any, ...]:
        """The images, and a number of steps."""
        return self.train, self.val, jnp.int32(1)

    def calls(self, run: Run) -> Iterator[tuple[int, Iterable[tuple[Any, ...]]]]:
        """One call does all of the steps."""
        for steps in run.calls():
            yield steps, [(self.train, self.val, jnp.int32(steps))]

    def _first(self, images):
        places = np.arange(images) % len(self.val["label"])
        return {name: array[places] for name, array in self.val.items()}


class _Streamed(Halves):
    """Other processes read and crop the images of both halves; a call does one step, with one batch of each half.

    The images for the logits begin again, in another order, whenever all have been used, so their share may be smaller.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh, data: DataSet) -> None:
        if config.seeds > 1:
            raise ValueError(f"config.seeds={config.seeds} must be 1 for images that are streamed from disk")
        self._options, self._seed = feeds.stream_options(config), config.seed
        whole, name, shares = data.open("train"), data.name, (config.weights_share, config.logits_share)
        source = subset(whole, sources.kept(whole, config.num_examples, name))
        self._halves = [subset(source, at) for at in sources.half_indices(len(source), config.split_seed, shares)]
        sizes, batch_size = [len(half) for half in self._halves], config.batch_size // config.accumulate
        if config.batch_size > min(sizes):
            raise ValueError(
                f"config.batch_size={config.batch_size} must be at most {min(sizes)}, the smaller share of the "
                f"{len(source)} images of {name} in use: {sizes[0]} train the weights, {sizes[1]} the logits"
            )
        self.num_classes, self.mesh = source.num_classes, mesh
        how = f"; streamed from disk, {sizes[0]:,} for the weights and {sizes[1]:,} for the logits"
        self.description = sources.describe(source, name, how=how)
        self.image_shape = (batch_size, config.image_size, config.image_size, 3)
        self.steps_per_epoch = sizes[0] // batch_size
        self.augmentation = feeds.stream_augmentation(config)

    def function(self, problem):
        def step(state, *batches):
            keys = jax.random.split(key_for(state.key, Purpose.AUGMENTATION, state.step))
            augmented = [
                {**batch, "image": augment(self.augmentation, key, batch["image"], problem.axis_name)}
                for key, batch in zip(keys, batches, strict=True)
            ]
            return search_step(problem, state, *augmented)

        return devices.for_each_seed(step, self.mesh, devices.SPREAD, devices.SPREAD, donate_argnums=0)

    def example(self):
        return (feeds.batch_shape(self.image_shape, self.mesh),) * 2

    def calls(self, run):
        options = self._options | {"batch_size": self.image_shape[0], "step": run.step}
        train, val = (
            streaming.train_batches(half, seed=(self._seed, number), **options)
            for number, half in enumerate(self._halves)
        )
        for steps in run.calls():
            pairs = zip(itertools.islice(train, steps), val, strict=False)
            yield steps, (tuple(devices.device_put_local(batch, self.mesh) for batch in pair) for pair in pairs)

    def _first(self, images):
        half = self._halves[1]
        repeated = subset(half, np.arange(images) % len(half))
        options = {name: self._options[name] for name in ("image_size", "workers")}
        (batch,) = streaming.test_batches(repeated, batch_size=images, **options)
        return devices.device_put(batch, self.mesh)
