"""How long must a search be? The cells that methods find in NAS-Bench-201 after searches of 100 to 20,000 steps.

For each length there is a separate search, whose schedules end with it. Everything else is as in
compare_nasbench201.py. The longest searches are the same: with the same --workdir or --results they are not run again.

    python experiments/search_length.py --data_dir=DIR --table=FILE --workdir=runs/nasbench201

It writes length.md and length.png to the workdir. Without the longest search, all lengths of one seed take half an hour
for DARTS and a quarter of an hour for PR-DARTS on one core. It may be stopped and started again.
"""

import argparse
from collections.abc import Sequence

import family
import numpy as np
from compare_nasbench201 import ALL_SKIP, make_config
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.spaces import tabular

EPOCHS = (1, 4, 10, 20, 50)
METHODS = ("pr_darts", "darts")


def lengths(config: ConfigDict, epochs: Sequence[int]) -> dict[int, tuple[str, ConfigDict]]:
    """{number of steps: (folder of the searches, their config)}; the first length is a quarter of an epoch."""
    steps, longest = config.num_examples // 2 // config.batch_size, config.epochs
    quarter = {"epochs": 1, "num_examples": config.num_examples // 4}
    found = {steps // 4: ("length_0", family.with_fields(config, quarter))}
    for number in epochs:
        folder = "" if number == longest else f"length_{number}"
        found[number * steps] = (folder, family.with_fields(config, {"epochs": number}))
    return found


def make_table(accuracies: dict[str, dict[int, list[float]]]) -> str:
    """Test accuracies in percent, with a row for each method and a column for each length."""
    sizes = list(next(iter(accuracies.values())))
    rows = [[f"`{name}`", *(family.spread(found[size]) for size in sizes)] for name, found in accuracies.items()]
    return markdown.table(["steps", *(f"{size:,}" for size in sizes)], rows)


def draw(accuracies: dict[str, dict[int, list[float]]], marks: dict[str, float]) -> Figure:
    """A point for each search, and a line through the medians of each method."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, (name, found) in enumerate(accuracies.items()):
        sizes = [size for size, values in found.items() if values]
        axes.plot(sizes, [np.median(found[size]) for size in sizes], color=f"C{i}", label=name)
        for size in sizes:
            axes.plot([size] * len(found[size]), found[size], ".", color=f"C{i}")
    for style, (mark, height) in zip((":", "--", "-."), marks.items(), strict=False):
        axes.axhline(height, color="grey", linestyle=style, linewidth=1, label=mark)
    axes.set(xscale="log", xlabel="steps of the search", ylabel="test accuracy of the found cell, %")
    axes.legend()
    return figure


def main() -> None:
    """Runs the missing searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="NAME or NAME:FIELD=VALUE,...")
    parser.add_argument("--epochs", nargs="+", type=int, default=EPOCHS, help="lengths of the searches")
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    accuracies: dict[str, dict[int, list[float]]] = {name: {} for name in arguments.methods}
    with family.exit_if_refused():
        fields = family.parse_fields(arguments.set)
        config = family.with_fields(make_config(arguments.data_dir, arguments.table), fields)
        table = tabular.load(arguments.table, config.dataset)
        for steps, (folder, shared) in lengths(config, arguments.epochs).items():
            results = family.run(
                shared, arguments.methods, arguments.workdir / folder, arguments.seeds, kept_in / folder
            )
            for name, found in accuracies.items():
                found[steps] = [table.accuracy(result.genotype) for result in family.of(results, name)]
    random = float(np.mean(table.accuracies))
    marks = {"the best cell": table.accuracies.max(), "all cells, mean": random, "all skips": table.accuracy(ALL_SKIP)}
    text = make_table(accuracies)
    (arguments.workdir / "length.md").write_text(text)
    draw(accuracies, marks).savefig(arguments.workdir / "length.png")
    print(text)


if __name__ == "__main__":
    main()
