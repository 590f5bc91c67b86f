"""An entry of the list of methods: a function that makes the method, and the settings of its paper."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from prdarts_jax import fields
from prdarts_jax.refusals import cut, shown
from prdarts_jax.search.method import Method
from prdarts_jax.spaces import own


class Named:
    """A function that makes a `Method`, together with the settings of the method's paper.

    Calling a `Named` calls the function.

    Attributes:
      name: the name of the function.
      schema: the arguments of the function with their types, defaults and ranges; see `fields.schema_of`.
      paper: the settings of the paper: a mapping from config fields, such as 'weights.learning_rate', to values.
    """

    def __init__(self, build: Callable[..., Method], paper: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, build)
        self.name: str = build.__name__
        self.schema = fields.schema_of(build)
        self.paper = MappingProxyType(dict(paper))
        self._build = fields.checked(build)

    def __call__(self, *args: Any, **kwargs: Any) -> Method:
        """Makes the method.

        Raises:
          ValueError: an argument is of another type or out of its range, or the function raises an error or
            does not return a `Method`.
        """
        try:
            method = self._build(*args, **kwargs)
        except ValueError:
            raise
        except Exception as error:  # code of the user's own may raise anything
            if place := own.place_of(error):
                reason = cut(f"{type(error).__name__}: {error}", 200)
                raise ValueError(f"method {self.name} in {place} raised {reason}") from error
            raise
        if not isinstance(method, Method):
            raise ValueError(f"method {self.name} must return a Method, not {type(method).__name__}")
        return method


def named(paper: Mapping[str, Any] = MappingProxyType({})) -> Callable[[Callable[..., Method]], Named]:
    """A decorator that turns a function that makes a method into a `Named`.

    The arguments of the function are then checked, and a config can set them.

    Args:
      paper: config fields whose values in the method's paper differ from the defaults, and these values. The defaults
        are the settings of PR-DARTS's paper.
    """
    return lambda build: Named(build, paper)


def constant(name: str, method: Method, paper: Mapping[str, Any] = MappingProxyType({})) -> Named:
    """A `Named` without arguments, which makes this method."""

    def build() -> Method:
        return method

    build.__name__ = name
    return Named(build, paper)


def imported(name: str) -> Named:
    """Imports a method of the user's own: 'module:function' or 'path/to/file.py:function'.

    The function may be decorated by `named`, but need not be; a `Method` in its place is a method without arguments. A
    file is run once per process, and again if its text has changed, so that two calls give equal methods and compiled
    functions are reused.

    Raises:
      ValueError: there is no such module, file or function, the name is not that of a function or a `Method`, or an
        argument of the function has no default or a type that a config cannot hold.
    """
    build = own.object_of("method", name)
    if isinstance(build, Method):
        return constant(name.rpartition(":")[2], build)
    if not callable(build) or not hasattr(build, "__name__"):
        raise ValueError(f"method={shown(name)} must be a function that returns a Method")
    try:
        return build if isinstance(build, Named) else Named(build, {})
    except (ValueError, TypeError, NameError) as error:
        raise ValueError(f"method={shown(name)}: {error}") from error
