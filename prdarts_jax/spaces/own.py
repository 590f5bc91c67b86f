"""Code of the user's own: what a config names as FILE.py:FUNCTION or MODULE:FUNCTION, its text, and where it fails."""

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
import traceback
from pathlib import Path
from typing import Any

from prdarts_jax import ops, refusals
from prdarts_jax.refusals import cut, path, shown

_STDLIB = sysconfig.get_path("stdlib")


def object_of(field: str, name: str) -> Any:
    """Imports what 'module:name' or 'path/to/file.py:name' names; `field` is its name in messages.

    A file is run once per process, and again if its text has changed.

    Raises:
      ValueError: there is no such module, file or name.
    """
    place, _, attribute = name.rpartition(":")
    try:
        module = _module_of(place)
        if not hasattr(module, attribute):
            near = refusals.near(attribute, [of for of in vars(module) if not of.startswith("_")])
            raise AttributeError(f"{place} has no {attribute}{near}")
        return getattr(module, attribute)
    except Exception as error:  # running the module may raise anything
        reason = cut(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"{field}={shown(name)} cannot be imported as MODULE:FUNCTION or FILE.py:FUNCTION: {reason}"
        ) from error


def source_of(name: str) -> bytes | None:
    """The text that decides what a method or a space of the user's own does: that of its file or module, or in
    `__main__`, for instance a notebook, that of the function alone. None for a name without ':' that is no TOML file,
    and if the text cannot be found."""
    place, _, attribute = name.rpartition(":")
    if name.endswith(".toml") or place.endswith(".py"):
        return path("file", place or name).read_bytes()
    try:
        module = _module_of(place) if place else None
        return module and inspect.getsource(getattr(module, attribute) if place == "__main__" else module).encode()
    except (OSError, TypeError):
        return None


def source_of_op(name: str) -> bytes | None:
    """The text of the function that is registered as an op. None for the ops of this package, and if the text cannot be
    found."""
    build: Any = ops.find(name).build
    function = getattr(build, "func", build)  # of a functools.partial
    if (function.__module__ or "").startswith("prdarts_jax."):
        return None
    try:
        file = Path(inspect.getsourcefile(function) or "")
        body = ast.parse(file.read_bytes()).body if file.is_file() else []
        named = [node for node in body if getattr(node, "name", "") == function.__name__]
        return (ast.unparse(named[-1]) if named else textwrap.dedent(inspect.getsource(function))).encode()
    except (OSError, TypeError, SyntaxError):
        return None


def place_of(error: BaseException) -> str | None:
    """FILE:LINE of the user's own code in which an error was raised; None if it passed through no such code."""
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame for frame in frames if _is_of_the_user(Path(frame.filename))]
    return f"{found[-1].filename}:{found[-1].lineno}" if found else None


def _is_of_the_user(file):
    """Whether the code in a file is neither of this package nor of Python and its libraries."""
    outside = not any(file.is_relative_to(folder) for folder in (Path(__file__).parents[1], _STDLIB))
    return outside and not {"site-packages", "dist-packages"} & {*file.parts}


def _module_of(place):
    """The module of a name or a file."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    file = path("file", place).resolve()
    return _run(file, file.read_bytes())


@functools.cache
def _run(file, content):
    """Runs a file, given by its resolved path and its content, and returns its module."""
    spec = importlib.util.spec_from_file_location(f"own_{file}", file)
    assert spec is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    exec(compile(content, file, "exec"), module.__dict__)
    return module
