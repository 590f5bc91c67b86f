"""DARTS's collapse in five minutes, and PR-DARTS beside it.

Both search NAS-Bench-201's space with 5,000 images of real CIFAR-10, averaged down to 8x8 (2,500 for the weights, 2,500
for the logits), C = 8, one cell per stage, batch 32, 100 epochs of 78 steps, logits' learning rate 3e-3. These settings
were chosen so that DARTS collapses in few steps.

    python experiments/collapse.py --data_dir=DIR --workdir=runs/collapse

A search takes one to three minutes on one core. The script writes a run folder for each search, table.md and skips.png.
With NAS-Bench-201's accuracies (--table=FILE) the table has the true test accuracies of the cells, too.
"""

import argparse

import family
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.spaces import tabular

METHODS = ("darts", "pr_darts")


def make_config(data_dir: str, table: str) -> ConfigDict:
    """The settings that both searches share."""
    config = family.small_config("nas_bench_201", data_dir)
    config.table = table
    config.num_examples = 5000
    config.image_size = 8
    config.augmentation.pad = 1
    config.epochs = 100
    config.logits.learning_rate = 3e-3
    config.cells = 1
    return config


def make_table(results: family.Results, table: tabular.Table | None) -> str:
    """The cells derived at the end."""
    measures = {
        "skip connections, %": (family.skips, ".0f"),
        **({"test accuracy of the cell, %": (table.accuracy, ".2f")} if table else {}),
    }
    rows = []
    for name in METHODS:
        cells = [result.genotype for result in family.of(results, name)]
        shown = (family.spread([measure(cell) for cell in cells], form) for measure, form in measures.values())
        rows.append([f"`{name}`", *shown])
    return markdown.table(["method", *measures], rows)


def main() -> None:
    """Runs the missing searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--table", default="", help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.set_defaults(seeds=(0,))
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    with family.exit_if_refused():
        config = make_config(arguments.data_dir, arguments.table)
        config = family.with_fields(config, family.parse_fields(arguments.set))
        table = tabular.load(arguments.table, config.dataset) if arguments.table else None
        results = family.run(config, METHODS, arguments.workdir, arguments.seeds, kept_in)
    text = make_table(results, table)
    (arguments.workdir / "table.md").write_text(text)
    value, label, limits = family.SKIPS
    figure = family.trajectories(results, METHODS, value, label, limits=limits)
    figure.savefig(arguments.workdir / "skips.png")
    print(text)


if __name__ == "__main__":
    main()
