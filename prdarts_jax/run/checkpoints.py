"""Checkpoints of a run: Orbax writes, names and retains them, in a folder a step.

Orbax notices some damage when it reads, and then chatters; so each checkpoint carries SHA256SUMS of its files and is
read only if they agree.
"""

import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from prdarts_jax import devices
from prdarts_jax.refusals import cut

KEPT = 3
_STATE, _REMOVED, _SUMS = "state", "removed", "SHA256SUMS"


class _SummedTree(ocp.PyTreeCheckpointHandler):
    """Writes the sums before Orbax gives the checkpoint its name, so that each named one has them."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        (directory / _SUMS).write_text(_sums(pathlib.Path(directory)))


def save(folder: pathlib.Path, step: int, state: Any) -> None:
    """Writes a checkpoint, returns once it is on disk, and keeps the newest `KEPT` of the folder.

    A checkpoint gets its name only when it is complete, so a process killed in here leaves the others as they were. A
    step that is there already is left alone. There is no lock: one run a folder, whose processes call this together.

    Args:
      folder: made if missing.
      step: what the checkpoint is called; larger is newer.
      state: a pytree of arrays, typed PRNG keys among them or not.
    """
    if True in devices.all_gather((folder / str(step)).exists()):
        return
    leaves = devices.device_get(_by_name(_key_data(state)))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
        cleanup_tmp_directories=True,  # of processes that were killed
        todelete_subdir=_REMOVED,  # by a rename: what has a step's name is whole
        enable_async_checkpointing=False,
        save_root_metadata=False,
        lightweight_initialize=True,
    )
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    handlers.add(_STATE, ocp.args.PyTreeSave, _SummedTree())
    with ocp.CheckpointManager(folder.absolute(), options=options, handler_registry=handlers) as manager:
        manager.save(step, args=ocp.args.Composite(**{_STATE: ocp.args.PyTreeSave(leaves)}), force=True)
    if devices.is_main() and (folder / _REMOVED).exists():
        shutil.rmtree(folder / _REMOVED)
    devices.barrier("checkpoint")


def restore_latest(folder: pathlib.Path, template: Any, report: Callable[[str], None]) -> tuple[Any, int] | None:
    """Reads the newest checkpoint that is intact, bit for bit as it was saved: (state, step), or None if there is none.

    Newer ones that are damaged are moved aside within the folder, so that their steps can be saved again.

    Args:
      folder: of the checkpoints.
      template: the state or its `jax.eval_shape`; gives the structure, shapes and dtypes.
      report: is told of each damaged checkpoint, in a sentence.

    Raises:
      ValueError: all checkpoints are damaged, the intact one does not fit the template, or processes see different
        ones.
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
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore((intact / _STATE).absolute())
    state = _fit(leaves, template, intact)
    for damaged in paths[: paths.index(intact)] if devices.is_main() else ():
        aside = tempfile.mkdtemp(prefix=f"damaged-{damaged.name}-", dir=folder)
        damaged.rename(aside)
        report(f"checkpoint {damaged} is damaged and was moved to {aside}; the one before it, {intact}, is used")
    return state, int(intact.name)


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Refuses a workdir whose config.json is not this config; one without a run is fine.

    Raises:
      ValueError: names each field that differs with both values, or says that the file is damaged or missing.
    """
    path = workdir / "config.json"
    unknown = "so whether the run there has this config cannot be told: use another --workdir"
    if not path.exists():
        if _newest_first(workdir / "checkpoints"):
            raise ValueError(f"{workdir} has checkpoints but no config.json, {unknown}")
        return
    try:
        there = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        there = None
    if not isinstance(there, dict):
        raise ValueError(f"{path} is damaged (not a JSON object), {unknown}")
    there, here = (
        {name: json.dumps(value) for name, value in flatten_dict(fields, sep=".").items()} for fields in (there, config)
    )
    differing = [
        f"config.{cut(field, 60)} is {cut(there.get(field, 'missing'), 60)} there and "
        f"{cut(here.get(field, 'missing'), 60)} here"
        for field in sorted(there.keys() | here.keys())
        if there.get(field) != here.get(field)
    ]
    if differing:
        differing[5:] = [f"{len(differing) - 5} more fields differ"] if len(differing) > 5 else []
        raise ValueError(
            f"{workdir} belongs to another run: {', '.join(differing)}; use another --workdir or the old values"
        )


def _newest_first(folder: pathlib.Path) -> list[pathlib.Path]:
    paths = [path for path in folder.glob("*") if path.name.isdigit()]
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def _sums(path: pathlib.Path) -> str:
    """The lines that sha256sum prints for all files below `path` and that it can check."""
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    names -= {_SUMS, "commit_success.txt"}  # Orbax writes the latter last
    return "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names))


def _is_intact(path: pathlib.Path) -> bool:
    state = path / _STATE
    named = (state / _SUMS).is_file() and all(map(ocp.path.step.is_path_finalized, (path, state)))
    return named and (state / _SUMS).read_bytes() == _sums(state).encode()


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
