"""Batches of a data set that does not fit into memory, such as ImageNet, read and augmented by worker processes.

The batches of an epoch depend only on the seed, not on the number of workers nor on the batch at which reading starts.
So a run that is resumed within an epoch sees the same bytes as one that never stopped. Pixels are uint8; the device
normalises them.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from prdarts_jax.data.source import Source

# The mean and standard deviation of each channel of ImageNet's training images, for pixels in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Batch = dict[str, np.ndarray]


def train_batches(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    seed: int | tuple[int, ...],
    step: int,
    workers: int,
    flip: bool = True,
    jitter: bool = True,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Training batches of all epochs. An epoch has N // B batches in random order; the last N % B images are left out.

    Images are cropped (`random_crop`), with `flip` mirrored with probability 1/2 and with `jitter` changed in colour
    (`jitter_colours`), as DARTS does for ImageNet. Order and augmentation depend only on `seed`, the epoch and the
    position in it.

    Args:
      source: N images.
      image_size: side S in pixels.
      batch_size: B, at most N.
      seed: at least 0; a tuple of integers is combined into one seed.
      step: the number of the first batch, counted over all epochs from 0.
      workers: number of processes that make the batches; with 0 this process makes them. They start with the first
        batch, and end when the generator ends, is closed or is deleted. Each may hold four batches in shared memory,
        /dev/shm on Linux.
      flip, jitter: whether images are mirrored and changed in colour.
      share: (i, n): give only part i, from 0 to n - 1, of n equal parts of each batch.

    Returns:
      An endless generator of {'image': u8[B / n, S, S, 3], 'label': i32[B / n]}. It raises a ValueError if a file of
      the data set is damaged, and an OSError if a worker has died.
    """
    import grain

    order_seed, image_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    augment = functools.partial(_train_example, image_size=image_size, flip=flip, jitter=jitter)
    images = grain.MapDataset.source(source).shuffle(order_seed).random_map(augment, seed=image_seed)
    part, parts = share
    batches = images.batch(batch_size // parts, drop_remainder=True)
    epochs = batches[: len(source) // batch_size * parts].repeat()  # Grain derives other seeds for each epoch
    return _run(epochs[step * parts + part :: parts], workers)


def test_batches(source: Source, *, image_size: int, batch_size: int, workers: int) -> Generator[Batch, None, None]:
    """All images in order, in batches of the same shape.

    The shorter side is resized to 8/7 of `image_size`, for example 256 for 224, and the centre is cut out. The
    arguments are those of `train_batches`.

    Returns:
      A generator as `train_batches`, of ceil(N / B) batches. The last one is padded with black images of the label -1,
      which must not be counted.
    """
    import grain

    images = grain.MapDataset.source(source).map(functools.partial(_test_example, image_size=image_size))
    fill = functools.partial(_stack_and_fill, batch_size=batch_size)
    return _run(images.batch(batch_size, batch_fn=fill), workers)


def random_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a box (left, top, right, bottom), in pixels, as torchvision's RandomResizedCrop does.

    The box covers 8 to 100 % of the image, has an aspect ratio of 3/4 to 4/3 and may be anywhere. If ten draws do not
    fit into the image, it is the largest box in the centre whose aspect ratio is allowed.
    """
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers([width - w + 1, height - h + 1]).tolist()
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def jitter_colours(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes brightness, contrast, saturation and hue of an RGB image, as torchvision's ColorJitter on PIL images.

    `rng` draws three factors in [0.6, 1.4), a rotation of the hue in [-0.2, 0.2), and then the order of the four
    changes.
    """
    brightness, contrast, saturation = rng.uniform(0.6, 1.4, 3)
    turn = rng.uniform(-0.2, 0.2)
    changes: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: ImageEnhance.Brightness(image).enhance(brightness),
        lambda image: ImageEnhance.Contrast(image).enhance(contrast),
        lambda image: ImageEnhance.Color(image).enhance(saturation),
        lambda image: _turn_hue(image, turn),
    ]
    for change in rng.permutation(4):
        image = changes[change](image)
    return image


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Rotates the hue of an RGB image; `turn` is a fraction of the full circle."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + int(turn * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _train_example(
    example: dict[str, Any], rng: np.random.Generator, *, image_size: int, flip: bool, jitter: bool
) -> dict[str, Any]:
    image = _as_rgb(example["image"])
    image = image.crop(random_crop(*image.size, rng)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5 and flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if jitter:
        image = jitter_colours(image, rng)
    return {"image": np.array(image), "label": np.int32(example["label"])}


def centre(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Resizes an image, u8[H, W] or u8[H, W, C], and cuts out its centre as `test_batches` does: u8[S, S, 3]."""
    image = _as_rgb(pixels)
    shorter = round(image_size * 256 / 224)
    width, height = (side * shorter // min(image.size) for side in image.size)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized.crop((left, top, left + image_size, top + image_size)))


def _test_example(example: dict[str, Any], *, image_size: int) -> dict[str, Any]:
    return {"image": centre(example["image"], image_size), "label": np.int32(example["label"])}


def _as_rgb(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3)))


def _stack_and_fill(examples: Sequence[dict[str, Any]], *, batch_size: int) -> Batch:
    blank = {"image": np.zeros_like(examples[0]["image"]), "label": np.int32(-1)}
    filled = [*examples, *[blank] * (batch_size - len(examples))]
    return {name: np.stack([example[name] for example in filled]) for name in blank}


def _run(batches: Any, workers: int) -> Generator[Batch, None, None]:
    """Iterates over a grain.MapDataset of batches; the workers end when the generator does."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # without this, outside of an absl app, Grain cannot read its own flags
    # Grain would read 500 batches ahead per iterator. With this, a worker has one batch ready and makes the next.
    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    processes = grain.MultiprocessingOptions(num_workers=workers)
    with contextlib.closing(iter(batches.to_iter_dataset(reading).mp_prefetch(processes, _start_worker))) as iterator:
        try:
            yield from iterator
        except RuntimeError as error:
            raise OSError(f"the processes that read the images broke down: {error}") from error


def _start_worker(index: int, count: int) -> None:
    """Ignores Ctrl-C and SIGTERM, which may reach the whole group of processes; ends when the main process ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
