"""Fig. 1 and Table 1 of PR-DARTS in miniature: skips, depth and accuracy of found cells, on real CIFAR-10.

DARTS, PR-DARTS, each half of PR-DARTS by itself, and Lambda-DARTS search in DARTS's space.

All searches have the same images, halves, network and schedule: 25,000 images averaged down to 16x16, C = 8, six cells,
batch 32, 8 epochs of 390 steps, logits' learning rate 3e-3. The found cells, random cells, DARTS's own and that of skip
connections alone are then trained from scratch in the same way, three times each: 10,000 images, 10 epochs, C = 8, six
cells. The predictions in predictions.md were written before the experiment was run.

    python experiments/paper_in_miniature.py --data_dir=DIR --workdir=runs/paper

It takes hours on two cores, and may be stopped and started again. It writes a run folder for each search, evaluation/,
table.md, with the verdict on each prediction, and cells.png.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence

import family
import kept
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax import devices
from prdarts_jax.run import compare, loop, validation
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


def collect(rows: Mapping[str, Mapping], cells: Mapping[str, genotypes.AnyGenotype]) -> Numbers:
    """The numbers of all trained cells by kind: the method that found them, 'random', 'darts_v2' or 'all_skip'."""
    numbers: Numbers = {}
    for name, cell in cells.items():
        kind = "random" if re.fullmatch(r"random_\d+", name) else name.partition("_seed_")[0]
        of_kind = numbers.setdefault(kind, {measure: [] for measure in (*MEASURES, "weights")})
        accuracy = rows[name]["accuracy"]
        of_kind["accuracy"].append(np.nan if accuracy is None else 100 * accuracy)
        of_kind["skips"].append(100 * genotypes.skip_share(cell)["normal"])
        of_kind["depth"].append(genotypes.depth(cell)["normal"])
        of_kind["weights"].append(rows[name]["params"])
    return numbers


def difference(larger: Sequence[float], smaller: Sequence[float], paired: bool) -> tuple[float, float]:
    """The mean difference and its standard error: of pairs of the same seed, or of two independent samples."""
    if paired:
        pairs = np.subtract(larger, smaller)
        return float(pairs.mean()), float(pairs.std(ddof=1) / len(pairs) ** 0.5)
    error = sum(np.var(sample, ddof=1) / len(sample) for sample in (larger, smaller)) ** 0.5
    return float(np.mean(larger) - np.mean(smaller)), float(error)


def judge(numbers: Numbers) -> str:
    """A row for each prediction that the numbers can judge: it is confirmed by a difference above two standard errors,
    and refuted by one below minus two."""
    lines = ["| prediction | difference | verdict |", "|---|---|---|"]
    for measure, larger, smaller in PREDICTIONS:
        if larger in numbers and smaller in numbers:
            samples = numbers[larger][measure], numbers[smaller][measure]
            mean, error = difference(*samples, paired=smaller != "random")
            verdict = "confirmed" if mean > 2 * error else "refuted" if mean < -2 * error else "not decided"
            lines.append(f"| {measure}: {larger} > {smaller} | {mean:+.2f} ± {error:.2f} | {verdict} |")
    return "\n".join(lines) + "\n"


def make_table(numbers: Numbers) -> str:
    """A table with a row for each kind of cell."""
    lines = [f"| cells | {' | '.join(MEASURES.values())} | weights |", "|---" * (2 + len(MEASURES)) + "|"]
    for kind, found in numbers.items():
        cells = [
            family.spread(found[measure], form) for measure, form in zip(MEASURES, (".2f", ".0f", ".1f"), strict=True)
        ]
        shown = f"`{kind}`" if kind in methods.NAMED else kind
        lines.append(f"| {shown} | {' | '.join(cells)} | {np.mean(found['weights']):,.0f} |")
    return "\n".join(lines) + "\n"


def draw(numbers: Numbers) -> Figure:
    """A panel for each measure, with a point for each cell and a bar at the mean of each kind."""
    figure = Figure(figsize=(4 * len(MEASURES), 4), layout="constrained")
    for axes, (measure, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for place, found in enumerate(numbers.values()):
            axes.plot(place + np.linspace(-0.2, 0.2, len(found[measure])), found[measure], ".", color="C0")
            axes.plot([place - 0.3, place + 0.3], 2 * [np.mean(found[measure])], color="C1")
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
        cells = {family.workdir(arguments.workdir, *key).name: found.genotype for key, found in results.items()}
        cells |= compare.reference(config, space)
        training = compare.training_config(config)
        folder = arguments.workdir / "evaluation"
        trainings = config.evaluation.trainings
        rows = kept.evaluate(cells, training, folder, kept_in, space=space, trainings=trainings)
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")
    numbers = collect(rows, cells)
    text = make_table(numbers) + "\n" + judge(numbers)
    (arguments.workdir / "table.md").write_text(text)
    draw(numbers).savefig(arguments.workdir / "cells.png")
    print(text)


if __name__ == "__main__":
    main()
