"""The registry of candidate ops: name -> how to build the op, its group, and its layers in PyTorch."""

import dis
from collections.abc import Callable, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from prdarts_jax.ops.op import Op
from prdarts_jax.refusals import listed, shown

Group = Literal["none", "skip", "noise", "pool", "conv"]
Build = Callable[[int, int], Op]
Layers = tuple[tuple[str, str], ...]


class Candidate(NamedTuple):
    """What is registered under a name; see `register`.

    Attributes:
      group: 'none', 'skip', 'noise', 'pool' or 'conv'.
      build: (channels, stride) -> Op.
      torch: stride -> (name in PyTorch, name in `Op`) of each layer with weights; empty if none were given.
    """

    group: Group
    build: Build
    torch: Mapping[int, Layers]


_CANDIDATES: dict[str, Candidate] = {}


def register(name: str, *, group: Group, torch: Mapping[int, Layers] | None = None) -> Callable[[Build], Build]:
    """Registers an op under a name, so that search spaces, genotypes, supernets and networks can use it.

    The decorated function builds the op, `build(channels, stride) -> Op`, for x [B, H, W, channels] and y
    [B, ceil(H / stride), ceil(W / stride), channels], with stride 1 or 2:

    >>> from prdarts_jax import ops
    >>> @ops.register("half", group="skip")
    ... def half(channels: int, stride: int) -> ops.Op:
    ...     return ops.Op(lambda params, stats, x, norm: (x[:, ::stride, ::stride] / 2, {}))
    >>> ops.group("half")
    'skip'

    See `Op` for an op with parameters, normalisations or random inputs. The same code, with equal values in its closure
    and equal constants of its module, may be registered again under its name, for instance if a config file or a cell
    of a notebook is run twice.

    Args:
      name: letters, digits and underscores, of which the first is no digit.
      group: what the op counts as: 'none' (no connection: the network of a found cell leaves it out), 'skip', 'noise',
        'pool' (its output is normalised in a supernet with `pool_norm`) or 'conv'.
      torch: for each stride the layers that have weights, in the order of PyTorch's state_dict; each is (its name in
        PyTorch, the name of the kernel or normalisation in `Op`). Needed only to read or write weights of PyTorch.

    Returns:
      A decorator, which returns the function unchanged.

    Raises:
      ValueError: the name is taken or has other characters, there is no such group, or `torch` is not a mapping whose
        keys are 1 or 2.
    """
    if not name.isidentifier():
        raise ValueError(
            f"name={name!r} of an op must consist of letters, digits and underscores, and not begin with a digit"
        )
    if torch is not None and not (isinstance(torch, Mapping) and set(torch) <= {1, 2}):
        raise ValueError(f"torch={torch!r} of the op {name!r} must be a mapping of strides, 1 or 2, to layers")
    if group not in get_args(Group):
        raise ValueError(f"group={group!r} of the op {name!r} must be one of {', '.join(get_args(Group))}")

    def add(build: Build) -> Build:
        new, there = Candidate(group, build, torch or {}), _CANDIDATES.get(name)
        if there and not _is_same(new, there):
            raise ValueError(f"name={name!r} is the name of a registered op; a new op must have another one")
        _CANDIDATES.setdefault(name, new)
        return build

    return add


def _is_same(one: Candidate, other: Candidate) -> bool:
    """Whether two entries are equal. Functions are if they have the same code, with equal defaults, closures and
    constants; other functions that they call by a global name are not compared."""
    flat: list[Any] = [jax.tree.flatten(jax.tree.map(_parts, entry)) for entry in (one, other)]
    (own, structure), (others, of_other) = flat
    return structure == of_other and all(map(np.array_equal, own, others))


def _parts(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """A tree of the code, the defaults, the closure and the constants of a function; another value, and a function
    within itself, is left as it is."""
    if not isinstance(value, FunctionType) or value in within:
        return value
    closure = [_content(cell) for cell in value.__closure__ or ()]
    parts = (value.__code__, value.__defaults__, value.__kwdefaults__, closure)
    return jax.tree.map(lambda part: _parts(part, (*within, value)), parts), _constants(value.__code__, value)


def _constants(code: CodeType, function: FunctionType) -> list[Any]:
    """The numbers, texts and tuples that code within a function reads by global names."""
    names = dict.fromkeys(of.argval for of in dis.get_instructions(code) if of.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    read = [function.__globals__.get(name) for name in names]
    within = [_constants(inner, function) for inner in code.co_consts if isinstance(inner, CodeType)]
    return [value for value in read if isinstance(value, bool | int | float | str | tuple)] + within


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the name has no value yet
        return None


def find(name: str) -> Candidate:
    """The entry of a name.

    Raises:
      ValueError: no op is registered under this name.
    """
    if name not in names():
        raise ValueError(f"op {shown(name)} is not registered; allowed are {listed(name, names())}")
    return _CANDIDATES[name]


def names() -> tuple[str, ...]:
    """The names of all registered ops, in the order in which they were registered."""
    return tuple(_CANDIDATES)


def group(name: str) -> Group:
    """The group of a registered op: 'none', 'skip', 'noise', 'pool' or 'conv'; raises as `find`."""
    return find(name).group
