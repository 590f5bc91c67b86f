"""What every method finds on the digits: skips, depth and accuracy of the cells, at the scale of the main job.

Images, network and schedule are those of configs/digits.py. The found cells, random cells and that of skip connections
alone are then trained from scratch in the same way, on the same 900 images, and tested on images that no search saw.

    python experiments/compare_digits.py --workdir=runs/methods_digits

Each method is compared with the random cells by the percentiles of its cells: a single cell without a path, of 10 %,
would decide a mean of accuracies. The intervals of Dunnett's test hold together with 95 % if all methods spread alike.
The script may be stopped and started again. It writes a run folder for each search, evaluation/ and table.md.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import family
import kept
import numpy as np
import paper_in_miniature

from prdarts_jax import devices
from prdarts_jax.run import compare
from prdarts_jax.search import methods

P_DARTS = {"p_darts.cells": (1, 1, 2), "p_darts.ops": (5, 4, 3)}  # a stage of the network has few cells
FIELDS = {"seeds": 1, "evaluation.random_cells": 20, "r_darts.start": 0}
CONFIG = Path(__file__).parents[1] / "configs/digits.py"


def percentiles(accuracies: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """For each cell of each kind the percentage of all cells that are no better; of a training that diverged, NaN."""
    every = np.sort(np.concatenate(list(accuracies.values())))
    every = every[np.isfinite(every)]
    found = {kind: 100 * np.searchsorted(every, of_kind, "right") / len(every) for kind, of_kind in accuracies.items()}
    return {kind: np.where(np.isfinite(accuracies[kind]), of_kind, np.nan) for kind, of_kind in found.items()}


def main() -> None:
    """Runs the missing searches and trainings, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--methods", nargs="+", default=methods.NAMED, help="NAME or NAME:FIELD=VALUE,...: only these")
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    devices.use_every_core()
    with family.exit_if_refused():
        fields = FIELDS | {"data_dir": arguments.data_dir} | P_DARTS | family.parse_fields(arguments.set)
        config = family.with_fields(family.read_config(str(CONFIG)), fields)
        results = family.run(config, arguments.methods, arguments.workdir, arguments.seeds, kept_in)
        reference = compare.reference(config)
        searches = itertools.product(arguments.methods, arguments.seeds)
        kind_of = paper_in_miniature.kinds(arguments.workdir, searches, reference)
        cells = {family.workdir(arguments.workdir, *key).name: found.genotype for key, found in results.items()}
        cells |= reference
        rows = kept.evaluate(cells, config, arguments.workdir / "evaluation", kept_in)
    numbers = paper_in_miniature.collect(rows, cells, kind_of)
    found = {kind: of_kind["accuracy"] for kind, of_kind in numbers.items() if kind != "all_skip"}
    text = paper_in_miniature.make_table(numbers) + family.beside(
        percentiles(found), "random", "percentile of the cell, points,"
    )
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
