"""Logits and probabilities of a search, by epoch: the folder `architecture` of a run."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prdarts_jax.run import reporting


def save(workdir: Path, epoch: int, logits: Mapping[str, np.ndarray], probabilities: Mapping[str, np.ndarray]) -> None:
    """Writes architecture/epoch_0003.npz: logits_normal, logits_reduce, probability_normal, ..., each f32[edges, ops].

    Epochs are counted from 0. A probability is that of the op being active.
    """
    arrays: dict[str, Any] = {f"logits_{name}": np.asarray(value) for name, value in logits.items()}
    arrays |= {f"probability_{name}": np.asarray(value) for name, value in probabilities.items()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    reporting.write_bytes(_path(workdir, epoch), content.getvalue())


def read_logits(workdir: Path, epoch: int) -> dict[str, np.ndarray]:
    """The logits that `save` has written, {cell type: f32[edges, ops]}."""
    return _read(workdir, epoch, "logits_")


def read_probabilities(workdir: Path, epochs: int) -> dict[str, np.ndarray]:
    """The probabilities that `save` has written in these epochs, {cell type: f32[epochs, edges, ops]}."""
    found: dict[str, list[np.ndarray]] = {}
    for epoch in range(epochs):
        for cell_type, array in _read(workdir, epoch, "probability_").items():
            if cell_type in found and array.shape != found[cell_type][0].shape:
                raise ValueError(f"{_path(workdir, epoch)} is damaged: its arrays have other shapes than before")
            found.setdefault(cell_type, []).append(array)
    return {cell_type: np.stack(of_type) for cell_type, of_type in found.items()}


def _read(workdir, epoch, prefix):
    """The arrays of a file whose names begin with `prefix`, by name without the prefix."""
    path = _path(workdir, epoch)
    try:
        with np.load(path) as arrays:
            return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the reader raises for a damaged file
        raise ValueError(f"{path} is damaged ({type(error).__name__}): use another --workdir") from error


def _path(workdir, epoch):
    return workdir / "architecture" / f"epoch_{epoch:04d}.npz"
