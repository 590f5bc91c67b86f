"""Checkpoints of a run: Orbax writes, names and keeps them, in one folder per step.

When it reads, Orbax notices only some damage, and reports it at length. So each checkpoint has a file SHA256SUMS, and
it is read only if its files agree with these sums. Beside the state it has the config of its run, so that no run reads
the checkpoint of another, and the records of all epochs before it, so that metrics.jsonl can be written again.
"""

import asyncio.log
import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict

from prdarts_jax import devices
from prdarts_jax.refusals import cut
from prdarts_jax.run import reporting, run_log
from prdarts_jax.search import methods

KEPT = 3
# Fields of config.json that may differ: where images are, and how many processes read them, changes no result.
_UNUSED = ("data_dir", "workers")
# Fields of config.json that describe the content of files.
_CONTENTS = ("images", "accuracies", "starting_weights")
_OWN_CODE = "own_code."  # see own_code.py
_CHANGED = "has changed since the run began"
# The texts by which `_plain` replaces numbers in config.json.
_NOT_FINITE = MappingProxyType({str(value): value for value in (math.inf, -math.inf, math.nan)})
_STATE, _REMOVED, _RUN, _SUMS = "state", "removed", "run.json", "SHA256SUMS"

Records = list[list[dict[str, Any]]]  # of each run, those of all its epochs


class _SummedTree(ocp.PyTreeCheckpointHandler):
    """Writes the config, the records and the sums before Orbax gives the checkpoint its name, so that every checkpoint
    with a name has them."""

    def __init__(self, run: bytes) -> None:
        super().__init__()
        self._run = run

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        (directory / _RUN).write_bytes(self._run)
        (directory / _SUMS).write_text(_sums(pathlib.Path(directory)))


class Restored(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      state: a pytree of arrays.
      step: number of steps done.
      records: of each run, those of all its epochs.
    """

    state: Any
    step: int
    records: Records


def save(folder: pathlib.Path, step: int, state: Any, config: Mapping[str, Any], records: Records) -> None:
    """Writes a checkpoint, returns once it is on disk, and keeps the newest `KEPT` of the folder.

    A checkpoint gets its name only when it is complete, so a process that is killed in here leaves the others as they
    were. If there is already a checkpoint of this step, nothing is written. All processes of a run must call this.

    Args:
      folder: created if missing.
      step: the name of the checkpoint; larger is newer.
      state: a pytree of arrays, which may be typed PRNG keys.
      config: of the run.
      records: of the epochs so far.

    Raises:
      OSError: the checkpoint cannot be written, for instance because the disk is full.
    """
    if devices.any((folder / str(step)).exists()):
        return
    leaves = leaves_by_name(state)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
        cleanup_tmp_directories=True,  # of processes that were killed
        todelete_subdir=_REMOVED,  # by a rename, so that every folder with a step's name is complete
        enable_async_checkpointing=False,
        save_root_metadata=False,
        lightweight_initialize=True,
    )
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    run = reporting.json_bytes({"step": step, "config": _plain(config), "records": records})
    handlers.add(_STATE, ocp.args.PyTreeSave, _SummedTree(run))
    with (
        _os_errors(folder),
        ocp.CheckpointManager(folder.absolute(), options=options, handler_registry=handlers) as manager,
    ):
        manager.save(step, args=ocp.args.Composite(**{_STATE: ocp.args.PyTreeSave(leaves)}), force=True)
    if devices.is_main() and (folder / _REMOVED).exists():
        shutil.rmtree(folder / _REMOVED)
    devices.barrier("checkpoint")


@contextlib.contextmanager
def _os_errors(folder):
    """Within it, an array that TensorStore cannot write raises an OSError and prints nothing: Orbax would log the error
    in hundreds of lines, and TensorStore's threads would still report it to event loops that are closed."""
    verbosity, hook = logging.get_verbosity(), sys.unraisablehook

    def report(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = report
    asyncio.log.logger.addFilter(_is_news)
    try:
        yield
        sys.unraisablehook = hook  # not after an error, when the threads may still report it
    except ValueError as error:
        if "local file" not in str(error):
            raise
        # The code is missing if TensorStore does not find a file that it failed to write before.
        code = int((re.findall(r"os_error_code='(\d+)'", str(error)) or [errno.EIO])[0])
        raise OSError(code, os.strerror(code), str(folder)) from error
    finally:
        logging.set_verbosity(verbosity)


def _is_news(record):
    """Whether asyncio logs anything but one of TensorStore's errors, one for each array that it could not write."""
    return not (record.exc_info and "os_error_code" in str(record.exc_info[1]))


def restore_latest(
    folder: pathlib.Path,
    template: Any,
    config: Mapping[str, Any],
    report: Callable[[str], None],
    free: Collection[str] = (),
) -> Restored | None:
    """Reads the newest intact checkpoint, bit for bit as it was saved; returns None if there are no checkpoints.

    Newer checkpoints, which are damaged, are moved aside within the folder, so that their steps can be saved again.

    Args:
      folder: of the checkpoints.
      template: the state or its `jax.eval_shape`; gives the structure, shapes and dtypes.
      config: of the run.
      report: called with a sentence for each damaged checkpoint.
      free: fields of the config that may have another value in the checkpoint.

    Raises:
      ValueError: all checkpoints are damaged, the intact one is of another config or does not fit the template, or
        processes see different checkpoints.
    """
    paths = _newest_first(folder)
    intact = next((path for path in paths if _is_intact(path)), None)
    if len(devices.all_gather(int(intact.name) if intact else -1)) > 1:
        raise ValueError(f"{folder} is not the same for all processes: --workdir must be a folder that they share")
    if intact is None:
        if not paths:
            return None
        raise ValueError(
            f"all checkpoints in {folder} are damaged: use another --workdir, or move that folder away to start anew"
        )
    if not (intact / _STATE / _RUN).exists():
        raise ValueError(f"checkpoint {intact} was saved by an older version: use that, or another --workdir")
    run = _read_run(intact)
    if differing := differences(run["config"], config, free):
        raise ValueError(f"checkpoint {intact} belongs to another run: {differing}; use another --workdir")
    state = _fit(_leaves(intact), template, intact)
    for damaged in paths[: paths.index(intact)] if devices.is_main() else ():
        aside = tempfile.mkdtemp(prefix=f"damaged-{damaged.name}-", dir=folder)
        damaged.rename(pathlib.Path(aside) / damaged.name)
        report(f"checkpoint {damaged} is damaged and was moved to {aside}; the one before it, {intact}, is used")
    return Restored(state, int(intact.name), run["records"])


def _read_run(path: pathlib.Path) -> dict[str, Any]:
    """The content of a checkpoint beside its state: {'step', 'config', 'records'}."""
    try:
        run = json.loads((path / _STATE / _RUN).read_bytes())
        fits = run["step"] == int(path.name) and isinstance(run["config"], dict) and isinstance(run["records"], list)
        for records in run["records"]:
            fits &= isinstance(records, list) and [r["epoch"] for r in records] == [*range(len(records))]
            fits &= all(math.isfinite(number) for record in records for number in run_log.numbers(record).values())
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(
            f"checkpoint {path} has been changed: its {_RUN} is not that of step {path.name}; use another --workdir"
        )
    return run


def read_part(folder: pathlib.Path, prefixes: Sequence[str], template: Any) -> Any:
    """A part of the state in the newest checkpoint, of any config; nothing is moved or written.

    Args:
      folder: of the checkpoints.
      prefixes: prefixes of the names of its arrays; the first one that fits is used.
      template: the part or its `jax.eval_shape`.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: the checkpoint is damaged, or the part is missing or does not fit the template.
    """
    path = newest(folder)
    if path is None:
        raise FileNotFoundError(f"{folder} has no checkpoint")
    if not _is_intact(path):
        raise ValueError(f"checkpoint {path} is damaged: the command that made it, run again, repairs it")
    leaves = _leaves(path)
    first = next(iter(_by_name(template)))
    prefix = next((prefix for prefix in prefixes if prefix + first in leaves), prefixes[-1])
    part = {name: leaves[prefix + name] for name in _by_name(template) if prefix + name in leaves}
    return _fit(part, template, path)


def check_config(
    workdir: pathlib.Path, config: Mapping[str, Any], free: Collection[str] = (), advice: str = "", section: str = ""
) -> None:
    """Refuses a workdir whose config.json is another config; the `free` fields may differ, and the file may be missing
    if there is no run yet.

    If the epochs differ, the message ends with the `advice`. It puts the `section`, such as 'evaluation.', before the
    names of fields.

    Raises:
      ValueError: naming each field that differs with both values, or saying that the file is damaged or missing.
    """
    unknown = "so whether the run there has this config cannot be told: use another --workdir"
    try:
        there = read_config(workdir)
    except ValueError as error:
        raise ValueError(f"{error}, {unknown}") from error
    if there is None:
        if _newest_first(workdir / "checkpoints"):
            raise ValueError(f"{workdir} has checkpoints but no config.json, {unknown}")
        return
    if differing := differences(there, config, free, section):
        old = "code" if _CHANGED in differing else "values"
        what = f"use another --workdir or the old {old}" + (advice if "config.epochs" in differing else "")
        raise ValueError(f"{workdir} belongs to another run: {differing}; {what}")


def read_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The content of config.json; None if there is no such file.

    Raises:
      ValueError: the file is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        return None
    return jax.tree.map(
        lambda value: _NOT_FINITE.get(value, value) if type(value) is str else value, reporting.read_json(path)
    )


def write_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the config.json that `check_config` reads."""
    reporting.write_json(workdir / "config.json", _plain(config))


def newest(folder: pathlib.Path) -> pathlib.Path | None:
    """The newest checkpoint in a folder, which may be damaged; None if there is none."""
    return next(iter(_newest_first(folder)), None)


def _plain(value: Any) -> Any:
    """A config in which texts such as "inf" replace numbers that are not finite, which JSON cannot represent."""
    if isinstance(value, Mapping):
        return {name: _plain(field) for name, field in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str] = (), section: str = ""
) -> str:
    """The differences between two configs, or this section of two, in words, without those of the `free` fields, of
    `_UNUSED` and of the settings of other methods."""
    unused = [name for name in methods.NAMED if name != here.get("method")]
    there, here = (
        {
            name: json.dumps(value)
            for name, value in flatten_dict(_plain(fields), sep=".").items()
            if name.partition(".")[0] not in unused
        }
        for fields in (there, here)
    )
    fields = {field for field in there.keys() | here.keys() if there.get(field) != here.get(field)}
    codes = {field for field in fields if field.startswith(_OWN_CODE)}
    differing = [
        f"{'' if field in _CONTENTS else f'config.{section}'}{cut(field, 60)} is "
        f"{cut(there.get(field, 'missing'), 60)} there and {cut(here.get(field, 'missing'), 60)} here"
        for field in sorted(fields - codes - {*free, *_UNUSED})
    ]
    differing += [f"{code.removeprefix(_OWN_CODE)} {_CHANGED}" for code in sorted(codes & there.keys() & here.keys())]
    differing[5:] = [f"{len(differing) - 5} more fields differ"] if len(differing) > 5 else []
    return ", ".join(differing)


def fingerprint(arrays: Any) -> str:
    """A text that changes if any array of a pytree changes. config.json has such texts for files that may change."""
    crc = 0
    for name, array in leaves_by_name(arrays).items():
        crc = zlib.crc32(array.tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def leaves_by_name(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a state as checkpoints store them, whole and by their path in it, such as 'params.stem.kernel'."""
    return devices.device_get(_by_name(_key_data(state)))


def _newest_first(folder: pathlib.Path) -> list[pathlib.Path]:
    paths = [path for path in folder.glob("*") if path.name.isdecimal()]
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def _sums(path: pathlib.Path) -> str:
    """The lines that sha256sum prints for all files below `path`, and with which it can check them."""
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    names -= {_SUMS, "commit_success.txt"}  # Orbax writes the latter last
    return "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names))


def _is_intact(path: pathlib.Path) -> bool:
    state = path / _STATE
    named = (state / _SUMS).is_file() and all(map(ocp.path.step.is_path_finalized, (path, state)))
    return named and (state / _SUMS).read_bytes() == _sums(state).encode()


def _leaves(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, by their names."""
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            leaves: dict[str, np.ndarray] = checkpointer.restore((path / _STATE).absolute())
    except Exception as error:  # whatever the reader raises for files that were changed together with their sums
        raise ValueError(
            f"checkpoint {path} has been changed: its arrays cannot be read; use another --workdir"
        ) from error
    return leaves


def _fit(leaves: Mapping[str, np.ndarray], template: Any, path: pathlib.Path) -> Any:
    """The leaves in the structure of the template, as arrays on the default device."""
    expected = _by_name(jax.eval_shape(_key_data, template))
    for name in sorted(leaves.keys() | expected.keys()):
        there, here = _describe(leaves.get(name)), _describe(expected.get(name))
        if there != here:
            differ = f"{name} is {there} there and {here} here"
            raise ValueError(f"checkpoint {path} does not fit this program: {differ}; use another --workdir")
    likes, structure = jax.tree.flatten(template)
    arrays = [_wrap_key(jnp.array(leaves[name]), like) for name, like in zip(expected, likes, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def _by_name(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _describe(leaf: Any) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _wrap_key(data: jax.Array, like: Any) -> jax.Array:
    if not _is_key(like):
        return data
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(jnp.empty((), like.dtype)))
