"""What a run measures: a record per epoch in metrics.jsonl, and the numbers of the records in TensorBoard."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from prdarts_jax.run import reporting

Record = Mapping[str, Any]

METRICS = "metrics.jsonl"


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
        reporting.write_bytes(self._path, b"".join(map(reporting.json_bytes, records)))

    def append(self, record: Record) -> None:
        """Adds the record of one epoch; it is on disk when this returns."""
        line = reporting.json_bytes(record)
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


def numbers(record: Record) -> dict[str, float]:
    """The numbers of nested dicts by their path, such as "activation/normal/skip"; other values are left out."""
    flat = flatten_dict(dict(record), sep="/")
    return {name: x for name, x in flat.items() if isinstance(x, int | float) and not isinstance(x, bool)}
