"""Do cells with more skip connections train faster? Fig. 2 of PR-DARTS.

The networks are eight stacked cells of DARTS's form with separable 3x3 convolutions, of which none, three or five of
eight (37.5 %, 62.5 %) are replaced at random by skip connections, in the normal and in the reduction cell. A draw
decides the inputs of the nodes and the order in which ops are replaced, so the three networks of a draw are nested;
there are three draws. The authors train on all of CIFAR-10. Here 3,200 of its images, averaged down to 16x16, are used
for 8 epochs of batch 64, and the digits for 12 epochs, with C = 8, the schedule of the papers and no drop-path.

    python experiments/skip_fraction.py --data_dir=DIR --workdir=runs/skip_fraction

It takes 35 minutes on two cores, with another experiment running beside it, and may be stopped and started again. It
writes a run folder for each training, table.md and skips.png.
"""

import argparse
from pathlib import Path

import family
import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.run import run_log, settings, train
from prdarts_jax.spaces import genotypes

SKIPS = (0, 3, 5)  # of the eight ops of a cell
DRAWS = (0, 1, 2)
DATASETS = {
    "cifar10": {"image_size": 16, "num_examples": 3200, "epochs": 8},
    "digits": {"image_size": 0, "num_examples": 0, "epochs": 12},
}


def genotype(draw: int, skips: int) -> genotypes.Genotype:
    """The genotype of a draw with `skips` skip connections in each cell."""
    generator = np.random.default_rng(draw)
    cells = {}
    for cell_type in ("normal", "reduce"):
        inputs = [int(source) for node in range(2, 6) for source in sorted(generator.choice(node, 2, replace=False))]
        replaced = generator.permutation(8)[:skips]
        ops = ["skip_connect" if entry in replaced else "sep_conv_3x3" for entry in range(8)]
        cells[cell_type] = tuple(zip(ops, inputs, strict=True))
        cells[f"{cell_type}_concat"] = (2, 3, 4, 5)
    return genotypes.Genotype(**cells)


def make_config(dataset: str, draw: int, skips: int, data_dir: str) -> ConfigDict:
    """The config of one training."""
    config = settings.training()
    config.update(DATASETS[dataset])
    config.dataset = dataset
    config.data_dir = data_dir
    config.genotype = genotypes.to_json(genotype(draw, skips))
    config.seed = draw
    config.channels = 8
    config.cells = 8
    config.drop_path = 0.0
    config.batch_size = 64
    config.augmentation.update(pad=2 if dataset == "cifar10" else 1, flip=dataset == "cifar10", cutout=0)
    return config


def losses(workdir: Path) -> np.ndarray:
    """The training loss of every epoch."""
    return np.array([record["train_loss"] for record in run_log.read_records(workdir)])


def make_table(found: dict[str, dict[int, np.ndarray]]) -> str:
    """Losses in the middle and at the end, and by how much they are lower than those without skip connections."""
    faster_by = "lower than without skips (mean over draws of the difference in the mean of log loss over the epochs, "
    head = ["data", "skip connections", "loss, half of the epochs", "loss, last epoch", faster_by + "95 % interval)"]
    rows = []
    for dataset, curves in found.items():
        for skips, runs in curves.items():
            ends = (runs[:, runs.shape[1] // 2 - 1], runs[:, -1])
            faster, error = family.interval((np.log(curves[0]) - np.log(runs)).mean(1))
            losses_of = [f"{loss.mean():.3f} ± {loss.std(ddof=1):.3f}" for loss in ends]
            rows.append([dataset, f"{100 * skips / 8:g} %", *losses_of, f"{faster:+.3f} ± {error:.3f}"])
    return markdown.table(head, rows)


def draw_figure(found: dict[str, dict[int, np.ndarray]]) -> Figure:
    """A panel for each data set, with the mean loss and the range of the draws."""
    figure = Figure(figsize=(5 * len(found), 3.8), layout="constrained")
    for (dataset, curves), panel in zip(found.items(), np.ravel(figure.subplots(1, len(found))), strict=True):
        for number, (skips, runs) in enumerate(curves.items()):
            epochs = range(1, runs.shape[1] + 1)
            panel.plot(epochs, runs.mean(0), color=f"C{number}", label=f"{100 * skips / 8:g} % skip connections")
            panel.fill_between(epochs, runs.min(0), runs.max(0), color=f"C{number}", alpha=0.2)
        panel.set(title=dataset, xlabel="epoch", ylabel="training loss, mean and range of draws", yscale="log")
        panel.yaxis.set_major_formatter(LogFormatter())
        panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        panel.legend()
    return figure


def main() -> None:
    """Runs the missing trainings, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="", help="where TFDS keeps cifar10")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the results")
    parser.add_argument("--draws", nargs="+", type=int, default=DRAWS, help="only these")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for all trainings")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS), help="only these")
    arguments = parser.parse_args()
    family.use_compilation_cache(arguments.workdir)
    found: dict[str, dict[int, np.ndarray]] = {}
    with family.exit_if_refused():
        fields = family.parse_fields(arguments.set)
        for dataset in arguments.datasets:
            runs: dict[int, list[np.ndarray]] = {skips: [] for skips in SKIPS}
            for draw in arguments.draws:
                for skips in SKIPS:
                    print(f"{dataset}, draw {draw}, {skips} of 8 ops are skip connections", flush=True)
                    workdir = arguments.workdir / f"{dataset}_draw_{draw}_skips_{skips}"
                    config = make_config(dataset, draw, skips, arguments.data_dir)
                    train.run(family.with_fields(config, fields), workdir)
                    runs[skips].append(losses(workdir))
                    jax.clear_caches()
            found[dataset] = {skips: np.array(curves) for skips, curves in runs.items()}
    text = make_table(found)
    (arguments.workdir / "table.md").write_text(text)
    draw_figure(found).savefig(arguments.workdir / "skips.png")
    print(text)


if __name__ == "__main__":
    main()
