"""What a found cell is worth: trained from scratch beside random cells and one of skip connections alone.

In the folder of the search, evaluation/ then has a folder a cell (see `train`), and comparison.json, comparison.md and
comparison.png put their test accuracies side by side.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import spaces
from prdarts_jax.run import loop, reporting, settings, train
from prdarts_jax.spaces import genotypes, reference_cells


def training_config(config: ConfigDict, genotype: genotypes.AnyGenotype) -> ConfigDict:
    """The training of one cell, as the section `evaluation` of a search's config has it."""
    result = settings.training()
    for field in ("dataset", "data_dir", "image_size", "num_examples", "seed"):
        result[field] = config[field]
    result.update({field: value for field, value in config.evaluation.items() if field != "random_cells"})
    result.genotype = genotypes.to_json(genotype)
    return result


def check(config: ConfigDict) -> None:
    """Refuses what the trainings could not be run with; see `train.check`.

    Args:
      config: of the search, before it is run.
    """
    settings.validate(config)
    generator = np.random.default_rng(config.seed)
    train.check(training_config(config, reference_cells.random(spaces.named(config.space), generator)), "evaluation.")


def run(config: ConfigDict, workdir: Path, found: genotypes.AnyGenotype) -> str:
    """Trains the cells that are not yet trained, in the same way and with the same seed, and compares them.

    A cell whose training diverges is listed last, without an accuracy.

    Args:
      config: of the search.
      workdir: of the search.
      found: the genotype it has found.

    Returns:
      The comparison as a table in Markdown.

    Raises:
      ValueError, OSError, loop.Stopped: as `train.run`.
    """
    from prdarts_jax.run import plots  # not above, since matplotlib takes long to import

    space, generator = spaces.named(config.space), np.random.default_rng(config.seed)
    cells = {"found": found}
    cells |= {f"random_{i}": reference_cells.random(space, generator) for i in range(config.evaluation.random_cells)}
    with contextlib.suppress(ValueError):  # S1 and S4 have no such cell
        cells["all_skip"] = reference_cells.all_skip(space)
    rows: dict[str, dict[str, Any]] = {}
    for name, genotype in cells.items():
        reporting.say(f"training {name}, {len(rows) + 1} of {len(cells)}")
        try:
            result = train.run(training_config(config, genotype), workdir / "evaluation" / name)
        except loop.Diverged as error:
            reporting.say(str(error))
            result = {}
        shares = genotypes.skip_share(genotype)
        rows[name] = {
            "accuracy": result.get("top1"),
            "params": result.get("params"),
            "macs": result.get("macs"),
            "skip_share": (shares["normal"] + shares["reduce"]) / 2,
        }
    reporting.write_json(workdir / "comparison.json", rows)
    table = _table(rows)
    reporting.write_bytes(workdir / "comparison.md", table.encode())
    trained = {name: row for name, row in rows.items() if row["accuracy"] is not None}
    reporting.save_figure(plots.comparison_figure(trained), workdir / "comparison.png")
    return table


def _table(rows):
    lines = ["| cell | test accuracy | weights | multiply-adds | skips |", "|---|---|---|---|---|"]
    accuracies = {name: -1.0 if row["accuracy"] is None else row["accuracy"] for name, row in rows.items()}
    for name in sorted(rows, key=lambda name: -accuracies[name]):
        row = rows[name]
        if row["accuracy"] is None:
            trained = "diverged | |"
        else:
            trained = f"{100 * row['accuracy']:.2f} % | {row['params']:,} | {row['macs']:,}"
        lines.append(f"| {name} | {trained} | {100 * row['skip_share']:.0f} % |")
    others = [accuracy for name, accuracy in accuracies.items() if name.startswith("random_")]
    if others:
        better = sum(accuracies["found"] > accuracy for accuracy in others)
        equal = sum(accuracies["found"] == accuracy for accuracy in others)
        verdict = f"The found cell is better than {better} of {len(others)} random cells"
        lines += ["", f"{verdict}{f' and as good as {equal}' if equal else ''}."]
    return "\n".join(lines) + "\n"
