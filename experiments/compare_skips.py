"""Does PR-DARTS pick fewer skip connections than DARTS? Small searches on real CIFAR-10, three seeds each.

Both methods search on the same images, halves, network and schedule: 4,000 images averaged down to 16x16, C = 8, five
cells, batch 64, 12 epochs of 31 steps, PR-DARTS in the paper's form. The logits' learning rate is ten times the
papers', since the search is about a hundred times shorter. Takes 30 to 60 minutes on two cores; may be stopped
and started again.

    python experiments/compare_skips.py --data_dir=DIR --workdir=runs/compare_skips

Writes a run folder a search, table.md and skips.png.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax import reporting, settings
from prdarts_jax.jobs import loop, search

SEEDS = (0, 1, 2)
METHODS = ("DARTS", "PR-DARTS")


def make_config(method: str, seed: int, data_dir: str) -> ConfigDict:
    """The same search for every method."""
    config = settings.defaults()
    config.data_dir = data_dir
    config.image_size = 16
    config.num_examples = 4000
    config.seed = seed
    config.epochs = 12
    config.batch_size = 64
    config.steps_per_call = 10
    config.augmentation.pad = 2
    config.augmentation.cutout = 0
    config.channels = 8
    config.pr_darts.distinct_inputs = True  # as in the rule of DARTS
    config.cells = 5
    config.logits.learning_rate = 3e-3
    config.method = {"DARTS": "darts", "PR-DARTS": "pr_darts"}[method]
    return config


def run(folder: Path, data_dir: str) -> None:
    """Runs the searches that are missing, and writes the table and the plot."""
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compilation_cache"))
    records = {}
    for seed in SEEDS:
        for method in METHODS:
            workdir = folder / f"{method.lower().replace(' ', '_')}_seed_{seed}"
            print(f"{method}, seed {seed}")
            search.run(make_config(method, seed, data_dir), workdir)
            records[method, seed] = reporting.read_records(workdir)
    (folder / "table.md").write_text(_table(records))
    _plot(records).savefig(folder / "skips.png")
    print(_table(records))


def _skips(record):
    return np.mean(list(record["skip_share"].values()))


def _activation(record):
    return np.mean([groups["all"] for groups in record["activation"].values()])


def _table(records):
    lines = [
        "| method | seed | skips, normal | skips, reduce | mean activation, first / last epoch | accuracy | normal |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for (method, seed), epochs in records.items():
        last, skips = epochs[-1], epochs[-1]["skip_share"]
        cell = " ".join(f"{op}:{source}" for op, source in last["genotype"]["normal"])
        lines.append(
            f"| {method} | {seed} | {skips['normal']:.3f} | {skips['reduce']:.3f} | {_activation(epochs[0]):.3f} / "
            f"{_activation(last):.3f} | {100 * last['val_accuracy']:.1f} % | {cell} |"
        )
    for method in METHODS:
        last = [records[method, seed][-1] for seed in SEEDS]
        skips = [_skips(record) for record in last]
        lines.append(f"\n{method}: share of skips {np.mean(skips):.3f} (seeds: {', '.join(f'{s:.3f}' for s in skips)})")
    return "\n".join(lines) + "\n"


def _plot(records):
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, method in enumerate(METHODS):
        for seed in SEEDS:
            epochs = records[method, seed]
            style = {"color": f"C{i}", "label": method if seed == SEEDS[0] else None, "alpha": 0.8}
            left.plot([r["epoch"] for r in epochs], [_skips(r) for r in epochs], **style)
            right.plot([r["epoch"] for r in epochs], [_activation(r) for r in epochs], **style)
    left.set(xlabel="epoch", ylabel="share of skips in the derived cells", ylim=(0, 1))
    right.set(xlabel="epoch", ylabel="mean activation probability", ylim=(0, 1.05))
    left.legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="", help="where TFDS keeps cifar10")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args()
    try:
        run(arguments.workdir, arguments.data_dir)
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")
