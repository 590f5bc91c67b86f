"""Fingerprints of code of the user's own, by which a resumed run is checked; see `checkpoints.check_config`."""

import ast
import inspect
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from prdarts_jax.refusals import shown
from prdarts_jax.spaces import own


def field(op_names: Iterable[str], **named: str) -> dict[str, dict[str, str]]:
    """The field of config.json with a fingerprint of each piece of code of the user's own; no field if there is none.

    Args:
      op_names: of the ops that the run uses.
      **named: config fields whose values may name a file or a module.
    """
    texts = {f"the file of config.{field}={shown(name)}": own.source_of(name) for field, name in named.items()}
    texts |= {f"the code of the op {name}": own.source_of_op(name) for name in op_names}
    found = {what: _fingerprint_of_code(text) for what, text in texts.items() if text}
    return {"own_code": found} if found else {}


def of_function(function: Callable) -> str:
    """A fingerprint of the file that a function of the user's own is in; '' if it is of this package or has no file."""
    if (function.__module__ or "").startswith("prdarts_jax."):
        return ""
    try:
        return _fingerprint_of_code(Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_bytes())
    except (OSError, TypeError):
        return ""


def _fingerprint_of_code(text: bytes) -> str:
    """A text that changes if code of Python does, comments and layout aside, or if any other text does."""
    try:
        text = ast.dump(ast.parse(text)).encode()
    except (SyntaxError, ValueError, RecursionError):
        pass
    return f"{zlib.crc32(text):08x}"
