"""Everything a run leaves on disk but checkpoints: metrics, TensorBoard, architectures, pictures.

Every file appears whole or not at all, so a run may be killed at any moment.
"""

import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from prdarts_jax import devices, ops
from prdarts_jax.run import plots
from prdarts_jax.run.plots import Record
from prdarts_jax.spaces import SearchSpace
from prdarts_jax.spaces.genotypes import AnyGenotype, cells

METRICS = "metrics.jsonl"


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically; arrays and array scalars in `value` become lists, numbers."""
    text = json.dumps(value, indent=2, default=operator.methodcaller("tolist")) + "\n"
    _replace(path, lambda file: file.write(text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    _replace(path, lambda file: file.write(content))


def read_records(workdir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, one an epoch, in order; none if there is no such file.

    A last line without its newline was cut by a kill and is left out.

    Raises:
      ValueError: another line is not JSON.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
            if not isinstance(records[-1], dict) or "epoch" not in records[-1]:
                raise ValueError("not the record of an epoch")
        except ValueError as error:
            raise ValueError(
                f"{path} line {number} is damaged ({error}); every line must be one JSON record."
            ) from error
    return records


class RunLog:
    """Appends a record an epoch to metrics.jsonl, and its numbers to TensorBoard.

    Opening it for a run that (re)starts at `epoch` drops the records of that epoch and later
    ones. TensorBoard gets the kept ones again, behind a mark that hides all it had before, since a
    killed writer may have lost events that metrics.jsonl has.

    Append the record of an epoch before saving its checkpoint: then a run killed between the two
    repeats the epoch, and metrics.jsonl has each epoch exactly once.
    """

    def __init__(self, workdir: Path, epoch: int) -> None:
        """Opens the log.

        Args:
          workdir: the run folder, made if missing.
          epoch: the first epoch that will be appended, 0 for a new run.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        kept = [record for record in read_records(workdir) if record["epoch"] < epoch]
        self._path = workdir / METRICS
        _replace(self._path, lambda file: file.write(b"".join(map(_line, kept))))
        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=0, flush_secs=10)
        for record in kept:
            self._add_scalars(record)

    def append(self, record: Record) -> None:
        """Adds the record of one epoch; it is on disk when this returns."""
        line = _line(record)
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._add_scalars(json.loads(line))

    def close(self) -> None:
        """Flushes TensorBoard."""
        self._writer.close()

    def _add_scalars(self, record: Record) -> None:
        for name, value in numbers(record):
            if name != "epoch":
                self._writer.add_scalar(name, value, record["epoch"])


def save_architecture(
    workdir: Path,
    epoch: int,
    logits: Mapping[str, np.ndarray],
    probabilities: Mapping[str, np.ndarray],
) -> None:
    """Writes architecture/epoch_0003.npz: logits_normal, logits_reduce, probability_normal, ...

    Args:
      workdir: the run folder.
      epoch: counted from 0.
      logits: per cell type f32[edges, ops].
      probabilities: activation probabilities, the same shapes.
    """
    arrays: dict[str, Any] = {f"logits_{name}": np.asarray(value) for name, value in logits.items()}
    arrays |= {f"probability_{name}": np.asarray(value) for name, value in probabilities.items()}
    _replace(_architecture(workdir, epoch), lambda file: np.savez(file, **arrays))


def read_logits(workdir: Path, epoch: int) -> dict[str, np.ndarray]:
    """The logits that `save_architecture` has written."""
    with np.load(_architecture(workdir, epoch)) as arrays:
        return {name.removeprefix("logits_"): arrays[name] for name in arrays if name.startswith("logits_")}


def _architecture(workdir, epoch):
    return workdir / "architecture" / f"epoch_{epoch:04d}.npz"


def activation_by_group(space: SearchSpace, probabilities: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean activation probability over the candidate ops of each group, per cell type.

    Args:
      space: tells the ops of the last axis and which are candidates where; only these count.
      probabilities: per cell type f32[edges, ops].

    Returns:
      {"normal": {"skip": ..., "conv": ..., "pool": ..., "noise": ..., "none": ..., "all": ...}, "reduce": ...},
      without the groups that the cell lacks.
    """
    kinds = np.array([ops.group(op) for op in space.ops])
    means = {}
    for cell_type in space.cell_types:
        values = np.asarray(probabilities[cell_type], np.float64)
        candidates = space.candidates(cell_type)
        means[cell_type] = {
            kind: float(values[candidates & (kinds == kind)].mean())
            for kind in ("skip", "conv", "pool", "noise", "none")
            if candidates[:, kinds == kind].any()
        } | {"all": float(values[candidates].mean())}
    return means


def draw_cell(genotype: AnyGenotype, cell_type: str, path: Path) -> None:
    """Writes `plots.cell_figure` as PNG."""
    save_figure(plots.cell_figure(genotype, cell_type), path)


def plot_activation(records: Sequence[Record], path: Path) -> None:
    """Writes `plots.activation_figure` as PNG."""
    save_figure(plots.activation_figure(records), path)


def plot_skip_share(records: Sequence[Record], path: Path) -> None:
    """Writes `plots.skip_share_figure` as PNG."""
    save_figure(plots.skip_share_figure(records), path)


def plot_diagnostics(path: Path, *runs: Sequence[Record]) -> None:
    """Writes `plots.diagnostics_figure` as PNG."""
    save_figure(plots.diagnostics_figure(*runs), path)


def plot_curves(records: Sequence[Record], path: Path) -> None:
    """Writes `plots.curves_figure` as PNG."""
    save_figure(plots.curves_figure(records), path)


def write_pictures(workdir: Path, records: Sequence[Record], genotype: AnyGenotype) -> None:
    """Writes cell_normal, cell_reduce where there is one, activation, skip_share and curves, each a .png.

    Where the records have other diagnostics than the share of skip connections, also diagnostics.png.

    Args:
      workdir: the run folder.
      records: at least one, from `read_records`.
      genotype: the cells to draw.
    """
    for cell_type in cells(genotype):
        draw_cell(genotype, cell_type, workdir / f"cell_{cell_type}.png")
    plot_activation(records, workdir / "activation.png")
    plot_skip_share(records, workdir / "skip_share.png")
    plot_curves(records, workdir / "curves.png")
    diagnostics = {field for fields, _, _ in plots.DIAGNOSTICS for field in fields} - {"skip_share"}
    if any(diagnostics & record.keys() for record in records):
        plot_diagnostics(workdir / "diagnostics.png", records)


def write_training_pictures(workdir: Path, records: Sequence[Record], result: Mapping[str, Any]) -> None:
    """Writes the pictures of a training: curves.png, unless there are no records, and confusion.png.

    Args:
      workdir: the run folder.
      records: from `read_records`.
      result: of the test, from `training.summarize`.
    """
    if records:
        save_figure(plots.curves_figure(records, held_out="test"), workdir / "curves.png")
    save_figure(plots.confusion_figure(result["confusion"]), workdir / "confusion.png")


def plot_comparison(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Writes `plots.comparison_figure` as PNG."""
    save_figure(plots.comparison_figure(rows), path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    _replace(path, lambda file: figure.savefig(file, format="png"))


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    if not devices.is_main():  # of several processes one writes
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _line(record: Record) -> bytes:
    return json.dumps(record, default=operator.methodcaller("tolist")).encode() + b"\n"


def numbers(record: Record, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dicts by name, as "activation/normal/skip"; all else is left out."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, value
