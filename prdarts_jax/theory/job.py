"""The job of the theory lab: it reads a config, checks claims, and writes the verdicts.

In the folder, draws/ has what each measurement gave, with its sizes (NumPy's .npz); claims/ has a JSON file and a
figure for each claim; claims.md is the table of the findings. After a stop the same command makes the remaining
measurements.
"""

import dataclasses
import io
import json
import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import fields, refusals
from prdarts_jax.run import checkpoints, lock, loop, own_code, reporting, signals
from prdarts_jax.theory import claims, report, verdicts
from prdarts_jax.theory.claims import Claim

_SIZES = "sizes of the measurement"  # a name beside those of the draws


@dataclasses.dataclass(frozen=True)
class _Theory:
    job: str = "theory"
    claim: Annotated[str, "which claim of the file; '' is all"] = ""
    claims: Annotated[str, "a TOML file of claims, see `theory.claims`; '' has those of the papers"] = ""
    sizes: Annotated[str, "other sizes, as in the file: 'width = [32], activation = [\"tanh\"], draws = 50'"] = ""
    thorough: Annotated[bool, "with all sizes of the file, instead of those for a quick check"] = False


def settings() -> ConfigDict:
    """The config of the check of the papers' convergence claims."""
    return fields.defaults(fields.schema_of(_Theory))


def chosen(config: ConfigDict) -> dict[str, Claim]:
    """The claims that a config asks for, with its sizes, by name.

    Raises:
      ValueError, FileNotFoundError: the config or its file of claims cannot be used; the message is one sentence.
    """
    fields.check_config(fields.schema_of(_Theory), config)
    found = claims.read(config.claims or claims.PAPERS, config.thorough)
    if config.claim and config.claim not in found:
        names = refusals.listed(config.claim, found)
        raise ValueError(f"config.claim={refusals.shown(config.claim)} must be '' (all), or one of {names}")
    found = {config.claim: found[config.claim]} if config.claim else found
    try:
        sizes = tomllib.loads(f"sizes = {{{config.sizes}}}")["sizes"]
    except tomllib.TOMLDecodeError as error:
        form = "must have the form NAME = VALUE, NAME = [VALUE, VALUE]"
        raise ValueError(f"config.sizes={refusals.shown(config.sizes)} {form}: {error}") from None
    return {name: claim.with_sizes(sizes) for name, claim in found.items()}


@lock.alone
def run(config: ConfigDict, workdir: Path) -> str:
    """Makes the measurements that are missing, and writes everything into `workdir`.

    Call it from the main thread, which receives SIGTERM and Ctrl-C.

    Returns:
      The table of findings in Markdown.

    Raises:
      ValueError, OSError: the config, its file of claims or the workdir cannot be used; the message is one sentence.
      loop.Stopped: the run has received SIGTERM or Ctrl-C.
    """
    found = chosen(config)
    # Without the field `claim`, so that claims may be checked one by one in the same folder.
    shared = {name: value for name, value in config.to_dict().items() if name != "claim"}
    checkpoints.check_config(workdir, shared)
    checkpoints.write_config(workdir, shared)
    todo = [(claim, sizes) for claim in found.values() for sizes in verdicts.steps(claim)]
    compiled = None
    with signals.stop_signals() as asked_to_stop, loop.Bar(iterable=todo, unit="measurement") as bar:
        for claim, sizes in bar:
            bar.set_description(claim.name)
            path = draws_path(workdir, claim, sizes)
            if not path.exists():
                if received := asked_to_stop():
                    raise loop.Stopped(f"stopped during {claim.name}; the same command resumes it", received)
                needed = [claim.measure, {name: of for name, of in sizes.items() if name not in ("seed", "replicate")}]
                if needed != compiled:
                    jax.clear_caches()  # a process may map so much code only; past functions have no more use
                    compiled = needed
                _write_draws(path, sizes, verdicts.measure_one(claim, sizes))
    for name, claim in found.items():
        draws = [read_draws(draws_path(workdir, claim, sizes)) for sizes in verdicts.steps(claim)]
        judged = report.as_json(verdicts.judge(claim, draws))
        reporting.write_json(workdir / "claims" / f"{name}.json", judged)
        reporting.save_figure(report.figure(judged), workdir / "claims" / f"{name}.png")
    text = table(workdir, claims.read(config.claims or claims.PAPERS))
    reporting.write_bytes(workdir / "claims.md", text.encode())
    return text


def draws_path(workdir: Path, claim: Claim, sizes: Mapping[str, Any]) -> Path:
    """The file of one of the steps of a claim. Claims with the same measure and sizes have the same files; a measure of
    the user's own whose file has changed has others."""
    code = own_code.of_function(claim.measure) or claim.measure.__module__
    number = zlib.crc32(json.dumps([code, sizes], sort_keys=True).encode())
    return workdir / "draws" / claim.measure.__name__ / f"{number:08x}.npz"


def _write_draws(path: Path, sizes: Mapping[str, Any], draws: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {_SIZES: json.dumps(sizes), **draws}
    np.savez_compressed(buffer, **arrays)
    reporting.write_bytes(path, buffer.getvalue())


def read_draws(path: Path) -> dict[str, np.ndarray]:
    """What a measurement gave, from its file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != _SIZES}


def read_sizes(path: Path) -> dict[str, Any]:
    """The sizes of a measurement, from its file."""
    with np.load(path) as file:
        return json.loads(str(file[_SIZES]))


def table(workdir: Path, names: Mapping[str, Any]) -> str:
    """The findings of the claims of these names that are in a folder, in Markdown."""
    paths = [workdir / "claims" / f"{name}.json" for name in names]
    return report.table(json.loads(path.read_text()) for path in paths if path.exists())
