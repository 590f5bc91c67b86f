"""Classification of image files with a trained network."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from prdarts_jax import refusals
from prdarts_jax.data import pictures, streaming
from prdarts_jax.run.finished import Trained

_BATCH = 32


class Prediction(NamedTuple):
    """The prediction for one file.

    Attributes:
      file: the path of the file.
      name: of the likeliest class; '' if the file cannot be read.
      probability: of that class; 0 if the file cannot be read.
      refusal: why the file cannot be read; '' if it can.
    """

    file: str
    name: str = ""
    probability: float = 0.0
    refusal: str = ""


def predict(trained: Trained, files: Iterable[str]) -> Iterator[Prediction]:
    """Classifies image files, and yields a prediction for each in the order of `files`.

    The images may have any size; they are cropped or resized like the test images of the training.
    """
    height, width, channels = trained.image_shape

    def read(file: str) -> np.ndarray | str:
        try:
            pixels = pictures.read(refusals.file("image", file, most=2**30), channels)
            return streaming.centre(pixels, height) if trained.cropped else pictures.resized(pixels, height, width)
        except (ValueError, OSError) as error:
            return refusals.cut(str(error))

    remaining = iter(files)
    while batch := list(itertools.islice(remaining, _BATCH)):
        found = [read(file) for file in batch]
        images = np.zeros((_BATCH, *trained.image_shape), np.uint8)  # so that one compilation is enough
        for place, image in enumerate(found):
            images[place] = 0 if isinstance(image, str) else image
        for file, image, logits in zip(batch, found, trained.classify(images), strict=False):
            if isinstance(image, str):
                yield Prediction(file, refusal=image)
            else:
                best = int(np.argmax(logits))
                yield Prediction(file, trained.classes[best], float(softmax(logits)[best]))
