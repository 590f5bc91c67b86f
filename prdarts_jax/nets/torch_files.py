"""Reading checkpoints of PyTorch: the content of a file of `torch.save`, and the part of it that is weights."""

import argparse
import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from prdarts_jax import refusals

_BYTES, _PICKLED = 2**33, 10**6  # the most bytes of a file, and of the part of it that is not the numbers of tensors
_OLD = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the first bytes of a file of PyTorch before 1.6
_CONTAINERS = ("state_dict", "model_state_dict", "net", "model", "base-model")
_PREFIXES = re.compile(r"(?:module\.|_orig_mod\.)*")  # DataParallel and torch.compile add them
# Matches names that only a supernet has: those of several ops on an edge, in the code of DARTS, pt.darts and
# NAS-Bench-201, and those of architecture parameters.
_SUPERNET = re.compile(r"\._ops\.\w+\._ops\.|\bdag\.|\.edges\.\d+<-\d+\.|\b_?arch_param|\b_?(log_)?alphas?(_|\b)")


def read(path: str | os.PathLike[str]) -> Any:
    """Reads the content of a file of `torch.save`.

    Only tensors, plain containers, NumPy's scalars and argparse's namespaces are read (`weights_only`), so no code in
    the file is executed.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: PyTorch is missing.
      ValueError: the file cannot be read, or has other objects in it.
    """
    file_path = refusals.file("checkpoint", path, most=_BYTES)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"checkpoint {file_path} is read with PyTorch, which is missing: pip install torch"
        ) from error
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    harmless = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, argparse.Namespace]
    harmless += {type(np.dtype(code)) for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]}
    try:
        with _Counting(io.FileIO(file_path)) as file, torch.serialization.safe_globals(harmless):
            _check_form(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"checkpoint {file_path} "
            + (f"holds {refusals.cut(found[1], 100)}" if found else "is no file of PyTorch, or holds objects")
            + " other than tensors, numbers, texts and containers of these, which could run code when read: save only "
            "the state_dict of its network"
        ) from error
    except Exception as error:  # a damaged file can make the reader raise anything
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"checkpoint {file_path} cannot be read as a file of PyTorch ({refusals.cut(reason, 100)})"
        ) from error


class _Counting(io.BufferedReader):
    """A file that refuses more than `_PICKLED` calls of `read`.

    PyTorch reads the part that is not the numbers of tensors byte by byte, so this limits the size of that part.
    """

    _left = _PICKLED

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {_PICKLED:,} bytes beside the numbers of its tensors")
        return super().read(size)


def _check_form(file: BinaryIO) -> None:
    """Refuses a file that is not laid out as `torch.save` lays it out, since reading it may take minutes.

    Raises:
      ValueError: the file has another layout; the message says what is wrong.
    """
    begin = file.read(len(_OLD))
    file.seek(0)
    if begin == _OLD:
        return
    if not begin.startswith(b"PK"):
        raise ValueError("it does not begin as one")
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a part of it is compressed")
            if member.filename.endswith(".pkl") and member.file_size > _PICKLED:
                raise ValueError(f"it has more than {_PICKLED:,} bytes beside the numbers of its tensors")
    file.seek(0)


def state_dict(source: str, content: Any) -> dict[str, Any]:
    """Finds the weights in the content of a checkpoint: a dict from their names in the network to arrays.

    The weights may be the whole content, or be stored under one of the keys `state_dict`, `model_state_dict`, `net`,
    `model` and `base-model`; other keys (epoch, optimizer, scores) are then ignored. The prefixes `module.` and
    `_orig_mod.` are removed if all names have them.

    Args:
      source: the name of the checkpoint in messages.
      content: any value.

    Raises:
      ValueError: there is no mapping of names to arrays, there is one under several of the keys, or the weights are
        those of a supernet.
    """
    within = content if isinstance(content, Mapping) else {}
    holding = [key for key in _CONTAINERS if isinstance(within.get(key), Mapping) and _has_arrays(within[key])]
    if len(holding) > 1:
        raise ValueError(
            f"{source} has weights under {' and '.join(map(repr, holding))}: save only those that you mean"
        )
    state = content[holding[0]] if holding else content
    is_mapping = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not is_mapping or (state and not _has_arrays(state)):
        containers = ", ".join(map(repr, _CONTAINERS))
        raise ValueError(f"{source} must hold a mapping of names to arrays, itself or under one of {containers}")
    prefix = _PREFIXES.match(os.path.commonprefix(list(state)))
    state = {name[prefix.end() if prefix else 0 :]: value for name, value in state.items()}
    if of_supernet := next(filter(_SUPERNET.search, state), None):
        raise ValueError(
            f"{source} holds the weights of a supernet, as {refusals.cut(of_supernet, 100)} shows, with several ops on "
            "an edge, but must hold those of the network of one genotype, trained from scratch"
        )
    return state


def _has_arrays(state: Mapping[Any, Any]) -> bool:
    return any(hasattr(value, "dtype") for value in state.values())


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array or dense tensor of floating-point numbers that is in memory; None for anything else."""
    if hasattr(value, "is_floating_point"):  # a tensor of PyTorch
        dense = (
            value.is_floating_point()
            and not value.is_nested
            and not value.is_meta
            and str(value.layout) == "torch.strided"
        )
        return tuple(value.shape) if dense else None
    is_array = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    return tuple(value.shape) if is_array else None
