"""The cells that all methods find in NAS-Bench-201 on real CIFAR-10, and their true accuracy.

All methods search on the same images, halves, network and schedule. The number of steps and the logits' learning rate
are the benchmark's own: 50 epochs of 390 steps, 3e-4. The network and the images are smaller: 25,000 images averaged
down to 16x16 (12,500 for the weights, 12,500 for the logits), C = 8, one cell per stage instead of five, batch 32
instead of 64. P-DARTS has three such searches, of 1, 1 and 2 cells per stage and 5, 4 and 3 ops per edge. The
benchmark's own test accuracies of the derived cells (trained by its authors, at full size) are compared; no search sees
them.

    python experiments/compare_nasbench201.py --data_dir=DIR --table=FILE --workdir=runs/nasbench201 --methods darts \
        pr_darts

A search takes 5 to 65 minutes on one core. Several processes, each with some of the --methods or --seeds, may share
the workdir; all may be stopped and started again. The table has every seed of these methods that is finished there, or
in --results, also those that --seeds does not name. The script writes a run folder for each search, table.md, a picture
of the found cells among all cells, and one of each diagnostic.
"""

import argparse

import family
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax import markdown, spaces
from prdarts_jax.spaces import reference_cells, tabular

ALL_SKIP = reference_cells.all_skip(spaces.nas_bench_201())
LOWEST = 50.0  # accuracies below are drawn there, in percent


def make_config(data_dir: str, table: str) -> ConfigDict:
    """The settings that all searches share."""
    config = family.small_config("nas_bench_201", data_dir)
    config.table = table
    config.num_examples = 25_000
    config.epochs = 50
    config.logits.learning_rate = 3e-4
    config.hessian = True  # each epoch's record has the dominant eigenvalue, by which R-DARTS stops
    config.r_darts.update({"window": 5, "start": 10})
    config.cells = 1
    config.p_darts.cells = (1, 1, 2)
    config.p_darts.ops = (5, 4, 3)
    return config


# The quantities that are drawn over the epochs: file, record -> number, label, limits (None: they fit the values).
PICTURES = (
    ("accuracy", lambda record: record["benchmark"]["accuracy"], "test accuracy of the derived cell, %", None),
    ("skips", *family.SKIPS),
    ("entropy", lambda record: record["entropy"]["normal"], "entropy of the op weights, nats", None),
    ("alignment", lambda record: record["alignment_val"], "alignment of the layers' gradients", None),
)
# The same of a quantity that only searches with config.hessian record.
EIGENVALUE = (
    "eigenvalue",
    lambda record: record["eigenvalue"],
    "dominant eigenvalue of the Hessian in the logits",
    None,
)


def make_table(results: family.Results, names: list[str], table: tabular.Table) -> str:
    """The cells derived at the end, for comparison those of the benchmark, and the percentiles beside those of the
    first method: a single cell without a path, of 10 %, would decide a mean of accuracies."""
    rows = []
    for name in names:
        found = family.of(results, name)
        accuracy = family.spread([table.accuracy(result.genotype) for result in found])
        percentile = family.spread([table.percentile(result.genotype) for result in found], ".1f")
        skips = family.spread([family.skips(result.genotype) for result in found], ".0f")
        rows.append([f"`{name}`", accuracy, percentile, skips])
    all_cells = f"mean {table.accuracies.mean():.2f}, median {np.median(table.accuracies):.2f}"
    best = f"{table.accuracies.max():.2f}"
    rows += [["all 15,625 cells", all_cells, "", ""], ["the best cell", best, "", ""]]
    skips_alone = [f"{table.accuracy(ALL_SKIP):.2f}", f"{table.percentile(ALL_SKIP):.1f}", "100"]
    rows.append(["skip connections alone", *skips_alone])
    head = [
        "method",
        "test accuracy of the cell, %",
        "percentile: % of all cells that are no better",
        "skip connections, %",
    ]
    percentiles = {name: [table.percentile(result.genotype) for result in family.of(results, name)] for name in names}
    return markdown.table(head, rows) + family.beside(percentiles, names[0], "percentile of the cell, points,")


def draw_cells(results: family.Results, names: list[str], table: tabular.Table) -> Figure:
    """A histogram of the accuracies of all cells, and below it the cell that each search has found. Accuracies below
    50 % are drawn there."""
    figure = Figure(figsize=(7, 2.6 + 0.35 * len(names)), layout="constrained", dpi=150)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, len(names)))
    above.hist(np.maximum(table.accuracies.ravel(), LOWEST), bins=np.arange(LOWEST, 95.5, 0.5), color="0.7")
    above.set(
        title=f"all 15,625 cells of NAS-Bench-201 (first bar: {LOWEST:g} % and less)",
        ylabel="number of cells",
        xlim=(LOWEST, 95),
    )
    for height, name in enumerate(reversed(names)):
        found = [max(LOWEST, table.accuracy(result.genotype)) for result in family.of(results, name)]
        shifts = 0.06 * (np.arange(len(found)) - (len(found) - 1) / 2)  # cells that are alike stay visible
        below.plot(found, height + shifts, "o", alpha=0.7, markersize=7)
    below.set_yticks(range(len(names)), reversed(names))
    below.set(xlabel="true test accuracy, %", ylim=(-0.6, len(names) - 0.4), title="the cell of each search")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    below.grid(axis="x", alpha=0.3)
    return figure


def main() -> None:
    """Runs the missing searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument(
        "--methods", nargs="+", default=family.VARIANTS, help="NAME or NAME:FIELD=VALUE,...: only these"
    )
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    with family.exit_if_refused():
        config = family.with_fields(
            make_config(arguments.data_dir, arguments.table), family.parse_fields(arguments.set)
        )
        table = tabular.load(arguments.table, config.dataset)
        results = family.run(config, arguments.methods, arguments.workdir, arguments.seeds, kept_in)
        for name in arguments.methods:
            seeds = family.seeds_of(kept_in, name)
            results |= family.run(config, [name], arguments.workdir, seeds, kept_in)
    text = make_table(results, arguments.methods, table)
    (arguments.workdir / "table.md").write_text(text)
    draw_cells(results, arguments.methods, table).savefig(arguments.workdir / "cells.png")
    marks = {"the best cell": table.accuracies.max(), "all skip connections": table.accuracy(ALL_SKIP)}
    for name, value, label, limits in (*PICTURES, EIGENVALUE) if config.hessian else PICTURES:
        figure = family.trajectories(
            results, arguments.methods, value, label, marks if name == "accuracy" else {}, limits
        )
        figure.savefig(arguments.workdir / f"{name}.png")
    print(text)


if __name__ == "__main__":
    main()
