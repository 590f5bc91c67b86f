"""What a run prints and writes. Every file appears whole or not at all, so a run may be killed at any moment.

Of several processes only the first prints and writes.
"""

import io
import json
import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prdarts_jax import devices

if TYPE_CHECKING:  # imported only by what draws, since matplotlib takes long
    from matplotlib.figure import Figure


def say(text: str) -> None:
    """Prints a text for the user of a run."""
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
    if not devices.is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure atomically, in the format of the path's suffix."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    write_bytes(path, content.getvalue())
