"""Fig. 1 and Table 1 of PR-DARTS in miniature: skips, depth and accuracy of found cells, on real CIFAR-10.

DARTS, PR-DARTS, each half of PR-DARTS by itself, and Lambda-DARTS search in DARTS's space.

All searches have the same images, halves, network and schedule: 25,000 images averaged down to 16x16, C = 8, six cells,
batch 32, 8 epochs of 390 steps, logits' learning rate 3e-3. The found cells, random cells, DARTS's own and that of skip
connections alone are then trained from scratch in the same way, three times each: the same 25,000 images, 10 epochs,
batch 64, C = 8, six cells. The predictions in predictions.md were written before the experiment was run. PR-DARTS's
searches have a second cell each, which DARTS's rule derives from the same logits; it is trained too.

    python experiments/paper_in_miniature.py --data_dir=DIR --workdir=runs/paper

It takes about 17 hours on two cores, and may be stopped and started again. It writes a run folder for each search,
evaluation/, table.md, with the verdict on each prediction, and cells.png.
"""

import argparse
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import family
import kept
import numpy as np
import scipy.stats
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax import devices, markdown
from prdarts_jax.run import compare, problems, settings, validation
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes

METHODS = ("darts", "pr_darts_gates", "pr_darts_path", "pr_darts", "lambda_darts")
SEEDS = (0, 1, 2, 3, 4)
MEASURES = {"accuracy": "test accuracy, %", "skips": "skips in the normal cell, %", "depth": "depth of the normal cell"}
# (measure, cells for which it is larger, cells for which it is smaller), as in predictions.md.
PREDICTIONS = (
    ("skips", "darts", "pr_darts"),
    ("skips", "darts", "pr_darts_gates"),
    ("depth", "pr_darts", "darts"),
    ("depth", "pr_darts_path", "darts"),
    ("accuracy", "pr_darts", "darts"),
    ("accuracy", "pr_darts", "pr_darts_gates"),
    ("accuracy", "pr_darts", "pr_darts_path"),
    ("accuracy", "lambda_darts", "darts"),
    ("accuracy", "pr_darts", "random"),
    ("accuracy", "pr_darts by DARTS's rule", "pr_darts"),
    ("accuracy", "pr_darts by DARTS's rule", "random"),
)
Cells = Mapping[str, genotypes.AnyGenotype]  # by name
Numbers = dict[str, dict[str, list[float]]]  # {kind of cell: {measure: a number for each cell}}


def make_config(data_dir: str) -> ConfigDict:
    """The settings that all searches share, and in the section `evaluation` those that all trainings share."""
    config = family.small_config("darts", data_dir)
    config.num_examples = 25_000
    config.epochs = 8
    config.cells = 6
    config.logits.learning_rate = 3e-3
    config.evaluation.update({"random_cells": 10, "trainings": 3, "epochs": 10, "channels": 8, "cells": 6})
    config.evaluation.update({"batch_size": 64, "drop_path": 0.0})
    config.evaluation.augmentation.update({"pad": 2, "cutout": 0})
    return config


def kinds(folder: Path, searches: Iterable[tuple[str, int]], reference: Iterable[str]) -> dict[str, str]:
    """The kind of each cell, by its name: the method that found it, 'random', 'darts_v2' or 'all_skip'."""
    found = {family.workdir(folder, *search).name: search[0] for search in searches}
    return found | {name: re.sub(r"^random_\d+$", "random", name) for name in reference}


def collect(rows: Mapping[str, Mapping], cells: Cells, kind_of: Mapping[str, str]) -> Numbers:
    """The numbers of all cells, by kind. What is missing is NaN: the accuracy if a training diverged or there was none,
    and every number of a search without a cell."""
    numbers: Numbers = {}
    for name, kind in kind_of.items():
        found = dict.fromkeys((*MEASURES, "weights"), np.nan)
        if cell := cells.get(name):
            found |= shape(cell)
        if (row := rows.get(name)) and row["accuracy"] is not None:
            found["accuracy"] = 100 * row["accuracy"]
        if row:
            found["weights"] = row["params"]
        of_kind = numbers.setdefault(kind, {measure: [] for measure in found})
        for measure, number in found.items():
            of_kind[measure].append(number)
    return numbers


def shape(cell: genotypes.AnyGenotype) -> dict[str, float]:
    """Skips and depth of the normal cell."""
    return {"skips": 100 * genotypes.skip_share(cell)["normal"], "depth": genotypes.depth(cell)["normal"]}


def by_the_rule_of_darts(results: family.Results, config: ConfigDict, folder: Path) -> Cells:
    """The cells that DARTS's rule derives from the same logits: no edge keeps two ops.

    Raises:
      ValueError: the logits of a search were not kept.
    """
    cells: dict[str, genotypes.AnyGenotype] = {}
    for key, search in results.items():
        name = family.workdir(folder, *key).name
        if search.logits is None:
            raise ValueError(f"{name}.jsonl has no logits: remove it, and the search is run again")
        method = problems.make_method(family.variant(config, key[0]))
        method = dataclasses.replace(method, discretization=pdx.discretizations.strongest(distinct_inputs=True))
        logits = {cell_type: np.float32(of_type) for cell_type, of_type in search.logits.items()}
        cells[name] = method.derive(settings.space_of(config), logits)
    return cells


def difference(larger: Sequence[float], smaller: Sequence[float], paired: bool) -> tuple[float, float, float]:
    """The mean difference, its standard error, and half of its 95 % interval (Student's or Welch's t): of pairs of the
    same seed, or of two independent samples."""
    if not paired:
        return compare.difference(larger, smaller)
    of_pairs = np.subtract(larger, smaller)
    mean, half = family.interval(of_pairs)
    return mean, float(scipy.stats.sem(of_pairs)), half


def judge(numbers: Numbers) -> str:
    """A row for each prediction about kinds that are there: it is confirmed by a difference above two standard errors,
    and refuted by one below minus two. A missing number leaves it not decided; missing random cells are left out."""
    rows = []
    for measure, larger, smaller in PREDICTIONS:
        if larger not in numbers or smaller not in numbers:
            continue
        samples, paired = [numbers[larger][measure], numbers[smaller][measure]], smaller != "random"
        if not paired:
            samples[1] = [number for number in samples[1] if np.isfinite(number)]
        shown, verdict = ["", ""], "not decided: a number is missing"
        if min(map(len, samples)) < 2:
            verdict = "not decided: too few numbers"
        elif np.isfinite(np.concatenate(samples)).all():
            mean, error, half = difference(*samples, paired)
            shown = [f"{mean:+.2f} ± {error:.2f}", f"{mean - half:+.2f} to {mean + half:+.2f}"]
            verdict = "confirmed" if mean > 2 * error else "refuted" if mean < -2 * error else "not decided"
        rows.append([f"{measure}: {larger} > {smaller}", *shown, verdict])
    return markdown.table(["prediction", "difference ± standard error", "95 % interval", "verdict"], rows)


def make_table(numbers: Numbers, measures: Sequence[str] = tuple(MEASURES)) -> str:
    """A table with a row for each kind of cell, and columns for some measures; with accuracies also the weights."""
    forms = {"accuracy": ".2f", "skips": ".0f", "depth": ".1f"}
    sizes = "accuracy" in measures
    heads = ["cells, mean ± standard deviation", *(MEASURES[measure] for measure in measures), *["weights"] * sizes]
    rows = []
    for kind, found in numbers.items():
        cells = [family.spread(found[measure], forms[measure]) for measure in measures]
        if sizes:
            cells.append(f"{np.nanmean(found['weights']):,.0f}")
        shown = f"`{kind}`" if kind.partition(":")[0] in methods.NAMED else kind
        rows.append([shown, *cells])
    return markdown.table(heads, rows)


def draw(numbers: Numbers) -> Figure:
    """A panel for each measure, with a point for each cell and a bar at the mean of each kind."""
    figure = Figure(figsize=(4 * len(MEASURES), 4), layout="constrained")
    for axes, (measure, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for place, found in enumerate(numbers.values()):
            axes.plot(place + np.linspace(-0.2, 0.2, len(found[measure])), found[measure], ".", color="C0")
            axes.plot([place - 0.3, place + 0.3], 2 * [np.nanmean(found[measure])], color="C1")
        axes.set_xticks(range(len(numbers)), numbers, rotation=45, ha="right")
        axes.set_ylabel(label)
    return figure


def main() -> None:
    """Runs the missing searches and trainings, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="NAME or NAME:FIELD=VALUE,...: only these")
    parser.set_defaults(seeds=SEEDS)
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    devices.use_every_core()
    with family.exit_if_refused():
        config = family.with_fields(make_config(arguments.data_dir), family.parse_fields(arguments.set))
        validation.validate(config)
        results = family.run(config, arguments.methods, arguments.workdir, arguments.seeds, kept_in)
        reference = compare.reference(config)
        kind_of = kinds(arguments.workdir, itertools.product(arguments.methods, arguments.seeds), reference)
        cells = {family.workdir(arguments.workdir, *key).name: found.genotype for key, found in results.items()}
        cells |= reference
        by_other_rule = by_the_rule_of_darts(results, config, arguments.workdir)
        of_searches = {name: kind for name, kind in kind_of.items() if name not in reference}
        distinct = {f"{name}_distinct": cell for name, cell in by_other_rule.items() if kind_of[name] == "pr_darts"}
        cells |= distinct
        rows = kept.evaluate(cells, config, arguments.workdir / "evaluation", kept_in)
    numbers = collect(rows, cells, kind_of | dict.fromkeys(distinct, "pr_darts by DARTS's rule"))
    text = make_table(numbers) + "\n" + judge(numbers)
    text += "\nBy DARTS's rule, from the same searches:\n\n"
    text += make_table(collect({}, by_other_rule, of_searches), ("skips", "depth"))
    doubted = sum(bool(search.doubts) for search in results.values())
    text += f"\nReasons not to trust the cell were given by {doubted} of {len(results)} searches.\n"
    (arguments.workdir / "table.md").write_text(text)
    draw(numbers).savefig(arguments.workdir / "cells.png")
    print(text)


if __name__ == "__main__":
    main()
