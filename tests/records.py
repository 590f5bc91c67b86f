"""Records of epochs, as a search writes them to metrics.jsonl."""

import numpy as np

from prdarts_jax import spaces


def record(epoch):
    """What main.py appends after an epoch, falling probabilities and all."""
    activation = {"skip": 0.97**epoch, "conv": 0.99**epoch, "pool": 0.98**epoch, "none": 0.9**epoch}
    activation["all"] = sum(activation.values()) / 4
    return {
        "epoch": epoch,
        "step": 11 * (epoch + 1),
        "train_loss": 2.3 * 0.97**epoch,
        "train_accuracy": 1 - 0.9 * 0.97**epoch,
        "val_loss": 2.3 * 0.98**epoch,
        "val_accuracy": 1 - 0.9 * 0.98**epoch,
        "activation": {"normal": activation, "reduce": activation},
        "skip_share": {"normal": epoch % 5 / 8, "reduce": 0.125},
        "genotype": {"normal": [["skip_connect", 0]], "normal_concat": [2, 3, 4, 5]},
    }


def diagnosed(epoch, cell_types=spaces.CELL_TYPES):
    """A record with all diagnostics, the eigenvalue every fifth epoch."""
    plain = record(epoch)
    few = {name: {t: plain[name][t] for t in cell_types} for name in ("activation", "skip_share")}
    new = {
        "depth": dict.fromkeys(cell_types, 1 + epoch % 4),
        "entropy": dict.fromkeys(cell_types, 2 * 0.97**epoch),
        "alignment_val": np.sin(epoch / 9),
        "alignment_train": 0.5 * 0.98**epoch,
    }
    return plain | few | new | ({"eigenvalue": 0.01 * epoch} if epoch % 5 == 0 else {})


def one_cell_type(epoch):
    return diagnosed(epoch, ["normal"])
