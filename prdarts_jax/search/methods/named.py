"""What the list of methods holds of each: how it is made, and the settings of its paper."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from prdarts_jax import fields
from prdarts_jax.refusals import cut, path, shown
from prdarts_jax.search.method import Method


class Named:
    """A function that makes a `Method`, and the fields of a config that its paper sets. Call it as the function.

    Attributes:
      schema: the arguments of the function; see `fields.schema_of`.
      paper: 'weights.learning_rate' or the like -> value.
    """

    def __init__(self, build: Callable[..., Method], paper: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, build)
        self.name: str = build.__name__
        self.schema = fields.schema_of(build)
        self.paper = MappingProxyType(dict(paper))
        self._build = fields.checked(build)

    def __call__(self, *args: Any, **kwargs: Any) -> Method:
        """The method.

        Raises:
          ValueError: an argument is out of its range, or what the function returns is no method.
        """
        method = self._build(*args, **kwargs)
        if not isinstance(method, Method):
            raise ValueError(f"method {self.name} must return a Method, not {type(method).__name__}")
        return method


def named(paper: Mapping[str, Any] = MappingProxyType({})) -> Callable[[Callable[..., Method]], Named]:
    """A decorator of a function that makes a method: its arguments are checked and known to configs.

    Args:
      paper: fields of a config that its paper sets, other than the defaults, which are those of PR-DARTS's paper.
    """
    return lambda build: Named(build, paper)


def imported(name: str) -> Named:
    """A method of the user's own: 'module:function' or 'path/to/file.py:function'.

    Like a module, a file is run once in a process, so that the methods of two calls are equal.

    Raises:
      ValueError: there is no such module, file or function, or it is no function.
    """
    place, _, function = name.rpartition(":")
    try:
        module = _module_of(path("file", place).resolve()) if place.endswith(".py") else importlib.import_module(place)
        build = getattr(module, function)
    except Exception as error:  # whatever the module raises when it is run
        reason = cut(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"method={shown(name)} cannot be imported as MODULE:FUNCTION or FILE.py:FUNCTION: {reason}"
        ) from error
    if not callable(build):
        raise ValueError(f"method={shown(name)} must be a function that returns a Method")
    return build if isinstance(build, Named) else Named(build, {})


@functools.cache
def _module_of(file):
    """The module of a file, by its resolved path."""
    spec = importlib.util.spec_from_file_location(f"method_{file}", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
