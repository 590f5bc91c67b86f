"""What every method finds on the digits: skips, depth and accuracy of the cells, at the scale of the main job.

Images, network and schedule are those of configs/digits.py. The found cells, random cells and that of skip connections
alone are then trained from scratch in the same way, on the same 900 images, and tested on images that no search saw.

    python experiments/compare_digits.py --workdir=runs/methods_digits

Each method is compared with the random cells by Dunnett's test, whose intervals hold together with 95 %. The script may
be stopped and started again. It writes a run folder for each search, evaluation/ and table.md.
"""

import argparse
import sys
from pathlib import Path

import family
import numpy as np
import paper_in_miniature
import scipy.stats

import prdarts_jax as pdx
from prdarts_jax import devices
from prdarts_jax.run import compare, loop
from prdarts_jax.search import methods

REFERENCE = ("random", "all_skip")  # cells that no method has found
CONFIG = Path(__file__).parents[1] / "configs/digits.py"


def beside_random(numbers: paper_in_miniature.Numbers) -> str:
    """A row for each method: by how much its cells are better than random ones, and whether this can be told."""
    trained = {kind: [a for a in found["accuracy"] if np.isfinite(a)] for kind, found in numbers.items()}
    found = {kind: accuracies for kind, accuracies in trained.items() if accuracies and kind not in REFERENCE}
    test = scipy.stats.dunnett(*found.values(), control=trained["random"], rng=0)
    lines = ["| method | test accuracy beside random cells, points | |", "|---|---|---|"]
    for kind, low, high in zip(found, *test.confidence_interval(), strict=True):
        verdict = "better" if low > 0 else "worse" if high < 0 else "cannot be told apart"
        lines.append(f"| `{kind}` | {(low + high) / 2:+.2f} ± {(high - low) / 2:.2f} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the missing searches and trainings, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=methods.NAMED, help="NAME or NAME:FIELD=VALUE,...: only these")
    arguments = parser.parse_args()
    devices.use_every_core()
    space = pdx.spaces.nas_bench_201()
    try:
        fields = {"seeds": 1, "data_dir": arguments.data_dir} | family.parse_fields(arguments.set)
        config = family.with_fields(family.read_config(str(CONFIG)), fields)
        results = family.run(config, arguments.methods, arguments.workdir, arguments.seeds)
        cells = {family.workdir(arguments.workdir, *key).name: found.genotype for key, found in results.items()}
        cells |= compare.reference(config, space)
        training = compare.training_config(config)
        rows = pdx.evaluate(cells, training, arguments.workdir / "evaluation", space=space)
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")
    numbers = paper_in_miniature.collect(rows, cells)
    text = paper_in_miniature.make_table(numbers) + "\n" + beside_random(numbers)
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
