"""The job of the theory lab: it reads a config, checks claims, and writes the verdicts.

In the folder, claims/ has a JSON file and a figure for each claim; claims.md is the table of the verdicts. After a stop
the same command checks the remaining claims.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

from ml_collections import ConfigDict

from prdarts_jax import fields
from prdarts_jax.fields import SEED, Range
from prdarts_jax.run import checkpoints, lock, loop, reporting, signals
from prdarts_jax.theory import claims, report
from prdarts_jax.theory.settings import QUICK, THOROUGH

_CLAIM = Range(lambda value: value in ("", *claims.NAMED), lambda: f"'' (all), or one of {', '.join(claims.NAMED)}")


@dataclasses.dataclass(frozen=True)
class _Theory:
    job: str = "theory"
    claim: Annotated[str, _CLAIM, "which claim; '' is all"] = ""
    thorough: Annotated[bool, "wider networks and more draws; see `theory.settings`"] = False
    seed: Annotated[int, SEED] = 0


def settings() -> ConfigDict:
    """The config of the check of the papers' convergence claims."""
    return fields.defaults(fields.schema_of(_Theory))


@lock.alone
def run(config: ConfigDict, workdir: Path) -> str:
    """Checks the claims that are not yet checked, and writes everything into `workdir`.

    Call it from the main thread, which receives SIGTERM and Ctrl-C.

    Returns:
      The table of verdicts in Markdown.

    Raises:
      ValueError, OSError: the config or the workdir cannot be used; the message is one sentence.
      loop.Stopped: the run has received SIGTERM or Ctrl-C.
    """
    fields.check_config(fields.schema_of(_Theory), config)
    # Without the field `claim`, so that claims may be checked one by one in the same folder.
    shared = {name: value for name, value in config.to_dict().items() if name != "claim"}
    checkpoints.check_config(workdir, shared)
    checkpoints.write_config(workdir, shared)
    names = [config.claim] if config.claim else list(claims.NAMED)
    size = THOROUGH if config.thorough else QUICK
    with signals.stop_signals() as asked_to_stop, loop.Bar(iterable=names, unit="claim") as bar:
        for name in bar:
            bar.set_description(name)
            path = workdir / "claims" / f"{name}.json"
            if not path.exists():
                if received := asked_to_stop():
                    raise loop.Stopped(f"stopped before {name}; the same command resumes it", received)
                checked = claims.check(name, config.seed, size)
                reporting.save_figure(report.claim_figure(checked), path.with_suffix(".png"))
                reporting.write_json(path, _plain(checked._asdict() | {"verdict": checked.verdict}))
            bar.set_postfix_str(json.loads(path.read_text())["verdict"])
    text = table(workdir)
    reporting.write_bytes(workdir / "claims.md", text.encode())
    return text


def _plain(value: Any) -> Any:
    """The value with dicts in place of named tuples, for JSON."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(field) for name, field in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    return value


def table(workdir: Path) -> str:
    """The findings of the claims checked so far, one row each, in Markdown; only the head if there are none."""
    lines = [
        "| claim | prediction | measured (interval) | test | verdict | margin |",
        "|---|---|---|---|---|---|",
    ]
    paths = {name: workdir / "claims" / f"{name}.json" for name in claims.NAMED}
    for name, path in paths.items():
        for finding in json.loads(path.read_text())["findings"] if path.exists() else ():
            interval = f"{finding['measured']:.4g} ({finding['low']:.4g} to {finding['high']:.4g})"
            predicted = finding["predicted"].replace("|", r"\|")
            lines.append(
                f"| {name} | {predicted} | {interval} | {finding['test']} | {finding['verdict']} | "
                f"{finding['margin']:.3g} |"
            )
    return "\n".join(lines) + "\n"
