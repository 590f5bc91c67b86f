"""A network as a self-contained file of PyTorch code: a template with the constants of the network."""

import pathlib
import pprint
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from prdarts_jax.nets import torch_weights
from prdarts_jax.nets.discrete import DiscreteNetwork
from prdarts_jax.nets.discrete_201 import DiscreteNetwork201
from prdarts_jax.spaces import genotypes

_TEMPLATES = {
    DiscreteNetwork: pathlib.Path(__file__).with_name("torch_template.py"),
    DiscreteNetwork201: pathlib.Path(__file__).with_name("torch_template_201.py"),
}


def source(
    network: nn.Module,
    image_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
) -> str:
    """Makes the text of a Python file with the network in PyTorch. The file needs only PyTorch and NumPy.

    Its function `load()` reads the arrays of `weights` from an .npz beside the file, with the same name except for the
    ending.

    Args:
      network: a discrete network. The file computes in float32, whatever the dtype of the network is.
      image_size: (height, width) of the images.
      mean, std: the mean and standard deviation of each channel by which images are normalised, for pixels in [0, 1].
      classes: the names of the classes.

    Raises:
      ValueError: `network` is not a discrete network, or the template lacks one of its ops.
    """
    if not isinstance(network, tuple(_TEMPLATES)):
        raise ValueError(f"a {type(network).__name__} has no file of PyTorch code, only a discrete network has")
    text, genotype = _TEMPLATES[type(network)].read_text(), network.genotype
    for op in (op for entries in genotypes.cells(genotype).values() for op, _, _ in entries):
        if f'    "{op}": ' not in text:
            raise ValueError(f"op {op!r} is not among the ops of the file of PyTorch code")
    constants: dict[str, Any] = (
        {"EDGES": genotype.ops}
        if isinstance(network, DiscreteNetwork201)
        else {
            "NORMAL": genotype.normal,
            "NORMAL_CONCAT": genotype.normal_concat,
            "REDUCE": genotype.reduce,
            "REDUCE_CONCAT": genotype.reduce_concat,
            "FORM": network.form,
        }
    )
    constants |= {
        "CHANNELS": network.channels,
        "CELLS": network.cells,
        "CLASSES": tuple(classes),
        "HEIGHT, WIDTH": tuple(image_size),
        "MEAN": tuple(mean),
        "STD": tuple(std),
    }
    for name, value in constants.items():
        before, _, after = re.split(rf"^({name} = [^#\n]*?)(?=\s*#|$)", text, maxsplit=1, flags=re.MULTILINE)
        text = f"{before}{name} = {pprint.pformat(value, width=100)}{after}"
    return text


def weights(network: Any, variables: Mapping[str, Any], image_channels: int) -> dict[str, np.ndarray]:
    """Makes the arrays that the file of `source` reads: those of `torch_weights.to_torch` without the auxiliary head.

    Args:
      network: the network that was given to `source`.
      variables: {'params', 'batch_stats'} of the network.
      image_channels: number of channels of the images.

    Raises:
      ValueError: as `torch_weights.to_torch`.
    """
    if isinstance(network, DiscreteNetwork):
        network = network.clone(auxiliary=False)
    return torch_weights.to_torch(variables, network, image_channels)
