"""The page of a finished run: report.html, which needs no other file and no network.

It is made of the files that the run has left, so it says the same whenever it is written: no times, no folders.
"""

import json
import platform
import string
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, loop, page, reporting, settings
from prdarts_jax.search import methods
from prdarts_jax.search.diagnostics import DIAGNOSTICS
from prdarts_jax.spaces import genotypes, published

_NAME = "report.html"

# What keeps a page light.
_POINTS = 120  # of a curve; of many seeds fewer
_CELLS = 4  # different cells that are drawn
_VALUES = 32_000  # of activations; of more, fewer epochs are shown
_AGREEMENTS = ("agreement", "agreement of random cells")
_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
_CLASSES = 20  # of a confusion matrix that is drawn


class _Searched(NamedTuple):
    """What the search of one seed has left."""

    name: str
    records: list[dict[str, Any]]
    activation: dict[str, np.ndarray]  # for each cell type f32[epochs, edges, ops]
    genotype: genotypes.AnyGenotype
    doubts: list[str]


def write(config: ConfigDict, workdir: Path, folders: Sequence[Path]) -> None:
    """Writes the page of a search or a training that has ended, of a population or a comparison as far as it is there.

    Args:
      config: of the run.
      workdir: where report.html goes.
      folders: with the results of each seed of a search; of a training `workdir` alone.
    """
    if not devices.is_main():
        return
    body = _training(workdir) if config.job == "train" else _search(config, workdir, folders)
    body += [_asked(config, workdir), _environment(), _again(config, workdir)]
    template = string.Template(Path(__file__).with_suffix(".html").read_text())
    filled = template.substitute(title=page.text(_title(config)), body="\n".join(body))
    reporting.write_bytes(workdir / _NAME, filled.encode())


def _title(config):
    if config.job == "train":
        named = [name for name in published.names() if name.lower() == config.genotype.lower()]
        return f"Training of {named[0] if named else 'a cell'} on {config.dataset}"
    seeds = f", {config.seeds} seeds" if config.seeds > 1 else ""
    return f"Search by {config.method} in the space {config.space} on {config.dataset}{seeds}"


# The parts of a search ----------------------------------------------------------------------------------------------


def _search(config: ConfigDict, workdir: Path, folders: Sequence[Path]) -> list[str]:
    """Its parts; where the cells of a comparison have not been searched in the workdir, the comparison alone."""
    runs = [run for run in map(_searched, folders) if run]
    there = {run.name for run in runs}
    missing = [folder.name for folder in folders if folder.name not in there] if runs else []
    parts = [page.warning([f"without a result, since they diverged: {', '.join(missing)}"] if missing else [])]
    parts.append(_doubts(runs))
    comparison = _read(workdir / "comparison.json") if config.evaluation.epochs else None
    if comparison:
        parts.append(_comparison(config, comparison, (workdir / "comparison.md").read_text()))
    population = _read(workdir / "population.json") if config.seeds > 1 else None
    if population:
        parts.append(_population(population))
    return parts + ([_cells(runs), _activation(config, runs), _curves(runs)] if runs else [])


def _searched(folder: Path) -> _Searched | None:
    """What a search has left, None where it has diverged."""
    records = reporting.read_records(folder)
    if not records or loop.diverged(records) or not (folder / "genotype.json").exists():
        return None
    activation = reporting.read_probabilities(folder, len(records))
    genotype = genotypes.load(folder / "genotype.json")
    return _Searched(folder.name, records, activation, genotype, _read(folder / "doubts.json") or [])


def _doubts(runs: Sequence[_Searched]) -> str:
    """Each reason once, with the seeds whose search it is of."""
    whose: dict[str, list[str]] = {}
    for run in runs:
        for doubt in run.doubts:
            whose.setdefault(doubt, []).append(run.name)
    alone = len(runs) == 1
    return page.warning([doubt if alone else f"{', '.join(names)}: {doubt}" for doubt, names in whose.items()])


def _comparison(config: ConfigDict, rows: Mapping[str, Mapping[str, Any]], text: str) -> str:
    from prdarts_jax.nets import costs
    from prdarts_jax.run import plots

    unit = costs.UNITS[config.cost.kind]
    head = ["cell", "rank", "test accuracy (%)", "standard error", "weights", "multiply-adds", "skips (%)", "depth"]
    head += [f"cost ({unit})"] if config.cost.target else []
    body = []
    for name, row in rows.items():
        trained = row["accuracy"] is not None
        cells: list[Any] = [name, row["rank"]]
        cells += [100 * row[field] if trained else None for field in ("accuracy", "standard_error")]
        cells += [row["params"], row["macs"], 100 * row["skip_share"], ", ".join(map(str, row["depth"].values()))]
        body.append(cells + ([row["cost"]] if config.cost.target else []))
    verdict = text.strip().splitlines()[-1]
    trained = {name: row for name, row in rows.items() if row["accuracy"] is not None}
    figure = plots.comparison_figure(trained, (unit, config.cost.target) if config.cost.target else None)
    found = [name.startswith("found") for name in rows]
    parts = [f"<p><strong>{page.text(verdict)}</strong></p>", page.wide(page.svg(figure, "comparison"))]
    parts += ["<p class='quiet'>A click on a heading sorts. A cell without an accuracy has diverged.</p>"]
    return page.section("Comparison", *parts, page.wide(page.table(head, body, "sortable", marked=found)))


def _population(result: Mapping[str, Any]) -> str:
    head = ["two cells have in common", "edges (%)", "with their ops (%)", "random: edges (%)", "with their ops (%)"]
    shared = [
        [cell_type, *(100 * result[whose][cell_type][of] for whose in _AGREEMENTS for of in ("edges", "ops"))]
        for cell_type in result["agreement"]
    ]
    names = ("mean", "std", "min", "max")
    spread = [[field, *(row[name] for name in names)] for field, row in result["last epoch"].items()]
    heads = ["in the last epoch", "mean", "standard deviation", "from", "to"]
    seeds = f"<p>{len(result['seeds'])} seeds: {', '.join(map(str, result['seeds']))}.</p>"
    return page.section(
        "Population",
        seeds,
        page.wide(page.table(head, shared)),
        page.folded("Spread", page.wide(page.table(heads, spread))),
    )


def _cells(runs: Sequence[_Searched]) -> str:
    """Each different cell once, those that most seeds have found first."""
    found: dict[genotypes.AnyGenotype, list[str]] = {}
    for run in runs:
        found.setdefault(run.genotype, []).append(run.name)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    parts = []
    for number, (genotype, names) in enumerate(ordered[:_CELLS]):
        parts += [f"<h3>{page.text(', '.join(names))}</h3>"] if len(runs) > 1 else []
        parts += _drawn(genotype, f"cell {number + 1}")
    if len(ordered) > _CELLS:
        parts.append(f"<p class='quiet'>{len(ordered) - _CELLS} more are in the folders of their seeds.</p>")
    return page.section("Cells" if len(runs) > 1 else "Cell", *parts)


def _drawn(genotype: genotypes.AnyGenotype, name: str) -> list[str]:
    from prdarts_jax.run import cell_plot, plots

    parts = []
    for cell_type in genotypes.cells(genotype):
        figure = cell_plot.cell_figure(genotype, cell_type)
        parts += [f"<h4>{page.text(plots.TITLES[cell_type])}</h4>"]
        graph = figure.findobj(lambda artist: artist.get_gid() in ("node", "edge", "op"))
        parts += [page.wide(page.svg(figure, f"{name} {cell_type}", graph))]
    return [*parts, page.folded("As text", f"<p><code>{page.text(genotypes.to_json(genotype))}</code></p>")]


def _curves(runs: Sequence[_Searched]) -> str:
    from prdarts_jax.run import plots

    thinned = _thinned([run.records for run in runs])
    records = plots.mean(thinned, [*_CURVES, "activation"])
    panels = [plots.curves_figure(records, quantities=[of]) for of in ("loss", "accuracy")]
    for cell_type in records[-1]["activation"]:
        of_type = [{**r, "activation": {cell_type: r["activation"][cell_type]}} for r in records]
        panels.append(plots.activation_figure(of_type))
    for title in dict.fromkeys(diagnostic.title for diagnostic in DIAGNOSTICS):
        fields = [d.field for d in DIAGNOSTICS if d.title == title]
        having = [_only(records, *fields) for records in thinned]
        if all(any(len(record) > 1 for record in records) for records in having):
            panels.append(plots.diagnostics_figure(*having))
    if len(runs) > 1:
        note = f"<p class='quiet'>The means of {len(runs)} searches; faint lines are those of one.</p>"
        return page.section("Curves", note, page.panels(panels))
    last = [[name, value] for name, value in reporting.numbers(runs[0].records[-1]).items() if name != "seconds"]
    numbers = page.table(["field", "value"], last)
    return page.section("Curves", page.panels(panels), page.folded("Numbers of the last epoch", numbers))


def _only(records, *fields):
    return [{name: record[name] for name in ("epoch", *fields) if name in record} for record in records]


def _thinned(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
    """Of each the records of the same few epochs."""
    last = max(records[-1]["epoch"] for records in runs)
    epochs = set(np.linspace(0, last, min(_POINTS, max(12, 240 // len(runs)))).astype(int).tolist())
    return [[record for record in records if record["epoch"] in epochs] for records in runs]


# The activation of every op over the epochs -------------------------------------------------------------------------


def _activation(config: ConfigDict, runs: Sequence[_Searched]) -> str:
    """A table of each cell type that a slider moves through the epochs."""
    from prdarts_jax.run import plots

    space = settings.space_of(config)
    shown = runs[: max(1, _VALUES // (4 * len(space.cell_types) * space.shape[0] * space.shape[1]))]
    most = _VALUES // (len(shown) * len(space.cell_types) * space.shape[0] * space.shape[1])
    data = [_frames(space, run, most) for run in shown]
    every = [v for run in data for cell in run["cells"].values() for frame in cell["values"] for v in frame]
    values = [value for value in every if value is not None]
    text = json.dumps({"low": min(values), "high": max(values), "runs": data}, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # no text of it ends the element
    tables = []
    for cell_type in space.cell_types:
        rows = [
            f"<tr><th scope='row'>{source} → {target}</th>{'<td></td>' * len(space.ops)}</tr>"
            for source, target in space.edges
        ]
        head = "".join(f"<th scope='col'>{page.text(op)}</th>" for op in ("edge", *space.ops))
        table = (
            f"<table class='ops' id='ops-{page.text(cell_type)}'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}"
        )
        tables += [f"<h3>{page.text(plots.TITLES[cell_type])}</h3>", page.wide(f"{table}</tbody></table>")]
    options = "".join(f"<option value='{number}'>{page.text(run.name)}</option>" for number, run in enumerate(shown))
    choice = f"<label>Search <select id='seed'>{options}</select></label>" if len(shown) > 1 else ""
    last = len(data[0]["epochs"]) - 1
    slider = f"<input id='epoch' type='range' min='0' max='{last}' value='{last}' aria-label='epoch'>"
    return page.section(
        "Activation over the epochs",
        "<p>How strongly each op takes part, in percent. A frame marks the ops of the cell that would be derived.</p>",
        f"<div class='controls'>{choice}{slider}</div><p><output id='epoch-text' for='epoch'></output></p>",
        *tables,
        "<noscript><p>Without JavaScript: the numbers are in the folder architecture.</p></noscript>",
        f"<script type='application/json' id='activation-data'>{text}</script>",
    )


def _frames(space: Any, run: _Searched, most: int) -> dict[str, Any]:
    """Activations in thousandths, of at most so many epochs, and the places (edge, op) of the derived ops."""
    epochs = len(run.records)
    kept = np.unique(np.linspace(0, epochs - 1, min(epochs, max(2, most))).astype(int)).tolist()
    cells: dict[str, dict[str, Any]] = {t: {"values": [], "chosen": []} for t in space.cell_types}
    texts = []
    for epoch in kept:
        record = run.records[epoch]
        derived = genotypes.cells(genotypes.from_json(json.dumps(record["genotype"])))
        for cell_type, cell in cells.items():
            thousandths = np.rint(1000 * run.activation[cell_type][epoch]).astype(int)
            allowed = space.candidates(cell_type)
            both = zip(thousandths.flat, allowed.flat, strict=True)
            cell["values"].append([int(value) if allowed else None for value, allowed in both])
            entries = [(space.edges.index((source, target)), op) for op, source, target in derived[cell_type]]
            cell["chosen"].append(
                [edge * len(space.ops) + space.ops.index(op) for edge, op in entries if op in space.ops]
            )
        skips = ", ".join(f"{name} {100 * share:.0f} %" for name, share in record["skip_share"].items())
        text = f"epoch {record['epoch']}: skip connections {skips}; validation accuracy"
        texts.append(f"{text} {100 * record['val_accuracy']:.1f} %")
    return {"epochs": kept, "texts": texts, "cells": cells}


# The parts of a training --------------------------------------------------------------------------------------------


def _training(workdir: Path) -> list[str]:
    from prdarts_jax.run import plots

    result, described = _read(workdir / "result.json"), _read(workdir / "classifier.json")
    assert result and described, "written before"
    classes, records = described["classes"], reporting.read_records(workdir)
    facts = [["test accuracy (%)", 100 * result["top1"]], ["of the five likeliest (%)", 100 * result["top5"]]]
    facts += [["weights", result["params"]], ["multiply-adds", result["macs"]]]
    parts = [page.section("Result", page.table(["", ""], facts))]
    if records:
        (thinned,) = _thinned([records])
        panels = [plots.curves_figure(thinned, "test", [of]) for of in ("loss", "accuracy")]
        parts.append(page.section("Curves", page.panels(panels)))
    parts.append(page.section("Cell", *_drawn(genotypes.load(workdir / "genotype.json"), "cell")))
    confusion = np.asarray(result["confusion"])
    images, right = confusion.sum(axis=1), confusion.diagonal()
    rows = [
        [name, int(n), 100 * int(r) / int(n) if n else None] for name, n, r in zip(classes, images, right, strict=True)
    ]
    table = page.wide(page.table(["class", "images", "accuracy (%)"], rows, "sortable"))
    if len(classes) <= _CLASSES:
        picture = [f"<div class='small'>{page.svg(plots.confusion_figure(result['confusion']), 'confusion')}</div>"]
    else:
        picture = ["<p class='quiet'>confusion.png shows what was taken for what.</p>"]
    parts.append(
        page.section("Classes", table if len(classes) <= _CLASSES else page.folded("Accuracies", table), *picture)
    )
    return parts


# What every run has -------------------------------------------------------------------------------------------------


def _asked(config: ConfigDict, workdir: Path) -> str:
    own = settings.section_of(config.method) if config.job == "search" else ""
    of_others = {name for name in methods.NAMED if name != own}
    changed = _changed(config)
    rest = {n: v for n, v in _flat(config).items() if n not in changed and n.partition(".")[0] not in of_others}
    images = (checkpoints.read_config(workdir) or {}).get("images")
    data = [f"<p>The images have the fingerprint {page.text(images)}.</p>"] if images else []
    differing = [[name, _literal(value)] for name, value in changed.items()]
    others = [[name, _literal(value)] for name, value in rest.items()]
    base = f"settings.search({config.method!r})" if config.job == "search" else "settings.training()"
    parts = [
        f"<p>What differs from <code>{page.text(base)}</code>:</p>",
        page.table(["field", "value"], differing, "settings"),
    ]
    return page.section(
        "What was asked", *data, *parts, page.folded("The rest", page.table(["field", "value"], others, "settings"))
    )


def _environment() -> str:
    found = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in found}))
    rows = [["Python", platform.python_version()]]
    rows += [[name, metadata.version(name)] for name in ("jax", "jaxlib", "flax", "optax", "numpy")]
    rows += [["devices", f"{len(found)} × {found[0].platform} ({kinds})"], ["processes", jax.process_count()]]
    rows += [["prdarts_jax", _version()]]
    return page.section("Environment", page.table(["", ""], rows, "settings"))


def _version() -> str:
    """Of this package, with the commit if it lies in a checkout."""
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
    lines = "".join(f"        {name!r}: {_literal(value)},\n" for name, value in _changed(config).items())
    base = f"settings.search({config.method!r})" if config.job == "search" else "settings.training()"
    text = (
        "from prdarts_jax.run import settings\n\n\n"
        f"def get_config():\n    config = {base}\n"
        f"    config.update_from_flattened_dict({{\n{lines}    }})\n    return config\n"
    )
    used = (checkpoints.read_config(workdir) or {}).get("dataset", config.dataset)
    passed = [f"<p>The images, {page.text(used)}, were passed in Python.</p>"] if used != config.dataset else []
    return page.section(
        "How to repeat it",
        *passed,
        "<p>Save this as again.py:</p>",
        f"<pre id='again'>{page.text(text)}</pre>",
        "<p>and run, in a new folder:</p>",
        "<pre>prdarts --config=again.py --workdir=runs/again</pre>",
    )


def _flat(config: ConfigDict) -> dict[str, Any]:
    return flatten_dict(config.to_dict(), sep=".")


def _changed(config: ConfigDict) -> dict[str, Any]:
    """The fields that differ from the defaults of the method, or of a training."""
    default = _flat(settings.search(config.method) if config.job == "search" else settings.training())
    of_config = _flat(config)
    return {name: value for name, value in of_config.items() if name not in default or default[name] != value}


def _literal(value: Any) -> str:
    """The value as Python reads it."""
    return f"float({str(value)!r})" if isinstance(value, float) and not np.isfinite(value) else repr(value)


def _read(path: Path) -> Any:
    """What a file of JSON holds, None where there is none, or none that can be read: a later job writes it again."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
