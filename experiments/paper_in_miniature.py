"""Fig. 1 and Table 1 of PR-DARTS in miniature: skips, depth and accuracy of found cells, on real CIFAR-10.

DARTS, PR-DARTS, each half of PR-DARTS by itself, and Lambda-DARTS search in DARTS's space.

All searches have the same images, halves, network and schedule: 25,000 images averaged down to 16x16, C = 8, six cells,
batch 32, 8 epochs of 390 steps, logits' learning rate 3e-3. The found cells, random cells, DARTS's own and that of skip
connections alone are then trained from scratch in the same way, three times each: the same 25,000 images, 10 epochs,
batch 64, C = 8, six cells. The predictions in predictions.md were written before the experiment was run.

    python experiments/paper_in_miniature.py --data_dir=DIR --workdir=runs/paper

It takes about 15 hours on two cores, and may be stopped and started again. It writes a run folder for each search,
evaluation/, table.md, with the verdict on each prediction, and cells.png.
"""

import argparse
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import family
import kept
import numpy as np
import scipy.stats
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax import devices
from prdarts_jax.run import compare, loop, problems, validation
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
)
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


def collect(
    rows: Mapping[str, Mapping], cells: Mapping[str, genotypes.AnyGenotype], kind_of: Mapping[str, str]
) -> Numbers:
    """The numbers of all trained cells, by kind.

    Accuracy is NaN if a training diverged, and every number of a search without a cell is.
    """
    numbers: Numbers = {}
    for name, kind in kind_of.items():
        found = dict.fromkeys((*MEASURES, "weights"), np.nan)
        if cell := cells.get(name):
            accuracy = rows[name]["accuracy"]
            found |= {"accuracy": np.nan if accuracy is None else 100 * accuracy, "weights": rows[name]["params"]}
            found |= shape(cell)
        of_kind = numbers.setdefault(kind, {measure: [] for measure in found})
        for measure, number in found.items():
            of_kind[measure].append(number)
    return numbers


def shape(cell: genotypes.AnyGenotype) -> dict[str, float]:
    """Skips and depth of the normal cell."""
    return {"skips": 100 * genotypes.skip_share(cell)["normal"], "depth": genotypes.depth(cell)["normal"]}


def by_the_rule_of_darts(results: family.Results, config: ConfigDict, space: pdx.SearchSpace) -> Numbers:
    """Skips and depth of the cells that DARTS's rule derives from the same logits: no edge keeps two ops."""
    numbers: Numbers = {}
    for (name, _), search in results.items():
        method = problems.make_method(family.variant(config, name))
        method = dataclasses.replace(method, discretization=pdx.discretizations.strongest(distinct_inputs=True))
        of_kind = numbers.setdefault(name, {"skips": [], "depth": []})
        logits = {cell_type: np.float32(of_type) for cell_type, of_type in search.logits.items()}
        for measure, number in shape(method.derive(space, logits)).items():
            of_kind[measure].append(number)
    return numbers


def difference(larger: Sequence[float], smaller: Sequence[float], paired: bool) -> tuple[float, float, float]:
    """The mean difference, its standard error, and half of its 95 % interval (Student's or Welch's t): of pairs of the
    same seed, or of two independent samples."""
    if paired:
        error, freedom = np.std(np.subtract(larger, smaller), ddof=1) / len(larger) ** 0.5, len(larger) - 1
    else:
        squares = [np.var(sample, ddof=1) / len(sample) for sample in (larger, smaller)]
        error = sum(squares) ** 0.5
        parts = [square**2 / (len(sample) - 1) for square, sample in zip(squares, (larger, smaller), strict=True)]
        freedom = error**4 / sum(parts) if error else np.inf
    return float(np.mean(larger) - np.mean(smaller)), float(error), float(scipy.stats.t.ppf(0.975, freedom) * error)


def judge(numbers: Numbers) -> str:
    """A row for each prediction about kinds that are there: it is confirmed by a difference above two standard errors,
    and refuted by one below minus two. A missing number leaves it not decided; missing random cells are left out."""
    lines = ["| prediction | difference ± standard error | 95 % interval | verdict |", "|---|---|---|---|"]
    for measure, larger, smaller in PREDICTIONS:
        if larger not in numbers or smaller not in numbers:
            continue
        samples, paired = [numbers[larger][measure], numbers[smaller][measure]], smaller != "random"
        if not paired:
            samples[1] = [number for number in samples[1] if np.isfinite(number)]
        shown, verdict = "| ", "not decided: a number is missing"
        if np.isfinite(np.concatenate(samples)).all() and min(map(len, samples)) > 1:
            mean, error, half = difference(*samples, paired)
            shown = f"{mean:+.2f} ± {error:.2f} | {mean - half:+.2f} to {mean + half:+.2f}"
            verdict = "confirmed" if mean > 2 * error else "refuted" if mean < -2 * error else "not decided"
        lines.append(f"| {measure}: {larger} > {smaller} | {shown} | {verdict} |")
    return "\n".join(lines) + "\n"


def make_table(numbers: Numbers) -> str:
    """A table with a row for each kind of cell, and a column for each of the numbers."""
    forms = {"accuracy": ".2f", "skips": ".0f", "depth": ".1f"}
    measures = [measure for measure in MEASURES if measure in next(iter(numbers.values()))]
    heads = ["cells, mean ± standard deviation", *(MEASURES[measure] for measure in measures)]
    sizes = "weights" in next(iter(numbers.values()))
    lines = [f"| {' | '.join(heads)} |{' weights |' if sizes else ''}", "|---" * (len(heads) + sizes) + "|"]
    for kind, found in numbers.items():
        cells = [family.spread(found[measure], forms[measure]) for measure in measures]
        if sizes:
            cells.append(f"{np.nanmean(found['weights']):,.0f}")
        shown = f"`{kind}`" if kind.partition(":")[0] in methods.NAMED else kind
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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
    space = pdx.spaces.darts()
    try:
        config = family.with_fields(make_config(arguments.data_dir), family.parse_fields(arguments.set))
        validation.validate(config)
        results = family.run(config, arguments.methods, arguments.workdir, arguments.seeds, kept_in)
        reference = compare.reference(config, space)
        kind_of = kinds(arguments.workdir, itertools.product(arguments.methods, arguments.seeds), reference)
        cells = {family.workdir(arguments.workdir, *key).name: found.genotype for key, found in results.items()}
        cells |= reference
        training = compare.training_config(config)
        folder = arguments.workdir / "evaluation"
        trainings = config.evaluation.trainings
        rows = kept.evaluate(cells, training, folder, kept_in, space=space, trainings=trainings)
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")
    numbers = collect(rows, cells, kind_of)
    text = make_table(numbers) + "\n" + judge(numbers)
    text += "\nBy DARTS's rule, from the same searches:\n\n" + make_table(by_the_rule_of_darts(results, config, space))
    doubted = sum(bool(search.doubts) for search in results.values())
    text += f"\nReasons not to trust the cell were given by {doubted} of {len(results)} searches.\n"
    (arguments.workdir / "table.md").write_text(text)
    draw(numbers).savefig(arguments.workdir / "cells.png")
    print(text)


if __name__ == "__main__":
    main()
