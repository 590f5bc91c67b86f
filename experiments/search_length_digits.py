"""How long must a search be? The cells that methods find on the digits in searches of 100 to 20,000 steps.

For each length there is a separate search, whose schedules end with it. Everything else, also the training of the found
cells and of random ones, is as in configs/digits.py, the main job.

    python experiments/search_length_digits.py --workdir=runs/length_digits

It writes length.md to the workdir, takes an hour on one core, and may be stopped and started again.
"""

import argparse

import family
import kept
from compare_digits import CONFIG, FIELDS
from search_length import METHODS, make_table

from prdarts_jax import devices
from prdarts_jax.run import compare
from prdarts_jax.spaces import genotypes

EPOCHS = (7, 28, 60, 240, 1400)


def main() -> None:
    """Runs the missing searches and trainings, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="NAME or NAME:FIELD=VALUE,...")
    parser.add_argument("--epochs", nargs="+", type=int, default=EPOCHS, help="lengths of the searches")
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    devices.use_every_core()
    with family.exit_if_refused():
        fields = FIELDS | {"data_dir": arguments.data_dir} | family.parse_fields(arguments.set)
        config = family.with_fields(family.read_config(str(CONFIG)), fields)
        sizes = {epochs * (config.num_examples // 2 // config.batch_size): epochs for epochs in arguments.epochs}
        cells: dict[str, genotypes.AnyGenotype] = {}
        origins: dict[str, tuple[str, int]] = {}  # of found cells: method, number of steps
        for size, epochs in sizes.items():
            length, folder = family.with_fields(config, {"epochs": epochs}), f"length_{epochs}"
            results = family.run(
                length, arguments.methods, arguments.workdir / folder, arguments.seeds, kept_in / folder
            )
            for (name, seed), found in results.items():
                cell = f"{family.workdir(arguments.workdir, name, seed).name}_{folder}"
                cells[cell], origins[cell] = found.genotype, (name, size)
        cells |= compare.reference(config)
        rows = kept.evaluate(cells, config, arguments.workdir / "evaluation", kept_in)
    percent = {name: 100 * row["accuracy"] for name, row in rows.items() if row["accuracy"] is not None}

    def of(method, size):
        return [percent[cell] for cell, origin in origins.items() if origin == (method, size) and cell in percent]

    accuracies = {name: {size: of(name, size) for size in sizes} for name in arguments.methods}
    random = [accuracy for name, accuracy in percent.items() if name.startswith("random_")]
    text = make_table(accuracies) + f"\nRandom cells: {family.spread(random)}\n"
    (arguments.workdir / "length.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
