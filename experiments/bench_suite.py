r"""The nine benchmarks of confopt's suite (Jha et al., AutoML 2025): a found cell by mean and best of nine trainings.

On each benchmark of configs/bench_suite.py a method searches with three seeds, on half of the training images of
CIFAR-10. The cell of the seed with the lowest validation loss is trained from scratch on the other half, once with each
of nine pairs of a learning rate and a weight decay, for 300 epochs.

    python experiments/bench_suite.py --data_dir=DIR --workdir=runs/suite --benchmarks deep_regular deep_no_skip \
        --methods darts pr_darts

It may be stopped and started again. Not run here at this size, which needs a GPU;
`--set=epochs=2,evaluation.epochs=2` gives a first look. It writes a folder for each benchmark, with a run folder for
each search and training_1 to training_9, and table.md.
"""

import argparse
import itertools
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path

import family
import numpy as np
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax import devices, markdown
from prdarts_jax.data import sources
from prdarts_jax.data.source import DataSet
from prdarts_jax.run import compare, feeds, settings
from prdarts_jax.spaces.genotypes import AnyGenotype

CONFIG = Path(__file__).parents[1] / "configs/bench_suite.py"
BENCHMARKS = tuple(runpy.run_path(str(CONFIG))["BENCHMARKS"])
TRAININGS = tuple(itertools.product((0.025, 0.1, 0.01), (1e-4, 3e-4, 1e-3)))  # (learning rate, weight decay)
Accuracies = list[float | None]  # of each training a fraction, or None if it diverged


def make_config(benchmark: str, data_dir: str) -> ConfigDict:
    """The settings of a benchmark: those of all searches and, in the section `evaluation`, those of all trainings."""
    config = family.read_config(f"{CONFIG}:{benchmark}")
    config.data_dir = data_dir
    config.evaluation.epochs = 300
    return config


def other_images(config: ConfigDict) -> DataSet:
    """A data set of the training images that the searches leave out, and of the test images."""
    data, options = feeds.find_data(config), {"image_size": config.image_size}
    train = sources.load(data, num_examples=config.num_examples, others=True, **options)
    test = sources.load(data, split="test", **options)
    arrays = ({"image": split.images, "label": split.labels} for split in (train, test))
    return pdx.data.from_arrays(*arrays, name=f"the other images of {data.name}")


def chosen(results: family.Results) -> dict[str, int]:
    """For each method the seed of its search with the lowest validation loss, unless all have diverged."""
    seeds: dict[str, int] = {}
    for method, seed in sorted(results, key=lambda key: results[key].records[-1]["val_loss"]):
        seeds.setdefault(method, seed)
    return seeds


def train(
    cells: Mapping[str, AnyGenotype], config: ConfigDict, folder: Path, trainings: Sequence[int]
) -> dict[str, Accuracies]:
    """Trains cells from scratch with some of `TRAININGS`, numbered from 1, and returns the test accuracies of each.

    Raises:
      ValueError, OSError, loop.Stopped: as `evaluate`.
    """
    training, data = compare.training_config(config), other_images(config)
    training.num_examples = 0
    found: dict[str, Accuracies] = {name: [] for name in cells}
    for number in trainings:
        training.weights.learning_rate, training.weights.weight_decay = TRAININGS[number - 1]
        place, space = folder / f"training_{number}", settings.space_of(config)
        for name, row in pdx.evaluate(cells, training, place, space=space, data=data).items():
            found[name].append(row["accuracy"])
    return found


def make_table(results: Mapping[tuple[str, str], Accuracies]) -> str:
    """A row for each benchmark and method; a training that diverged is in neither the mean nor the best."""
    rows = []
    for (benchmark, name), accuracies in results.items():
        reached = [100 * accuracy for accuracy in accuracies if accuracy is not None]
        numbers = [f"{np.mean(reached):.2f}", f"{max(reached):.2f}"] if reached else ["diverged", "diverged"]
        rows.append([benchmark, f"`{name}`", *numbers, f"{len(reached)} of {len(accuracies)}"])
    return markdown.table(["benchmark", "method", "mean accuracy, %", "best accuracy, %", "trainings"], rows)


def run(arguments: argparse.Namespace) -> dict[tuple[str, str], Accuracies]:
    """Runs the missing searches and trainings; returns the accuracies of each benchmark and method.

    Raises:
      ValueError, OSError, loop.Stopped: as `search.run`.
    """
    fields = family.parse_fields(arguments.set)
    results: dict[tuple[str, str], Accuracies] = {}
    for benchmark in arguments.benchmarks:
        folder = arguments.workdir / benchmark
        config = family.with_fields(make_config(benchmark, arguments.data_dir), fields)
        found = family.run(config, arguments.methods, folder, arguments.seeds)
        cells, names = {}, {}
        for method, seed in chosen(found).items():
            names[method] = family.workdir(folder, method, seed).name
            cells[names[method]] = found[method, seed].genotype
        accuracies = train(cells, config, folder, arguments.trainings) if cells else {}
        for method in arguments.methods:
            results[benchmark, method] = accuracies[names[method]] if method in names else []
    return results


def main() -> None:
    """Runs what is missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--benchmarks", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="only these")
    parser.add_argument("--methods", nargs="+", default=("darts",), help="NAME or NAME:FIELD=VALUE,...: only these")
    numbers = range(1, len(TRAININGS) + 1)
    parser.add_argument("--trainings", nargs="+", type=int, choices=numbers, default=numbers, help="only these")
    arguments = parser.parse_args()
    devices.use_every_core()
    with family.exit_if_refused():
        results = run(arguments)
    text = make_table(results)
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
