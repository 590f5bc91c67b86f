"""One figure of the paper's message: conditioning and speed against the share of skip connections and the depth.

It reads the draws of the claims skips_faster and depth_slower from the folder of a run of the theory lab.

    python experiments/theory_figure.py --workdir=runs/theory --out=figure.png
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from prdarts_jax.theory import job, model

INFINITE = "infinite width"
NAMES = {"conditioning": "ln (lambda_min / lambda_max)", "speed": "log10 F(0) / F(steps)"}


def read(workdir: Path, measure: str) -> list[tuple[dict, dict[str, np.ndarray]]]:
    """[(sizes, draws)] of all measurements of a function that are in a folder."""
    return [
        (job.read_sizes(path), job.read_draws(path)) for path in sorted((workdir / "draws" / measure).glob("*.npz"))
    ]


def curves(found: list, activation: str, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{label: (x, draws f[draws, x])}: the finite widths together for each number of nodes, and the infinite width."""
    result: dict[str, list[np.ndarray]] = {}
    for sizes, draws in found:
        if sizes["activation"] == activation:
            nodes = f"h = {sizes['nodes']}" if "nodes" in sizes else ""
            result.setdefault(nodes or "finite width", []).append(draws[name])
            if name == "conditioning":
                result.setdefault(", ".join(filter(None, [nodes, INFINITE])), []).append(draws["infinite"])
            x = np.array(sizes.get("shares") or sizes["depths"])
    return {label: (x, np.concatenate(rows)) for label, rows in sorted(result.items())}


def make_figure(workdir: Path) -> Figure:
    """A row for each quantity and abscissa, a column for each activation; means with 95 % of the draws' mean, and the
    infinite width as a dashed line."""
    sources = {"share of skip connections": read(workdir, "share"), "number of nodes h": read(workdir, "depth")}
    there = {sizes["activation"] for found in sources.values() for sizes, _ in found}
    activations = [name for name in model.ACTIVATIONS if name in there]
    figure = Figure(figsize=(3.6 * len(activations) + 1, 11), layout="constrained")
    panels = figure.subplots(4, len(activations), squeeze=False, sharey="row")
    rows = [(label, found, name) for label, found in sources.items() for name in NAMES]
    for row, (label, found, name) in enumerate(rows):
        for panel, activation in zip(panels[row], activations, strict=True):
            lines = curves(found, activation, name)
            solid = [key for key in lines if INFINITE not in key]
            for key, (x, draws) in lines.items():
                dashed = INFINITE in key
                colour = f"C{solid.index(key.removesuffix(f', {INFINITE}')) if len(solid) > 1 else 0}"
                mean, error = draws.mean(0), 1.96 * draws.std(0, ddof=1) / len(draws) ** 0.5
                panel.plot(x, mean, "--" if dashed else "o-", color=colour, label=key, markersize=3)
                if not dashed:
                    panel.fill_between(x, mean - error, mean + error, color=colour, alpha=0.25)
            panel.set_xlabel(label)
            if row == 0:
                panel.set_title(activation)
        panels[row][0].set_ylabel(NAMES[name])
        panels[row][-1].legend(fontsize=7)
    return figure


def main() -> None:
    """Draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a run of the theory lab")
    parser.add_argument("--out", type=Path, default=Path("figure.png"), help="the picture")
    arguments = parser.parse_args()
    make_figure(arguments.workdir).savefig(arguments.out, dpi=100)
    print(arguments.out)


if __name__ == "__main__":
    main()
