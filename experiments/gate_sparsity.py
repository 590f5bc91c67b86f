"""Do gates become dense without sparsity terms? Fig. 4b of PR-DARTS's supplement, and a consequence of its Theorem 2.

PR-DARTS searches NAS-Bench-201's space with all of its regularisers, without each of them, and without any. The network
is that of compare_nasbench201.py, but a search has 800 steps: 6,400 images of real CIFAR-10 averaged down to 16x16,
C = 8, one cell per stage, batch 32, 8 epochs of 100 steps, three seeds. The outcome is the activation probability
P(g != 0) of each group of ops at a fixed temperature, that of the last epoch: the temperature falls during a search,
and this alone changes P.

    python experiments/gate_sparsity.py --data_dir=DIR --workdir=runs/gate_sparsity

A search takes about a minute on two cores; the script may be stopped and started again. It writes a run folder for each
search, table.md and sparsity.png.
"""

import argparse
from pathlib import Path

import compare_nasbench201
import family
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax import markdown, spaces
from prdarts_jax.run import architecture
from prdarts_jax.search import diagnostics, gates

VARIANTS = {
    "all": "pr_darts",
    "no skip": "pr_darts:lambda_skip=0.0",
    "no nonskip": "pr_darts:lambda_nonskip=0.0",
    "no path": "pr_darts:lambda_path=0.0",
    "none": "pr_darts:lambda_skip=0.0,lambda_nonskip=0.0,lambda_path=0.0",
    "sparsity tenfold": "pr_darts:lambda_skip=0.1,lambda_nonskip=0.05",
}
GROUPS = ("skip", "conv", "pool", "none", "all")


def make_config(data_dir: str) -> ConfigDict:
    """The settings that all searches share."""
    own = {"num_examples": 6400, "epochs": 8, "logits.learning_rate": 1e-2, "hessian": False}
    return family.with_fields(compare_nasbench201.make_config(data_dir, table=""), own)


def activation(workdir: Path, epochs: int, temperature: float) -> dict[str, np.ndarray]:
    """P(g != 0) of each group before the search, when all logits are 0.5, and after each epoch, at one temperature."""
    space = spaces.nas_bench_201()
    starts = {"normal": np.full(space.shape, 0.5, np.float32)}
    logits = [starts, *(architecture.read_logits(workdir, epoch) for epoch in range(epochs))]
    probabilities = [
        {"normal": np.asarray(gates.activation_probability(beta["normal"], temperature))} for beta in logits
    ]
    rows = [diagnostics.activation_by_group(space, probability)["normal"] for probability in probabilities]
    return {group: np.array([row[group] for row in rows]) for group in GROUPS}


def make_table(found: dict[str, list[dict[str, np.ndarray]]]) -> str:
    """The change of the activation probability over the search: its mean over the seeds, with a 95 % interval."""
    rows = []
    for name, runs in found.items():
        changes = (family.interval([run[group][-1] - run[group][0] for run in runs]) for group in GROUPS)
        rows.append([name, *(f"{mean:+.3f} ± {half:.3f}" for mean, half in changes)])
    return markdown.table(["regularisers", *GROUPS], rows)


def draw(found: dict[str, list[dict[str, np.ndarray]]]) -> Figure:
    """A panel for each group, with a line for each variant and the range of its seeds."""
    figure = Figure(figsize=(3 * len(GROUPS), 3.4), layout="constrained")
    panels = figure.subplots(1, len(GROUPS), sharey=True)
    for group, panel in zip(GROUPS, panels, strict=True):
        for number, (name, runs) in enumerate(found.items()):
            values = np.array([run[group] for run in runs])
            panel.plot(values.mean(0), color=f"C{number}", label=name)
            panel.fill_between(range(values.shape[1]), values.min(0), values.max(0), color=f"C{number}", alpha=0.15)
        panel.set(title=group, xlabel="epoch")
    panels[0].set_ylabel("P(g != 0)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(found), fontsize=9)
    return figure


def main() -> None:
    """Runs the missing searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="only these")
    arguments = parser.parse_args()
    variants = {name: VARIANTS[name] for name in arguments.variants}
    with family.exit_if_refused():
        config = family.with_fields(make_config(arguments.data_dir), family.parse_fields(arguments.set))
        results = family.run(config, list(variants.values()), arguments.workdir, arguments.seeds)
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for variant, seed in results:  # without the searches that diverged
        workdir = family.workdir(arguments.workdir, variant, seed)
        of_run = activation(workdir, config.epochs, config.pr_darts.end_temperature)
        found.setdefault(next(name for name in variants if variants[name] == variant), []).append(of_run)
    found = {name: found[name] for name in variants if name in found}
    text = make_table(found)
    (arguments.workdir / "table.md").write_text(text)
    draw(found).savefig(arguments.workdir / "sparsity.png")
    print(text)


if __name__ == "__main__":
    main()
