"""Everything that a run writes to disk except checkpoints: metrics, TensorBoard, architectures, pictures.

Every file appears whole or not at all, so a run may be killed at any moment.
"""

import json
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict

from prdarts_jax import devices
from prdarts_jax.refusals import cut
from prdarts_jax.spaces.genotypes import AnyGenotype, cells

if TYPE_CHECKING:  # imported only by what draws, since matplotlib and tensorboardX take long
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

METRICS = "metrics.jsonl"


def say(text: str) -> None:
    """Prints a text for the user of a run; of several processes only the first prints."""
    if devices.is_main():
        print(text, flush=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically; see `json_bytes`."""
    write_bytes(path, json_bytes(value, indent=2))


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """A value as JSON, with a newline at the end; arrays become lists and array scalars numbers.

    Raises:
      ValueError: a number is not finite, and JSON cannot represent it.
    """
    text = json.dumps(value, indent=indent, default=operator.methodcaller("tolist"), allow_nan=False)
    return text.encode() + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: the file holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged (not a JSON object)")
    return value


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    _replace(path, lambda file: file.write(content))


def read_records(workdir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, one per epoch, in order; none if there is no such file.

    A last line without a newline was cut off by a kill, and is left out.

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
        except (ValueError, RecursionError) as error:
            wrong = f"{path} line {number} is damaged ({error})"
            raise ValueError(f"{wrong}; every line must be one JSON record.") from error
    return records


class RunLog:
    """Appends a record per epoch to metrics.jsonl, and its numbers to TensorBoard.

    Opening it replaces metrics.jsonl by the records of the epochs so far. TensorBoard gets these again, after a mark
    that hides all earlier events, since a killed writer may have lost some.

    Append the record of an epoch before saving its checkpoint: a run that is killed between the two then repeats the
    epoch, and metrics.jsonl has each epoch exactly once.
    """

    def __init__(self, workdir: Path, records: Sequence[Record]) -> None:
        # Not SummaryWriter: on a full disk its thread ends, and its callers wait for the thread forever.
        from tensorboardX.event_file_writer import EventsWriter

        folder = workdir / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = workdir / METRICS
        self.write(records)
        self._writer = EventsWriter(str(folder / "events"))
        self._add_event(0, session_log={"status": "START"})
        for record in records:
            self._add_scalars(record)
        self._writer.flush()

    def write(self, records: Sequence[Record]) -> None:
        """Replaces metrics.jsonl by these records."""
        write_bytes(self._path, b"".join(map(json_bytes, records)))

    def append(self, record: Record) -> None:
        """Adds the record of one epoch; it is on disk when this returns."""
        line = json_bytes(record)
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._add_scalars(json.loads(line))
        self._writer.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self._writer.close()

    def _add_scalars(self, record: Record) -> None:
        from tensorboardX import summary

        for name, value in numbers(record).items():
            if name != "epoch":
                self._add_event(record["epoch"], summary=summary.scalar(name, value))

    def _add_event(self, epoch: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=epoch, **content))


def save_architecture(
    workdir: Path,
    epoch: int,
    logits: Mapping[str, np.ndarray],
    probabilities: Mapping[str, np.ndarray],
) -> None:
    """Writes architecture/epoch_0003.npz: logits_normal, logits_reduce, probability_normal, ..., each f32[edges, ops].

    Epochs are counted from 0. A probability is that of the op being active.
    """
    arrays: dict[str, Any] = {f"logits_{name}": np.asarray(value) for name, value in logits.items()}
    arrays |= {f"probability_{name}": np.asarray(value) for name, value in probabilities.items()}
    _replace(_architecture(workdir, epoch), lambda file: np.savez(file, **arrays))


def read_logits(workdir: Path, epoch: int) -> dict[str, np.ndarray]:
    """The logits that `save_architecture` has written, {cell type: f32[edges, ops]}."""
    return _read_architecture(workdir, epoch, "logits_")


def read_probabilities(workdir: Path, epochs: int) -> dict[str, np.ndarray]:
    """The probabilities that `save_architecture` has written in these epochs, {cell type: f32[epochs, edges, ops]}."""
    found: dict[str, list[np.ndarray]] = {}
    for epoch in range(epochs):
        for cell_type, array in _read_architecture(workdir, epoch, "probability_").items():
            if cell_type in found and array.shape != found[cell_type][0].shape:
                raise ValueError(
                    f"{_architecture(workdir, epoch)} is damaged: its arrays have other shapes than before"
                )
            found.setdefault(cell_type, []).append(array)
    return {cell_type: np.stack(of_type) for cell_type, of_type in found.items()}


def _read_architecture(workdir, epoch, prefix):
    """The arrays of a file whose names begin with `prefix`, by name without the prefix."""
    path = _architecture(workdir, epoch)
    try:
        with np.load(path) as arrays:
            return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the reader raises for a damaged file
        raise ValueError(f"{path} is damaged ({type(error).__name__}): use another --workdir") from error


def _architecture(workdir, epoch):
    return workdir / "architecture" / f"epoch_{epoch:04d}.npz"


def write_cells(path: Path, genotype: AnyGenotype) -> list[Path]:
    """Writes a picture of each cell of a genotype: for the path cell.png, cell_normal.png and, unless there is only one
    cell type, cell_reduce.png.

    Returns:
      The paths of the pictures.

    Raises:
      ValueError: matplotlib writes no format with the path's suffix.
    """
    from prdarts_jax.run import cell_plot

    written = []
    for cell_type in cells(genotype):
        figure = cell_plot.cell_figure(genotype, cell_type)
        formats = sorted(figure.canvas.get_supported_filetypes().keys() - {"pgf"})  # which needs LaTeX
        if path.suffix[1:] not in formats:
            raise ValueError(f"{cut(str(path), 300)} must end in one of .{', .'.join(formats)}")
        written.append(path.with_stem(f"{path.stem}_{cell_type}"))
        save_figure(figure, written[-1])
    return written


def write_pictures(workdir: Path, records: Sequence[Record], genotype: AnyGenotype) -> None:
    """Writes the pictures of a search with at least one record: those of `write_cells` for cell.png, activation.png,
    skip_share.png, curves.png and diagnostics.png."""
    from prdarts_jax.run import plots

    write_cells(workdir / "cell.png", genotype)
    figures = {"activation": plots.activation_figure(records)}
    figures["skip_share"] = plots.skip_share_figure(records)
    figures["curves"] = plots.curves_figure(records)
    figures["diagnostics"] = plots.diagnostics_figure(records)
    for name, figure in figures.items():
        save_figure(figure, workdir / f"{name}.png")


def write_training_pictures(workdir: Path, records: Sequence[Record], result: Mapping[str, Any]) -> None:
    """Writes the pictures of a training: curves.png, unless there are no records, and confusion.png; `result` is that
    of `training.summarize`."""
    from prdarts_jax.run import plots

    if records:
        save_figure(plots.curves_figure(records, held_out="test"), workdir / "curves.png")
    save_figure(plots.confusion_figure(result["confusion"]), workdir / "confusion.png")


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure atomically, in the format of the path's suffix."""
    _replace(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    if not devices.is_main():  # of several processes only the first writes
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def numbers(record: Record) -> dict[str, float]:
    """The numbers of nested dicts by their path, such as "activation/normal/skip"; other values are left out."""
    flat = flatten_dict(dict(record), sep="/")
    return {name: x for name, x in flat.items() if isinstance(x, int | float) and not isinstance(x, bool)}
