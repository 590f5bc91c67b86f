"""The text of error messages: one sentence with the value, shortened, and the names that are similar to a wrong one."""

import difflib
import os
import pathlib
import re
import reprlib
from collections.abc import Collection
from typing import Any

_SENTENCE = 800  # characters: some sentences have two paths and a command
_VALUE = 200
_LISTED = 20  # names


class _Short(reprlib.Repr):
    """`repr` of the first few parts of a value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = 160
        self.maxlist = self.maxtuple = 12

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print an int of thousands of digits.
        return repr(x) if abs(x) < 10**40 else f"an integer of {x.bit_length()} bits"


_short = _Short()


def shown(value: Any) -> str:
    """`repr` of any value, in one line and at most 200 characters.

    >>> shown([10**5000] * 3), len(shown("x" * 1000))
    ('[an integer of 16610 bits, an integer of 16610 bits, an integer of 16610 bits]', 160)
    """
    return cut(_short.repr(value), _VALUE)


def cut(text: str, most: int = _SENTENCE) -> str:
    """A text in one line and at most `most` characters: the middle of long words is left out first, then that of the
    text."""
    text = " ".join(text.splitlines())
    if len(text) > most:
        text = re.sub(r"(\S{40})\S{40,}(\S{20})", r"\1...\2", text)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[5 - most // 2 :]}"


def listed(name: Any, names: Collection[str], most: int = _LISTED) -> str:
    """The first `most` of the known names, and those of all that are similar to the given one.

    >>> listed("epoch", ["seed", "epochs", "batch_size"], most=2)
    "seed, epochs and 1 more; did you mean 'epochs'?"
    """
    first, rest = ", ".join(list(names)[:most]), len(names) - most
    return first + (f" and {rest} more" if rest > 0 else "") + near(name, names)


def near(name: Any, names: Collection[str]) -> str:
    """'; did you mean ...?' with the known names that are similar to the given one, or ''."""
    of_small = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name[:_VALUE].lower(), of_small) if isinstance(name, str) else []
    return f"; did you mean {' or '.join(repr(of_small[small]) for small in found)}?" if found else ""


def path(what: str, value: Any) -> pathlib.Path:
    """The path that a text names, with `~` expanded; the file need not exist.

    Raises:
      ValueError: no file can have this path; `what` says in the message whose path it is.
    """
    wrong = f"{what} {shown(value)} must be the path of a file or folder"
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(wrong)
    try:
        found = pathlib.Path(value).expanduser()
        found.exists()
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # an unknown user, a name that is too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{wrong}: {cut(str(reason), _VALUE)}") from None
    if "\0" in str(found):  # `exists` says only that there is no such file
        raise ValueError(wrong)
    return found


def file(what: str, value: Any, most: int) -> pathlib.Path:
    """The path of an existing file of at most `most` bytes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is larger, or no file can have this path; for `what` see `path`.
    """
    found = path(what, value)
    if not found.is_file():
        raise FileNotFoundError(f"{what} {cut(str(found), _SENTENCE // 2)} does not exist or is not a file")
    if (size := found.stat().st_size) > most:
        raise ValueError(f"{what} {cut(str(found), _SENTENCE // 2)} has {size:,} bytes, but may have {most:,} at most")
    return found
