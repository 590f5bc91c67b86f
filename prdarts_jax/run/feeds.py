"""Where a training gets its batches: from arrays on the device, or streamed from disk."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.data import sources, streaming
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.evaluation.training import TrainProblem, TrainState, train_epoch, train_step
from prdarts_jax.run import settings
from prdarts_jax.run.loop import Advance


class Feed(NamedTuple):
    """Training and test images of one data set.

    Attributes:
      name: of the data set.
      steps_per_epoch: batches of the training images.
      num_classes: number of classes.
      image_shape: (B, H, W, C) of a batch.
      augmentation: what compiled code does to an image.
      place: see `loop.Plan.place`.
      prepare: compiles; see `loop.Plan.prepare`.
      test_batches: batches of one shape, as `training.test_step` takes them.
    """

    name: str
    steps_per_epoch: int
    num_classes: int
    image_shape: tuple[int, int, int, int]
    augmentation: Augmentation
    place: Callable[[TrainState], TrainState]
    prepare: Callable[[TrainProblem, TrainState], tuple[Advance, jax.stages.Compiled]]
    test_batches: Callable[[], Iterator[dict[str, Any]]]


def open_feed(config: ConfigDict, mesh: Mesh) -> Feed:
    """The data of a valid training config; batches have batch_size / accumulate images, spread over the mesh.

    Raises:
      ValueError, OSError: for data that cannot be used, in one sentence.
    """
    batch_size = config.batch_size // config.accumulate
    opened = _streamed if sources.DATASETS[config.dataset].streamed else _in_memory
    return opened(config, batch_size, mesh)


def _in_memory(config, batch_size, mesh):
    read = {"image_size": config.image_size}
    dataset = sources.load(config.dataset, config.data_dir or None, num_examples=config.num_examples, **read)
    settings.validate_against_data(config, dataset)
    test = sources.load(config.dataset, config.data_dir or None, split="test", **read)
    augmentation = Augmentation(*sources.statistics(dataset), **config.augmentation)

    def prepare(problem, state):
        def epoch(state, images, steps):
            return train_epoch(problem, state, images, augmentation, batch_size, steps)

        images = devices.device_put({"image": dataset.images, "label": dataset.labels}, mesh)
        epoch = jax.jit(devices.shard_map(epoch, mesh), donate_argnums=0)
        compiled = epoch.lower(state, images, jnp.int32(1)).compile()
        return lambda state, _, steps: compiled(state, images, jnp.int32(steps)), compiled

    def test_batches():
        for start in range(0, len(test.labels), batch_size):
            image, label = (array[start : start + batch_size] for array in (test.images, test.labels))
            missing = batch_size - len(label)
            batch = {
                "image": np.pad(image, ((0, missing), (0, 0), (0, 0), (0, 0))),
                "label": np.pad(label, (0, missing), constant_values=-1),
            }
            yield devices.device_put(batch, mesh, devices.SPREAD)

    steps_per_epoch, shape = len(dataset.labels) // batch_size, (batch_size, *dataset.images.shape[1:])
    place = functools.partial(devices.device_put, mesh=mesh)
    return Feed(dataset.name, steps_per_epoch, dataset.num_classes, shape, augmentation, place, prepare, test_batches)


def _streamed(config, batch_size, mesh):
    if not config.image_size or config.num_examples:
        raise ValueError(
            f"config.image_size={config.image_size} must be above 0 and config.num_examples={config.num_examples} must "
            f"be 0 for {config.dataset}, whose images differ in size and are all used"
        )
    source, test = (
        sources.open_split(config.dataset, config.data_dir or None, split=s) for s in ("train", "validation")
    )
    if config.batch_size > len(source):
        raise ValueError(f"config.batch_size={config.batch_size} must be at most {len(source)}, the images there are")
    size = {"image_size": config.image_size, "batch_size": batch_size, "workers": config.workers}
    steps_per_epoch = len(source) // batch_size
    # Images are cropped, mirrored and jittered where they are read.
    augmentation = Augmentation(streaming.MEAN, streaming.STD, pad=0, flip=False)

    shape = (batch_size, config.image_size, config.image_size, 3)

    def from_step(step):
        """The batches of all steps from this one on."""
        first, start = divmod(step, steps_per_epoch)
        for epoch in itertools.count(first):
            yield from streaming.train_batches(
                source,
                **size,
                seed=config.seed,
                epoch=epoch,
                start=start,
                jitter=True,
                share=(jax.process_index(), jax.process_count()),
            )
            start = 0

    def prepare(problem, state):
        def step(state, batch):
            image = augment(augmentation, jax.random.key(0), batch["image"])
            return train_step(problem, state, {"image": image, "label": batch["label"]})

        spread = devices.sharding(mesh, devices.SPREAD) if mesh.size > 1 else None
        batch = {
            "image": jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=spread),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=spread),
        }
        parts = devices.shard_map(step, mesh, (devices.REPLICATED, devices.SPREAD))
        compiled = jax.jit(parts, donate_argnums=0).lower(state, batch).compile()
        batches = None

        def advance(state, done, steps):
            nonlocal batches
            batches = batches or from_step(done)
            found = []
            for batch in itertools.islice(batches, steps):
                state, metrics = compiled(state, devices.device_put_local(batch, mesh))
                found.append(metrics)
            return state, jax.tree.map(lambda *values: sum(values) / steps, *found)

        return advance, compiled

    def test_batches():
        for batch in streaming.test_batches(test, **size):
            yield devices.device_put(batch, mesh, devices.SPREAD)

    place = functools.partial(devices.device_put, mesh=mesh)
    return Feed(config.dataset, steps_per_epoch, source.num_classes, shape, augmentation, place, prepare, test_batches)
