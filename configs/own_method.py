"""A method of your own on the digits: a relaxation, a term, and the config that names the method.

It takes one minute:

    python -m prdarts_jax.main --config=configs/own_method.py --workdir=runs/own_method
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax.run import settings


@dataclasses.dataclass(frozen=True)
class Annealed(pdx.relaxations.Softmax):
    """A softmax that becomes ten times as sharp in the course of the search."""

    def activation(self, space, logits, progress):
        """The softmax of the scaled logits, which are also the op weights."""
        return {t: jax.nn.softmax((1 + 9 * progress) * logits[t]) for t in space.cell_types}


def entropy(view, op_weights, progress):
    """A term: the mean entropy of an edge's op weights, in nats, times 0.01."""
    mean = sum(jax.scipy.special.entr(jnp.maximum(w, 1e-9)).sum(1).mean() for w in op_weights.values()) / len(
        op_weights
    )
    return 0.01 * mean, {"l_entropy": mean}


def annealed_darts() -> pdx.Method:
    """DARTS with this relaxation and this term."""
    return pdx.Method(relaxation=Annealed(), terms=(entropy,))


def get_config() -> ConfigDict:
    """DARTS's settings, scaled down to the digits."""
    config = settings.search("darts")
    config.method = f"{Path(__file__).resolve()}:annealed_darts"
    config.dataset = "digits"
    config.epochs = 10
    config.augmentation.pad = 1
    config.augmentation.flip = False
    config.channels = 4
    config.cells = 3
    config.logits.learning_rate = 0.01
    return config
