"""The comparison of several seeds of one search: population.json, population.md, population.png.

A single search says little if another seed finds another cell. So the agreement of the seeds' cells is reported, and
for comparison the agreement of random cells.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.run import reporting, run_log, settings
from prdarts_jax.spaces import genotypes, reference_cells

_RANDOM_CELLS = 100


def write(config: ConfigDict, workdir: Path, found: Mapping[int, genotypes.AnyGenotype]) -> str:
    """Compares the searches of the seeds that have found a cell, and returns the comparison as Markdown.

    `found` is {seed: genotype}, with two or more seeds.
    """
    from prdarts_jax.run import plots  # not above, since matplotlib takes long to import

    space, generator = settings.space_of(config), np.random.default_rng(config.seed)
    drawn = [reference_cells.random(space, generator) for _ in range(_RANDOM_CELLS)]
    folders = settings.seed_folders(config, workdir)
    runs = [run_log.read_records(folders[seed - config.seed]) for seed in found]
    result = {
        "seeds": list(found),
        "agreement": agreement(list(found.values())),
        "agreement of random cells": agreement(drawn),
        "last epoch": spread([records[-1] for records in runs]),
    }
    reporting.write_json(workdir / "population.json", result)
    text = _text(result)
    reporting.write_bytes(workdir / "population.md", text.encode())
    reporting.save_figure(plots.diagnostics_figure(*runs), workdir / "population.png")
    return text


def agreement(cells: Sequence[genotypes.AnyGenotype]) -> dict[str, dict[str, float]]:
    """How much two cells have in common, a mean over all pairs of two or more cells: {cell type: {'edges', 'ops'}}.

    For two cells, 'edges' is the number of edges (source, target) that both have, divided by the number that at least
    one has; 'ops' is the same for (op, source, target). Both are from 0 to 1. Entries of the op `none` count as well.
    """
    result: dict[str, dict[str, float]] = {}
    for cell_type in genotypes.cells(cells[0]):
        ops = [set(genotypes.cells(genotype)[cell_type]) for genotype in cells]
        edges = [{(source, target) for _, source, target in entries} for entries in ops]
        result[cell_type] = {"edges": _shared(edges), "ops": _shared(ops)}
    return result


def _shared(sets: Sequence[set[Any]]) -> float:
    return float(np.mean([len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2)]))


def spread(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{name: {'mean', 'std', 'min', 'max'}} over the records, for each number that all of them have.

    A name is the path of the number in the record, such as 'skip_share/normal'. 'std' divides by n - 1.
    """
    numbers = [run_log.numbers(record) for record in records]
    result = {}
    for field in numbers[0]:
        values = np.array([of_run[field] for of_run in numbers if field in of_run])
        if len(values) == len(numbers) and field not in ("epoch", "step", "seconds"):
            found = {"mean": values.mean(), "std": values.std(ddof=1), "min": values.min(), "max": values.max()}
            result[field] = {name: float(value) for name, value in found.items()}
    return result


def _text(result):
    shares = []
    for cell_type, found in result["agreement"].items():
        drawn = result["agreement of random cells"][cell_type]
        shares.append([cell_type, *(f"{100 * of[part]:.0f} %" for of in (found, drawn) for part in ("edges", "ops"))])
    common = ["two cells have in common", "edges", "with their ops", "random cells: edges", "with their ops"]
    last = [
        [field, *(f"{of_field[name]:.4g}" for name in ("mean", "std", "min", "max"))]
        for field, of_field in result["last epoch"].items()
    ]
    return (
        f"{len(result['seeds'])} seeds: {', '.join(map(str, result['seeds']))}.\n\n"
        + markdown.table(common, shares)
        + "\n"
        + markdown.table(["in the last epoch", "mean", "standard deviation", "from", "to"], last)
    )
