"""A finished run: the files with which a trained network can be used, and loading the folder of a run.

Beside the checkpoints, a training's folder has classifier.json (the images' shape, how they are normalised, the names
of the classes), classifier.stablehlo, which needs only JAX, and classifier_torch.py with classifier_torch.npz, which
need only PyTorch.
"""

import dataclasses
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from prdarts_jax import refusals
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, torch_module, torch_weights
from prdarts_jax.run import checkpoints, problems, reporting, settings, validation
from prdarts_jax.spaces import genotypes

_CLASSIFIER = "classifier.json"
_LARGEST = 2**14  # side of an image in pixels
_OF_NETWORK = ("form", "channels", "cells", "dtype", "auxiliary_weight")  # in a config

_classify = jax.jit(training.classify, static_argnums=(0, 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """A finished search of one seed.

    Attributes:
      config: the content of config.json.
      genotype: the cell that was found; in `Trained` the one that was trained.
    """

    config: dict[str, Any]
    genotype: genotypes.AnyGenotype


@dataclasses.dataclass(frozen=True, eq=False)
class Trained(Finished):
    """A finished training.

    Attributes:
      network: the network that was trained.
      variables: {'params', 'batch_stats'} that were tested at the end: the running means if config.ema is above 0.
      augmentation: of the training; its `mean` and `std` normalise every image.
      image_shape: (height, width, channels).
      cropped: True if the test used the centre of each image (see `streaming.test_batches`), False if the whole image.
      classes: the name of each class; if classes have no names, their numbers '0', '1', ...
      result: the content of result.json.
    """

    network: discrete.Network
    variables: dict[str, Any]
    augmentation: Augmentation
    image_shape: tuple[int, int, int]
    cropped: bool
    classes: tuple[str, ...]
    result: dict[str, Any]

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Logits f32[B, classes] of images u8[B, *image_shape], which it normalises; compiled once for each B.

        Raises:
          ValueError: the images are of another dtype or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images are {images.dtype}{refusals.shown(images.shape)}, but must be uint8(B, "
                f"{', '.join(map(str, self.image_shape))})"
            )
        return np.asarray(_classify(self.network, self.augmentation, self.variables, images))

    def to_torch(self) -> dict[str, np.ndarray]:
        """The weights in PyTorch's names and layouts, the auxiliary head's among them; see `torch_weights.to_torch`."""
        return torch_weights.to_torch(self.variables, self.network, self.image_shape[-1])


def write(
    workdir: Path,
    network: nn.Module,
    variables: dict[str, Any],
    augmentation: Augmentation,
    image_shape: tuple[int, int, int],
    cropped: bool,
    classes: Sequence[str],
) -> None:
    """Writes classifier.json, classifier.stablehlo and, if the network can be written for PyTorch, classifier_torch.py
    and classifier_torch.npz; for the arguments see `Trained`."""
    described = {"image_shape": image_shape, "cropped": cropped, "classes": classes}
    described["augmentation"] = dataclasses.asdict(augmentation)
    reporting.write_json(workdir / _CLASSIFIER, described)
    exported = training.export_classifier(network, augmentation, variables, image_shape)
    reporting.write_bytes(workdir / "classifier.stablehlo", exported)
    try:
        text = torch_module.source(network, image_shape[:2], augmentation.mean, augmentation.std, classes)
        arrays: Any = torch_module.weights(network, variables, image_shape[-1])
    except ValueError as error:
        reporting.say(f"no classifier_torch.py: {error}")
        return
    file = io.BytesIO()
    np.savez(file, **arrays)
    reporting.write_bytes(workdir / "classifier_torch.npz", file.getvalue())
    reporting.write_bytes(workdir / "classifier_torch.py", text.encode())


def load(workdir: str | os.PathLike[str]) -> Finished:
    """Loads the folder of a finished run; the data that the run used are not needed.

    Args:
      workdir: folder of a training, or of a search of one seed.

    Returns:
      `Trained` for a training, `Finished` for a search.

    Raises:
      FileNotFoundError: the folder is not that of a run, the run has not ended, or it has no checkpoint.
      ValueError: the folder has several searches or trainings or another job, or a file or the newest checkpoint is
        damaged.
    """
    folder = refusals.path("workdir", workdir)
    config = checkpoints.read_config(folder)
    if config is None:
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    if config.get("job") not in ("search", "train"):
        raise ValueError(f"{folder} must be the folder of a search or a training, but its job is {config.get('job')!r}")
    if (folder / "results.json").exists():
        raise ValueError(f"{folder} has trainings of many cells, whose results.json is all that is kept of them")
    if not (folder / "genotype.json").exists():
        seeds = sorted(path.parent.name for path in folder.glob("seed_*/genotype.json"))
        if seeds:
            raise ValueError(
                f"{folder} has several searches; their cells are in the genotype.json of {', '.join(seeds)}"
            )
        raise FileNotFoundError(f"the run in {folder} has not ended: the command that began it resumes it")
    genotype: Any = genotypes.load(folder / "genotype.json")
    if config["job"] == "search":
        return Finished(config, genotype)
    return _trained(folder, config, genotype)


def _trained(folder: Path, config: dict[str, Any], genotype: Any) -> Trained:
    result = _read(folder / "result.json")
    image_shape, cropped, classes, augmentation = _described(folder / _CLASSIFIER)
    made = settings.training()
    try:
        made.update({name: config[name] for name in _OF_NETWORK})
        validation.validate(made)
        network = problems.make_network(made, genotype, len(classes))
        shapes = discrete.shapes_of(network, (1, *image_shape))
    except (KeyError, TypeError, ValueError) as error:
        reason = refusals.cut(f"{type(error).__name__}: {error}", 200)
        raise ValueError(f"{folder}/config.json or genotype.json is damaged ({reason})") from error
    template = {name: shapes[name] for name in ("params", "batch_stats")}
    variables = checkpoints.read_part(folder / "checkpoints", ("0.averaged.", "0."), template)
    return Trained(config, genotype, network, variables, augmentation, image_shape, cropped, classes, result)


def _described(path: Path) -> tuple[tuple[int, int, int], bool, tuple[str, ...], Augmentation]:
    """The content of classifier.json: the shape of an image, whether it is cropped, the names of the classes, the
    augmentation."""
    values = _read(path)
    try:
        height, width, channels = shape = tuple(values["image_shape"])
        cropped, classes = values["cropped"] is True, tuple(values["classes"])
        fields: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in values["augmentation"].items()}
        augmentation = Augmentation(**fields)
        mean, std = augmentation.mean, augmentation.std
        fits = len(mean) == len(std) == channels and all(map(math.isfinite, mean + std)) and min(std) > 0
        fits &= all(type(side) is int and 0 < side <= _LARGEST for side in shape)
        fits &= bool(classes) and all(isinstance(name, str) for name in classes)
    except (KeyError, TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise ValueError(f"{path} is damaged (its shape, classes and augmentation are not those of images)")
    return (height, width, channels), cropped, classes, augmentation


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the training in {path.parent} has not ended: the command that began it resumes it")
    return reporting.read_json(path)
