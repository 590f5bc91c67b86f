"""The methods that the comparisons put side by side, and how they run, tabulate and draw them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax.run import loop, reporting, search, settings
from prdarts_jax.spaces import genotypes

SEEDS = (0, 1, 2)

# What each method sets, beside the settings that all share.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "DARTS": {"method": "darts"},
    "DARTS, second order": {"method": "darts", "darts.second_order": True},
    "PR-DARTS": {"method": "pr_darts"},
    "PR-DARTS, gates only": {"method": "pr_darts", "pr_darts.parts": "gates"},
    "PR-DARTS, path only": {"method": "pr_darts", "pr_darts.parts": "path"},
    "PR-DARTS, released": {
        "method": "pr_darts",
        "pr_darts.form": "released",
        "pr_darts.start_temperature": 1.0,
        "weights.nesterov": True,
        "weights.weight_decay": 5e-4,
    },
    "Lambda-DARTS": {"method": "lambda_darts"},
    "Lambda-DARTS, signcorr": {"method": "lambda_darts", "lambda_darts.variant": "signcorr"},
    "Fair DARTS": {"method": "fair_darts"},
    "P-DARTS": {"method": "p_darts"},
    "R-DARTS, L2": {"method": "r_darts", "weights.weight_decay": 27e-4},
    "R-DARTS, drop-path": {"method": "r_darts", "r_darts.drop_path": 0.2},
    "PC-DARTS": {"method": "pc_darts"},
    "GDAS": {"method": "gdas"},
    "random search": {"method": "random_search"},
    "REINFORCE": {"method": "reinforce"},
}


def small_config(space: str, data_dir: str) -> ConfigDict:
    """What the searches of all comparisons share: images of 16x16, C = 8, batch 32, logits that move fast."""
    config = settings.defaults()
    config.space = space
    config.data_dir = data_dir
    config.image_size = 16
    config.batch_size = 32
    config.steps_per_call = 20
    config.augmentation.pad = 2
    config.augmentation.cutout = 0
    config.channels = 8
    config.weights.end_learning_rate = 0.001
    config.logits.learning_rate = 1e-2
    config.r_darts.window = 2
    return config


class Result(NamedTuple):
    """Of one search: the records of its epochs, those of all stages, and the cell it found."""

    records: list[dict[str, Any]]
    genotype: genotypes.AnyGenotype


Results = dict[tuple[str, int], Result]  # by method or other variant, and seed


def workdir(folder: Path, name: str, seed: int) -> Path:
    """Where `run` puts a search."""
    return folder / f"{name.lower().replace(',', '').replace(' ', '_')}_seed_{seed}"


def run(
    base: ConfigDict, variants: Mapping[str, Mapping[str, Any]], folder: Path, seeds: Sequence[int] = SEEDS
) -> Results:
    """Runs the searches that are missing, each in a folder of its own, seed by seed.

    Args:
      base: the settings that all share.
      variants: what each sets beside them, by name; for instance some of `METHODS`.
      folder: where the folders go.
      seeds: of each method.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compilation_cache"))
    results = {}
    for seed in seeds:
        for name, fields in variants.items():
            config = ConfigDict(base.to_dict())
            config.seed = seed
            config.update_from_flattened_dict(fields)
            place = workdir(folder, name, seed)
            print(f"{name}, seed {seed}", flush=True)
            try:
                (genotype,) = search.run(config, place)
            except loop.Diverged as error:
                print(error)
                continue
            stages = (*sorted(place.glob("stage_*")), place)
            records = [record for stage in stages for record in reporting.read_records(stage)]
            results[name, seed] = Result(records, genotype)
            jax.clear_caches()  # compiled functions of one search are of no use to the next, but for those on disk
    return results


def of(results: Results, name: str) -> list[Result]:
    """Those of one method, by seed."""
    return [result for (method, _), result in results.items() if method == name]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """'mean ± standard deviation (value, value, ...)'; 'diverged' of none."""
    if not values:
        return "diverged"
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):{form}} ± {deviation:{form}} ({', '.join(f'{value:{form}}' for value in values)})"


def skips(genotype: genotypes.AnyGenotype) -> float:
    """Percent of skip connections in the cells."""
    return 100 * float(np.mean(list(genotypes.skip_share(genotype).values())))


def depth(genotype: genotypes.AnyGenotype) -> float:
    """Depth of the cells, their mean."""
    return float(np.mean(list(genotypes.depth(genotype).values())))


def trajectories(
    results: Results,
    names: Sequence[str],
    value: Callable[[Mapping[str, Any]], float],
    label: str,
    marks: Mapping[str, float],
    limits: tuple[float, float],
) -> Figure:
    """A panel a method, a line a seed, over the epochs (of all stages).

    Args:
      results: from `run`.
      names: of the panels.
      value: record -> number.
      label: of the vertical axis.
      marks: horizontal lines by name.
      limits: of the vertical axis.
    """
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=False, sharey=True, squeeze=False).ravel()
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for name, panel in zip(names, panels, strict=False):
        for seed in (seed for method, seed in results if method == name):
            values = [value(record) for record in results[name, seed].records]
            panel.plot(range(1, len(values) + 1), values, color=f"C{seed}", marker=".", label=f"seed {seed}")
        for style, (mark, height) in zip((":", "--", "-."), marks.items(), strict=False):
            panel.axhline(height, color="grey", linestyle=style, linewidth=1, label=mark)
        panel.set_title(name, fontsize=10)
        panel.set_ylim(limits)
    for panel in panels[: len(names)][-columns:]:
        panel.set_xlabel("epoch")
    figure.supylabel(label)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return figure
