"""The results of a sweep, side by side: sweep.md, sweep.png and report.html, for `launch_slurm.py`.

Runs that differ only in their seeds form a group; so do the seeds of one run. A seed that has diverged is left out.
"""

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import family
import numpy as np
from flax.traverse_util import flatten_dict
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prdarts_jax import markdown
from prdarts_jax.run import loop, page, report, reporting, run_log, search_page
from prdarts_jax.spaces import genotypes

PANELS = {
    "train_loss": "training loss (nats)",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "skip_share": "share of skip connections",
    "depth": "depth of the cells",
    "entropy": "entropy of the op weights (nats)",
}

Groups = dict[str, list[list[dict[str, Any]]]]
"""Name -> the records of each run."""


class Asked(NamedTuple):
    """The command of a sweep."""

    config: str
    runs: Mapping[str, Mapping[str, str]]  # name of the folder -> fields of the combination
    rest: Sequence[str]  # flags of all runs
    command: Sequence[str]  # repeats the sweep in another folder


def write(asked: Asked, failed: Mapping[str, str], workdir: Path) -> str:
    """Writes sweep.md, of which it returns the text, sweep.png and report.html.

    Args:
      asked: the command of the sweep.
      failed: the log of each run that has failed, by its name.
      workdir: of the sweep.
    """
    groups = read_groups({name: fields for name, fields in asked.runs.items() if name not in failed}, workdir)
    text = make_table(groups)
    reporting.write_bytes(workdir / "sweep.md", text.encode())
    if shown(groups):
        reporting.save_figure(make_figure(groups), workdir / "sweep.png")
    report.save(workdir / report.NAME, f"Sweep of {Path(asked.config).name}", _page(asked, failed, groups, workdir))
    return text


def read_groups(runs: Mapping[str, Mapping[str, str]], workdir: Path) -> Groups:
    """The records of the runs, grouped by all fields but the seed."""
    groups: Groups = {}
    for name, fields in runs.items():
        alike = ",".join(f"{k}={v}" for k, v in fields.items() if k != "seed") or "all"
        records = map(run_log.read_records, _folders(workdir / name))
        groups.setdefault(alike, []).extend(r for r in records if r and not loop.diverged(r))
    return groups


def _folders(run):
    """The folders of a run's seeds if config.seeds is above 1, else the folder of the run."""
    return sorted(run.glob("seed_*")) or [run]


def make_table(groups: Groups) -> str:
    """The numbers of the last records, side by side; mean ± standard deviation for several runs."""
    last = {name: [dict(run_log.numbers(records[-1])) for records in group] for name, group in groups.items()}
    columns = list(dict.fromkeys(field for group in last.values() for numbers in group for field in numbers))
    columns = [field for field in columns if field not in ("epoch", "step", "seconds")]
    rows = []
    for name, group in last.items():
        cells = [[numbers[field] for numbers in group if field in numbers] for field in columns]
        rows.append([name, len(group), *map(_mean_and_spread, cells)])
    return markdown.table(["runs", "number", *columns], rows)


def _mean_and_spread(values):
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


# The picture ---------------------------------------------------------------------------------------------------------


def shown(groups: Groups) -> list[str]:
    """The fields of `PANELS` that some record has."""
    there = {field for group in groups.values() for records in group for record in records for field in record}
    return [field for field in PANELS if field in there]


def make_figure(groups: Groups) -> Figure:
    """A panel for each field that is `shown`."""
    fields = shown(groups)
    columns = min(len(fields), 3)
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.3 * len(groups) + 0.4), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lines: dict[str, Any] = {}
    for axes, field in zip(panels, fields, strict=False):
        _draw(axes, groups, field)
        lines |= {line.get_label(): line for line in axes.get_legend_handles_labels()[0]}
    for axes in panels[len(fields) :]:
        axes.remove()
    names = [name for name in groups if name in lines]
    figure.legend([lines[name] for name in names], names, loc="outside lower center", frameon=False)
    return figure


def _draw(axes: Axes, groups: Groups, field: str) -> None:
    """Draws the mean of each group over the epochs that all its runs have, and a faint line for each run. Runs without
    the field are left out."""
    for (name, group), colour in zip(groups.items(), _colours(groups), strict=True):
        of_runs = [
            {record["epoch"]: _value(record[field]) for record in records if field in record} for records in group
        ]
        curves = [curve for curve in of_runs if curve]
        for curve in curves if len(curves) > 1 else ():
            axes.plot(curve.keys(), curve.values(), color=colour, linewidth=0.8, alpha=0.4)
        if curves:
            epochs = sorted(set.intersection(*map(set, curves)))
            mean = [statistics.mean(curve[epoch] for curve in curves) for epoch in epochs]
            axes.plot(epochs, mean, color=colour, marker="o", markersize=3, label=name)
    axes.set(title=PANELS[field], xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _colours(groups):
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 0.8, len(groups)))]


def _value(value):
    """The number, or the mean of the numbers of the cell types."""
    return statistics.mean(value.values()) if isinstance(value, dict) else value


# The page ------------------------------------------------------------------------------------------------------------


def _page(asked: Asked, failed: Mapping[str, str], groups: Groups, workdir: Path) -> list[str]:
    ended = [name for name in asked.runs if name not in failed]
    found, doubts, diverged = {}, {}, []
    for folder in (folder for name in ended for folder in _folders(workdir / name)):
        name = str(folder.relative_to(workdir))
        if loop.diverged(run_log.read_records(folder)):
            diverged.append(f"{name} has diverged, and is in no mean")
        elif (folder / "genotype.json").exists():
            found[name] = genotypes.load(folder / "genotype.json")
            path = folder / "doubts.json"
            doubts[name] = json.loads(path.read_bytes()) if path.exists() else []
    parts = [page.warning([f"{name} has failed; its log is {log}" for name, log in failed.items()] + diverged)]
    parts += [search_page.doubts(doubts), _combinations(asked, groups, failed, workdir)]
    if shown(groups):
        parts.append(_curves(groups))
    if found:
        parts.append(search_page.cells(found))
    note = "<p>This is the environment of the process that wrote this page. The pages of the runs have their own.</p>"
    return [*parts, _asked(asked), report.environment(note), _again(asked)]


def _combinations(asked: Asked, groups: Groups, failed: Mapping[str, str], workdir: Path) -> str:
    fields = shown(groups)
    rows = []
    for name, given in asked.runs.items():
        ended = {} if name in failed else {name: given}
        runs = [records for group in read_groups(ended, workdir).values() for records in group]
        there = (workdir / name / report.NAME).exists()
        link = page.Link(f"{quote(name)}/{report.NAME}", "open") if there else None
        rows.append([link, *given.values(), *(number for field in fields for number in _last(runs, field)[:1])])
    head = ["page", *next(iter(asked.runs.values())), *(PANELS[field] for field in fields)]
    parts = ["<p class='quiet'>The last epoch of each run. A click on a heading sorts.</p>"]
    parts += [page.wide(page.table(head, rows, "sortable"))]
    if any(len(group) > 1 for group in groups.values()):
        rows = [[n, len(group), *(x for field in fields for x in _last(group, field))] for n, group in groups.items()]
        head = ["runs that differ only in the seed", "number", *(x for field in fields for x in (PANELS[field], "±"))]
        parts += ["<p class='quiet'>Means of the seeds, and their standard deviations.</p>"]
        parts += [page.wide(page.table(head, rows, "sortable"))]
    return page.section("Combinations", *parts)


def _last(runs: Sequence[Sequence[Mapping[str, Any]]], field: str) -> list[float | None]:
    """Mean and standard deviation of a field in the last records of runs that have it."""
    values = [_value(records[-1][field]) for records in runs if field in records[-1]]
    return [statistics.mean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None]


def _curves(groups: Groups) -> str:
    few = iter(search_page.thinned([records for group in groups.values() for records in group]))
    thinned = {name: [list(next(few)) for _ in group] for name, group in groups.items()}
    panels = []
    for field in shown(groups):
        panels.append(Figure(layout="constrained"))
        _draw(panels[-1].subplots(), thinned, field)
    key = (
        f"<li><span style='color: {colour}'>■</span> {page.text(name)}</li>"
        for name, colour in zip(groups, _colours(groups), strict=True)
    )
    note = "<p class='quiet'>Means of the runs that differ only in the seed. A faint line is one run.</p>"
    return page.section("Curves", note, f"<ul class='key'>{''.join(key)}</ul>", page.panels(panels))


def _asked(asked: Asked) -> str:
    values: dict[str, dict[str, None]] = {}
    for given in asked.runs.values():
        for field, value in given.items():
            values.setdefault(field, {})[value] = None
    rows = [["config", asked.config], *([field, ", ".join(of_field)] for field, of_field in values.items())]
    rows += [["flags of all runs", " ".join(asked.rest)]] if asked.rest else []
    config = report.settings_table(flatten_dict(family.read_config(asked.config).to_dict(), sep="."))
    table = page.table(["", ""], rows, "settings")
    return page.section("What was asked", table, page.folded("The config without these changes", config))


def _again(asked: Asked) -> str:
    return page.section("How to repeat it", f"<pre>{page.text(shlex.join(asked.command))}</pre>")
