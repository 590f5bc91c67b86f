"""The page of a finished run: report.html, which needs no other file and no network.

It is made of the files that the run has left, so it says the same whenever it is written: no times, no folders. Only
the environment is that of the process that writes it.
"""

import os
import platform
import string
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, page, reporting, run_log, search_page, settings
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes, published

NAME = "report.html"
_CLASSES = 20  # whose confusion matrix is drawn


def write(config: ConfigDict, workdir: Path) -> None:
    """Writes report.html, the page of a finished search or training, with the population and the comparison if they
    exist."""
    if not devices.is_main():
        return
    body = _training(workdir) if config.job == "train" else search_page.parts(config, workdir)
    body += [_asked(config, workdir), environment(), _again(config, workdir)]
    save(workdir / NAME, _title(config), body)


def save(path: Path, title: str, parts: Sequence[str]) -> None:
    """Writes a page with this heading; `parts` are HTML."""
    template = string.Template(Path(__file__).with_suffix(".html").read_text())
    filled = template.substitute(title=page.text(title), body="\n".join(parts))
    reporting.write_bytes(path, filled.encode())


def _title(config):
    if config.job == "train":
        named = [name for name in published.names() if name.lower() == config.genotype.lower()]
        return f"Training of {named[0] if named else 'a cell'} on {config.dataset}"
    seeds = f", {config.seeds} seeds" if config.seeds > 1 else ""
    return f"Search by {config.method} in the space {config.space} on {config.dataset}{seeds}"


def _training(workdir: Path) -> list[str]:
    from prdarts_jax.run import plots

    result, described = (reporting.read_json(workdir / name) for name in ("result.json", "classifier.json"))
    classes, records = described["classes"], run_log.read_records(workdir)
    facts = [["test accuracy (%)", 100 * result["top1"]]]
    if len(classes) > 5:
        facts.append(["top 5 accuracy (%)", 100 * result["top5"]])
    facts += [["weights", result["params"]], ["multiply-adds", result["macs"]]]
    parts = [page.section("Result", page.table(["", ""], facts))]
    if records:
        (few,) = search_page.thinned([records])
        panels = [plots.curves_figure(few, "test", [of]) for of in ("loss", "accuracy")]
        parts.append(page.section("Curves", page.panels(panels)))
    parts.append(page.section("Cell", *search_page.drawn(genotypes.load(workdir / "genotype.json"), "cell")))
    confusion = np.asarray(result["confusion"])
    images, right = confusion.sum(axis=1), confusion.diagonal()
    rows = [
        [name, int(n), 100 * int(r) / int(n) if n else None] for name, n, r in zip(classes, images, right, strict=True)
    ]
    table = page.wide(page.table(["class", "images", "accuracy (%)"], rows, "sortable"))
    if len(classes) <= _CLASSES:
        picture = page.svg(plots.confusion_figure(result["confusion"]), "confusion")
        parts.append(page.section("Classes", table, f"<div class='small'>{picture}</div>"))
    else:
        parts.append(page.section("Classes", page.folded(f"Accuracies of {len(classes)} classes", table)))
    return parts


def _asked(config: ConfigDict, workdir: Path) -> str:
    own = settings.section_of(config.method) if config.job == "search" else ""
    of_others = {name for name in methods.NAMED if name != own}
    changed = changed_fields(config)
    rest = {n: v for n, v in _flat(config).items() if n not in changed and n.partition(".")[0] not in of_others}
    differing, same = map(settings_table, (changed, rest))
    images = (checkpoints.read_config(workdir) or {}).get("images")
    data = [f"<p>The images are known by: {page.text(images)}.</p>"] if images else []
    title = f"<p>What differs from <code>{page.text(_base(config))}</code>:</p>"
    return page.section("What was asked", *data, title, differing, page.folded("The rest", same))


def settings_table(fields: Mapping[str, Any]) -> str:
    """A table of the fields of a config, with their values as Python literals."""
    return page.table(["field", "value"], [[name, _literal(value)] for name, value in fields.items()], "settings")


def environment(*above: str) -> str:
    """The versions, devices and commit of this process, which writes the page; `above` is HTML to put before them."""
    found = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in found}))
    rows = [["Python", platform.python_version()]]
    rows += [[name, metadata.version(name)] for name in ("jax", "jaxlib", "flax", "optax", "numpy")]
    rows += [["devices", f"{len(found)} × {found[0].platform} ({kinds})"], ["processes", jax.process_count()]]
    rows += [["prdarts_jax", _version()]]
    return page.section("Environment", *above, page.table(["", ""], rows, "settings"))


def _version() -> str:
    """The version of this package, with the commit if it is in a checkout."""
    try:
        version = metadata.version("prdarts_jax")
    except metadata.PackageNotFoundError:
        version = "not installed"
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return version
        return f"{version}, commit {commit.replace('-dirty', ', with changes')}"
    return version


def _again(config: ConfigDict, workdir: Path) -> str:
    lines = "".join(f"        {name!r}: {_literal(value)},\n" for name, value in changed_fields(config).items())
    text = (
        "from prdarts_jax.run import settings\n\n\n"
        f"def get_config():\n    config = {_base(config)}\n"
        f"    config.update_from_flattened_dict({{\n{lines}    }})\n    return config\n"
    )
    used = (checkpoints.read_config(workdir) or {}).get("dataset", config.dataset)
    named = used in (config.dataset, str(Path(os.path.expanduser(config.dataset))))
    passed = [] if named else [f"<p>The images, {page.text(used)}, were passed in Python: pass them again.</p>"]
    return page.section(
        "How to repeat it",
        *passed,
        "<p>Save this as again.py:</p>",
        f"<pre id='again'>{page.text(text)}</pre>",
        "<p>and run, in a new folder:</p>",
        "<pre>prdarts --config=again.py --workdir=runs/again</pre>",
    )


def _base(config):
    """The Python call that makes the config from which this one starts."""
    return f"settings.search({config.method!r})" if config.job == "search" else "settings.training()"


def _flat(config: ConfigDict) -> dict[str, Any]:
    return flatten_dict(config.to_dict(), sep=".")


def changed_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that differ from the defaults of the method, or of a training."""
    default = _flat(settings.search(config.method) if config.job == "search" else settings.training())
    of_config = _flat(config)
    return {name: value for name, value in of_config.items() if name not in default or default[name] != value}


def _literal(value: Any) -> str:
    """The value as a Python literal."""
    return f"float({str(value)!r})" if isinstance(value, float) and not np.isfinite(value) else repr(value)
