"""The part of a run's page that is about a search: warnings, comparison, population, cells, activations, curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from prdarts_jax.nets import costs
from prdarts_jax.run import architecture, loop, page, run_log, settings
from prdarts_jax.search.diagnostics import DIAGNOSTICS
from prdarts_jax.spaces import SearchSpace, genotypes

# What keeps a page light.
_POINTS = 120  # of a curve; of many seeds fewer
_CELLS = 4  # different cells that are drawn
_VALUES = 32_000  # of activations; of more, fewer epochs are shown
_AGREEMENTS = ("agreement", "agreement of random cells")
_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


class _Searched(NamedTuple):
    """The results of the search of one seed."""

    name: str
    records: list[dict[str, Any]]
    activation: dict[str, np.ndarray]  # for each cell type f32[epochs, edges, ops]
    genotype: genotypes.AnyGenotype
    doubts: list[str]


def parts(config: ConfigDict, workdir: Path) -> list[str]:
    """HTML of each part of the page; only the comparison if no search has been run in the workdir."""
    folders = settings.seed_folders(config, workdir)
    runs = [run for run in map(_searched, folders) if run]
    there = {run.name for run in runs}
    missing = [folder.name for folder in folders if folder.name not in there] if runs else []
    found = [page.warning([f"without a result, since they diverged: {', '.join(missing)}"] if missing else [])]
    found.append(doubts({run.name: run.doubts for run in runs}))
    comparison, text = _read(workdir / "comparison.json"), workdir / "comparison.md"
    if config.evaluation.epochs and comparison and text.exists():
        found.append(_comparison(config, comparison, text.read_text()))
    population = _read(workdir / "population.json") if config.seeds > 1 else None
    if population:
        found.append(_population(population, runs))
    if not runs:
        return found
    return [*found, cells({run.name: run.genotype for run in runs}), _activation(config, runs), _curves(runs)]


def _searched(folder: Path) -> _Searched | None:
    """The results of a search, or None if it has diverged."""
    records = run_log.read_records(folder)
    if not records or loop.diverged(records) or not (folder / "genotype.json").exists():
        return None
    activation = architecture.read_probabilities(folder, len(records))
    genotype = genotypes.load(folder / "genotype.json")
    return _Searched(folder.name, records, activation, genotype, _read(folder / "doubts.json") or [])


def doubts(found: Mapping[str, Sequence[str]]) -> str:
    """A warning with the doubts of each search: each once, with the names of the searches that it is about."""
    whose: dict[str, list[str]] = {}
    for name, of_search in found.items():
        for doubt in of_search:
            whose.setdefault(doubt, []).append(name)
    alone = len(found) == 1
    return page.warning([doubt if alone else f"{', '.join(names)}: {doubt}" for doubt, names in whose.items()])


def _comparison(config: ConfigDict, rows: Mapping[str, Mapping[str, Any]], text: str) -> str:
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
    ranked = {name: row for name, row in rows.items() if row["accuracy"] is not None}
    figure = plots.comparison_figure(ranked, (unit, config.cost.target) if config.cost.target else None)
    found = [name.startswith("found") for name in rows]
    parts = [f"<p><strong>{page.text(verdict)}</strong></p>", page.wide(page.svg(figure, "comparison"))]
    parts += ["<p class='quiet'>A click on a heading sorts. A cell without an accuracy has diverged.</p>"]
    return page.section("Comparison", *parts, page.wide(page.table(head, body, "sortable", marked=found)))


def _population(result: Mapping[str, Any], runs: Sequence[_Searched]) -> str:
    head = ["two cells have in common", "edges (%)", "with their ops (%)", "random: edges (%)", "with their ops (%)"]
    shared = [
        [cell_type, *(100 * result[whose][cell_type][of] for whose in _AGREEMENTS for of in ("edges", "ops"))]
        for cell_type in result["agreement"]
    ]
    names = ("mean", "std", "min", "max")
    spread = [[field, *(row[name] for name in names)] for field, row in result["last epoch"].items()]
    heads = ["in the last epoch", "mean", "standard deviation", "from", "to"]
    of_seed = ["last epoch of", "validation loss (nats)", "validation accuracy (%)", "skips (%)", "depth"]
    seeds = []
    for run in runs:
        last = run.records[-1]
        skips, depth = (list(last[field].values()) for field in ("skip_share", "depth"))
        numbers = [last["val_loss"], 100 * last["val_accuracy"], 100 * float(np.mean(skips))]
        seeds.append([run.name, *numbers, ", ".join(map(str, depth))])
    return page.section(
        "Population",
        f"<p>{len(result['seeds'])} seeds: {', '.join(map(str, result['seeds']))}.</p>",
        page.wide(page.table(of_seed, seeds, "sortable")),
        page.wide(page.table(head, shared)),
        page.folded("Spread", page.wide(page.table(heads, spread))),
    )


def cells(found: Mapping[str, genotypes.AnyGenotype]) -> str:
    """Each different cell once, ordered by how many searches have found it; only some of many.

    Args:
      found: the cell by the name of its search.
    """
    whose: dict[genotypes.AnyGenotype, list[str]] = {}
    for name, genotype in found.items():
        whose.setdefault(genotype, []).append(name)
    ordered = sorted(whose.items(), key=lambda item: -len(item[1]))
    parts = []
    for number, (genotype, names) in enumerate(ordered[:_CELLS]):
        parts += [f"<h3>{page.text(', '.join(names))}</h3>"] if len(found) > 1 else []
        parts += drawn(genotype, f"cell {number + 1}")
    if len(ordered) > _CELLS:
        parts.append(f"<p class='quiet'>{len(ordered) - _CELLS} more are in the folders of their searches.</p>")
    return page.section("Cells" if len(found) > 1 else "Cell", *parts)


def drawn(genotype: genotypes.AnyGenotype, name: str) -> list[str]:
    """HTML of the pictures of a genotype's cells, and its text; `name` must be unique on the page."""
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

    of_runs = thinned([run.records for run in runs])
    records = plots.mean(of_runs, [*_CURVES, "activation"])
    panels = [plots.curves_figure(records, quantities=[of]) for of in ("loss", "accuracy")]
    for cell_type in records[-1]["activation"]:
        of_type = [{**r, "activation": {cell_type: r["activation"][cell_type]}} for r in records]
        panels.append(plots.activation_figure(of_type))
    for title in dict.fromkeys(diagnostic.title for diagnostic in DIAGNOSTICS):
        fields = [d.field for d in DIAGNOSTICS if d.title == title]
        having = [_only(records, *fields) for records in of_runs]
        if all(any(len(record) > 1 for record in records) for records in having):
            panels.append(plots.diagnostics_figure(*having))
    if len(runs) > 1:
        note = f"<p class='quiet'>The means of {len(runs)} searches; faint lines are those of one.</p>"
        return page.section("Curves", note, page.panels(panels))
    last = [[name, value] for name, value in run_log.numbers(runs[0].records[-1]).items() if name != "seconds"]
    numbers = page.table(["field", "value"], last)
    return page.section("Curves", page.panels(panels), page.folded("Numbers of the last epoch", numbers))


def _only(records, *fields):
    return [{name: record[name] for name in ("epoch", *fields) if name in record} for record in records]


def thinned(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
    """For each run, the records of the same few epochs, which include the last epoch of the longest run."""
    last = max(records[-1]["epoch"] for records in runs)
    epochs = set(np.linspace(0, last, min(_POINTS, max(12, 240 // len(runs)))).astype(int).tolist())
    return [[record for record in records if record["epoch"] in epochs] for records in runs]


# The activation of every op over the epochs -------------------------------------------------------------------------


def _activation(config: ConfigDict, runs: Sequence[_Searched]) -> str:
    """A table for each cell type, and a slider that selects the epoch."""
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


def _frames(space: SearchSpace, run: _Searched, most: int) -> dict[str, Any]:
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


def _read(path: Path) -> Any:
    """The content of a JSON file, or None if it is missing or cannot be read: a later job writes it again."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
