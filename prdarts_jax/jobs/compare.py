"""What a found cell is worth: trained from scratch beside random cells and one of skip connections alone.

In the folder of the search, evaluation/ then has a folder a cell (see `train`), and comparison.json, comparison.md and
comparison.png put their test accuracies side by side.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import genotypes, reporting, settings, spaces
from prdarts_jax.jobs import train


def training_config(config: ConfigDict, genotype: genotypes.Genotype) -> ConfigDict:
    """The training of one cell, as the section `evaluation` of a search's config has it."""
    result = settings.training()
    for field in ("dataset", "data_dir", "image_size", "num_examples", "seed"):
        result[field] = config[field]
    result.update({field: value for field, value in config.evaluation.items() if field != "random_cells"})
    result.genotype = genotypes.to_json(genotype)
    return result


def run(config: ConfigDict, workdir: Path, found: genotypes.Genotype) -> str:
    """Trains the cells that are not yet trained, in the same way and with the same seed, and compares them.

    Args:
      config: of the search.
      workdir: of the search.
      found: the genotype it has found.

    Returns:
      The comparison as a table in Markdown.

    Raises:
      ValueError, OSError, loop.Stopped: as `train.run`.
    """
    space, generator = spaces.darts(), np.random.default_rng(config.seed)
    cells = {"found": found}
    cells |= {f"random_{i}": genotypes.random(space, generator) for i in range(config.evaluation.random_cells)}
    cells["all_skip"] = genotypes.all_skip(space)
    rows: dict[str, dict[str, Any]] = {}
    for name, genotype in cells.items():
        print(f"training {name}, {len(rows) + 1} of {len(cells)}")
        result = train.run(training_config(config, genotype), workdir / "evaluation" / name)
        shares = genotypes.skip_share(genotype)
        rows[name] = {
            "accuracy": result["top1"],
            "params": result["params"],
            "macs": result["macs"],
            "skip_share": (shares["normal"] + shares["reduce"]) / 2,
        }
    reporting.write_json(workdir / "comparison.json", rows)
    table = _table(rows)
    reporting.write_bytes(workdir / "comparison.md", table.encode())
    reporting.plot_comparison(rows, workdir / "comparison.png")
    return table


def _table(rows):
    lines = ["| cell | test accuracy | weights | multiply-adds | skips |", "|---|---|---|---|---|"]
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["accuracy"]):
        lines.append(
            f"| {name} | {100 * row['accuracy']:.2f} % | {row['params']:,} | {row['macs']:,} | "
            f"{100 * row['skip_share']:.0f} % |"
        )
    others = [row["accuracy"] for name, row in rows.items() if name.startswith("random_")]
    better = sum(rows["found"]["accuracy"] > accuracy for accuracy in others)
    equal = sum(rows["found"]["accuracy"] == accuracy for accuracy in others)
    verdict = f"The found cell is better than {better} of {len(others)} random cells"
    return "\n".join([*lines, "", f"{verdict}{f' and as good as {equal}' if equal else ''}."]) + "\n"
