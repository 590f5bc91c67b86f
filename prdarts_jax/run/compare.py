"""Found cells trained from scratch and compared with random cells, DARTS's own and that of skip connections alone.

The folder of the search then has evaluation/, with a folder for each cell (see `evaluate`), and comparison.json,
comparison.md and comparison.png, which compare the test accuracies. Found cells are named `found`, or with several
seeds `found_3`. If `config.discretization` is not 'own', its value is in the name, as in `found_perturbation_3`.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.data.source import DataSet
from prdarts_jax.nets import costs
from prdarts_jax.run import cost_target, evaluate, lock, report, reporting, settings, validation
from prdarts_jax.spaces import genotypes, reference_cells


def training_config(config: ConfigDict) -> ConfigDict:
    """The config for training the cells: the section `evaluation` of a search's config, with its images and seed."""
    result = settings.training()
    for field in (*settings.OF_IMAGES, "seed"):
        result[field] = config[field]
    own = ("random_cells", "trainings")
    result.update({field: value for field, value in config.evaluation.items() if field not in own})
    return result


def check(config: ConfigDict, data: DataSet | None = None) -> None:
    """Refuses a search whose cells could not be trained afterwards.

    Args:
      config: of the search.
      data: its images; by default those that the config names.

    Raises:
      ValueError, OSError: as `evaluate.prepare`.
    """
    validation.validate(config, "search")
    space = settings.space_of(config)
    cell = reference_cells.random(space, np.random.default_rng(config.seed))
    evaluate.prepare({"random": cell}, training_config(config), space, config.evaluation.trainings, "evaluation.", data)


@lock.alone
def run(
    config: ConfigDict, workdir: Path, found: Mapping[int, genotypes.AnyGenotype], data: DataSet | None = None
) -> str:
    """Trains the cells that are not yet trained, all in the same way, and compares them.

    Args:
      config: of the search.
      workdir: of the search.
      found: the result of `search.run`.
      data: as for `check`.

    Returns:
      The comparison as a table in Markdown.

    Raises:
      ValueError, OSError, loop.Stopped: as `evaluate.evaluate`.
    """
    from prdarts_jax.run import plots  # not above, since matplotlib takes long to import

    space = settings.space_of(config)
    way = "found" if config.discretization == "own" else f"found_{config.discretization}"
    cells = {f"{way}_{seed}" if config.seeds > 1 else way: cell for seed, cell in found.items()}
    cells |= reference(config)
    trainings = config.evaluation.trainings
    evaluation = evaluate.prepare(cells, training_config(config), space, trainings, "evaluation.", data)
    rows = evaluate.run(evaluation, workdir / "evaluation")
    of_ops = None
    if config.cost.target:
        of_ops = cost_target.costs_of(config, workdir, evaluation.feed.num_classes, evaluation.feed.image_shape[1:])
    for name, row in rows.items():
        if of_ops:
            row["cost"] = of_ops.of(cells[name])
        row["skip_share"] = float(np.mean(list(genotypes.skip_share(cells[name]).values())))
        row["depth"] = genotypes.depth(cells[name])
    reporting.write_json(workdir / "comparison.json", rows)
    # A cell that two seeds have found counts once.
    different = {(cells[name], name.partition("_")[0]): name for name in reversed(rows)}
    unit = costs.UNITS[config.cost.kind]
    text = _table(rows, unit) + "\n" + verdict({name: rows[name] for name in different.values()}) + "\n"
    reporting.write_bytes(workdir / "comparison.md", text.encode())
    trained = {name: row for name, row in rows.items() if row["accuracy"] is not None}
    cost = (unit, config.cost.target) if of_ops else None
    reporting.save_figure(plots.comparison_figure(trained, cost), workdir / "comparison.png")
    report.write(config, workdir)
    return text


def reference(config: ConfigDict) -> dict[str, genotypes.AnyGenotype]:
    """The cells that found cells are compared with, by name.

    They are `random_0`, ... (`config.evaluation.random_cells` of them, drawn by `config.seed`) and, if the space has
    them, `darts_v2` (DARTS's second order cell) and `all_skip` (skip connections alone). A random cell without a path
    from input to output is drawn again: its network, which gives the same output for every image, would distort the
    mean of the random cells.
    """
    space, generator = settings.space_of(config), np.random.default_rng(config.seed)
    cells: dict[str, genotypes.AnyGenotype] = {}
    while len(cells) < config.evaluation.random_cells:
        cell = reference_cells.random(space, generator)
        if all(genotypes.depth(cell).values()):
            cells[f"random_{len(cells)}"] = cell
    with contextlib.suppress(ValueError):
        space.encode(genotypes.named("DARTS_V2"))
        cells["darts_v2"] = genotypes.named("DARTS_V2")
    with contextlib.suppress(ValueError):  # S1 and S4 have no such cell
        cells["all_skip"] = reference_cells.all_skip(space)
    return cells


def _table(rows: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """`unit` is of the costs, if the rows have them."""
    head = ["", "cell", "test accuracy", "weights", "multiply-adds", "skips", "depth"]
    head += [f"cost ({unit})"] if any("cost" in row for row in rows.values()) else []
    lines = []
    for name, row in rows.items():
        trained = "diverged"
        if row["accuracy"] is not None:
            trained = f"{100 * row['accuracy']:.2f} ± {100 * row['standard_error']:.2f} %"
        line = [row["rank"] or "", name, trained, f"{row['params']:,}", f"{row['macs']:,}"]
        line += [f"{100 * row['skip_share']:.0f} %", ", ".join(map(str, row["depth"].values()))]
        line += [f"{row['cost']:{',.0f' if row['cost'] >= 1e4 else '.4g'}}"] if "cost" in row else []
        lines.append(line)
    return markdown.table(head, lines)


def verdict(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence that says whether found cells are better than random cells, with the numbers behind it.

    If 0 is in the 95 % interval of the difference of the means (see `difference`), the cells cannot be told apart.

    Args:
      rows: name -> {'accuracy': a fraction, or None if a training diverged, ...}. Names of found cells, which must all
        be different, begin with 'found', names of random cells with 'random_'; other rows are ignored.

    >>> accuracies = {"found": 0.95, "random_0": 0.91, "random_1": 0.93}
    >>> rows = {name: {"accuracy": accuracy} for name, accuracy in accuracies.items()}
    >>> print(verdict(rows))  # doctest: +NORMALIZE_WHITESPACE
    The found cell (95.00 %) cannot be told apart from random cells (92.00 %).
    Difference 3.00, standard error 1.73, 95 % interval -19.01 to 25.01.
    """
    kinds = [[row["accuracy"] for name, row in rows.items() if name.startswith(of)] for of in ("found", "random_")]
    found, drawn = ([100 * accuracy for accuracy in kind if accuracy is not None] for kind in kinds)
    lost = [f"{kind.count(None)} {of}" for of, kind in zip(("found", "random"), kinds, strict=True) if None in kind]
    left_out = f" Left out, since their training diverged: {' and '.join(lost)}." if lost else ""
    if not found or len(drawn) < 2:
        return f"Too few cells were trained to compare found ones with random ones.{left_out}"
    mean, error, half = difference(found, drawn)
    if abs(mean) <= half:
        how = "cannot be told apart from"
    else:
        how = ("is" if len(found) == 1 else "are") + (" better" if mean > 0 else " worse") + " than"
    who = "The found cell" if len(found) == 1 else f"The {len(found)} different found cells"
    means = [f"({np.mean(accuracies):.2f} %)" for accuracies in (found, drawn)]
    return (
        f"{who} {means[0]} {how} random cells {means[1]}. Difference {mean:.2f}, standard error {error:.2f}, "
        f"95 % interval {mean - half:.2f} to {mean + half:.2f}.{left_out}"
    )


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The difference of the means of two samples, its standard error, and half of its 95 % interval, by Welch's t.

    The `second` has at least two numbers. If the `first` has only one, it is taken to have the same variance.
    """
    parts = [(np.var(sample, ddof=1) / len(sample), len(sample) - 1) for sample in (first, second) if len(sample) > 1]
    if len(first) == 1:
        parts = [(part * (len(second) + 1), freedom) for part, freedom in parts]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / freedom for part, freedom in parts) if variance else np.inf
    error = math.sqrt(variance)
    return float(np.mean(first) - np.mean(second)), error, float(scipy.stats.t.ppf(0.975, freedom) * error)
