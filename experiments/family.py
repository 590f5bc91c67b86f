"""Functions that the experiments share: configs from a line of text; running, tabulating and drawing searches.

The searches that a comparison compares are called variants. A variant is NAME, one of `methods.NAMED`, a FILE.toml, or
NAME:FIELD=VALUE,..., where a field is one of the method's settings or, with a dot, any other field of the config.
"""

import argparse
import ast
import contextlib
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import kept
import numpy as np
import scipy.stats
from flax.traverse_util import flatten_dict, unflatten_dict
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.fields import check_names
from prdarts_jax.run import architecture, checkpoints, loop, run_log, search, settings, validation
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes

SEEDS = (0, 1, 2)
VARIANTS = (
    *methods.NAMED,
    "darts:second_order=True",
    "lambda_darts:variant=signcorr",
    "r_darts:drop_path=0.2,weights.weight_decay=3e-4",  # drop-path instead of weight decay
)

# The settings of a method's paper that a comparison uses: those that regularise are a part of the method.
_REGULARISING = ("weights.weight_decay", "weights.nesterov", "logits.weight_decay")


def read_config(text: str) -> ConfigDict:
    """The config that the package's flag `--config` names: a file of configs/, or FILE:METHOD."""
    path, _, method = text.partition(":")
    return runpy.run_path(path)["get_config"](*filter(None, [method]))


def parse_fields(text: str) -> dict[str, Any]:
    """Turns 'epochs=1,p_darts.cells=(1, 2),space=s2' into {'epochs': 1, 'p_darts.cells': (1, 2), 'space': 's2'}.

    Raises:
      ValueError: an entry has no value.
    """
    fields: dict[str, Any] = {}
    for entry in re.split(r",(?=[\w.]+=)", text) if text else ():
        name, equals, value = entry.partition("=")
        if not equals:
            raise ValueError(f"{entry!r} must have the form FIELD=VALUE")
        try:
            fields[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fields[name] = value
    return fields


def with_fields(base: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A config with some fields replaced.

    Raises:
      ValueError: there is no such field.
    """
    known = flatten_dict(base.to_dict(), sep=".")
    check_names(fields, known, "this config")
    return ConfigDict(unflatten_dict(known | fields, sep="."))


def variant(base: ConfigDict, text: str) -> ConfigDict:
    """The config of a variant (see the module): the settings that all share, with those of the variant.

    Raises:
      ValueError: there is no such method or field, or the field may not have this value.
    """
    name, _, given = text.partition(":")
    regularising = {field: value for field, value in methods.find(name).paper.items() if field in _REGULARISING}
    own = {field if "." in field else f"{name}.{field}": value for field, value in parse_fields(given).items()}
    config = with_fields(base, {"method": name} | regularising | own)
    validation.validate(config)
    return config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of all comparisons."""
    parser.add_argument("--data_dir", default="", help="where TFDS keeps cifar10")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="only these")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for all runs")


def add_results(parser: argparse.ArgumentParser) -> None:
    """The flag of comparisons that need no more of a finished search than `kept` has; see `results_of`."""
    parser.add_argument(
        "--results", type=Path, help="folder of finished results, which are not run again; by default the workdir"
    )


def results_of(arguments: argparse.Namespace) -> Path:
    """The folder of finished results."""
    return arguments.results or arguments.workdir


@contextlib.contextmanager
def exit_if_refused() -> Iterator[None]:
    """Ends the script with one sentence if an argument, a config or a file is refused, or a run is stopped."""
    try:
        yield
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")


def small_config(space: str, data_dir: str, distinct_inputs: bool = False) -> ConfigDict:
    """The settings of all comparisons: images of 16x16, C = 8, batch 32, a large learning rate of the logits.

    Without `distinct_inputs` the forms of PR-DARTS derive their cells as the paper's text allows: both ops of a node
    may be on the same edge.
    """
    config = settings.search()
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
    config.r_darts.update({"window": 2, "start": 0})  # for searches of a few epochs
    for name, method in methods.NAMED.items():
        if "distinct_inputs" in method.schema:
            config[name].distinct_inputs = distinct_inputs
    return config


Results = dict[tuple[str, int], kept.Search]  # by variant and seed


def workdir(folder: Path, name: str, seed: int) -> Path:
    """The folder in which `run` puts a search."""
    name = Path(name).stem if name.endswith(".toml") else name
    return folder / f"{re.sub(r'[^a-zA-Z0-9.]+', '_', name)}_seed_{seed}"


def use_compilation_cache(folder: Path) -> None:
    """Lets JAX keep compiled functions in the folder, unless JAX_COMPILATION_CACHE_DIR names another one."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compilation_cache"))


def run(
    base: ConfigDict,
    variants: Sequence[str],
    folder: Path,
    seeds: Sequence[int] = SEEDS,
    results: Path | None = None,
) -> Results:
    """Runs the missing searches, each in a folder of its own, seed by seed.

    Args:
      base: the settings that all share.
      variants: the variants to compare; see the module.
      folder: of all results.
      seeds: of each variant.
      results: if given, the folder of results (see `kept`); what is there is not run again.

    Returns:
      The results of the searches that did not diverge.

    Raises:
      ValueError, OSError, loop.Stopped: as `search.run`; ValueError also if `base` has several seeds, or `results` a
        search of other settings.
    """
    if base.seeds != 1:
        raise ValueError(f"config.seeds={base.seeds} must be 1: the seeds of a comparison are those of --seeds")
    use_compilation_cache(folder)
    configs = {name: variant(base, name) for name in variants}
    searches = {(name, seed): with_fields(configs[name], {"seed": seed}) for seed in seeds for name in variants}
    paths = {key: results / f"{workdir(folder, *key).name}.jsonl" for key in searches} if results else {}
    known = {key: kept.read_search(paths[key], searches[key]) for key in paths}  # all are checked before one is run
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for key, config in searches.items():
        if not (of_search := known.get(key)):
            print("{}, seed {}".format(*key), flush=True)
            place, genotype = workdir(folder, *key), None
            try:
                genotype = search.run(config, place)[config.seed]
            except loop.Diverged as error:
                print(error)
            of_search = _read_run(place, genotype)
            if paths:
                kept.write_search(paths[key], config, of_search)
            jax.clear_caches()  # the next search has no use for functions in memory, only for those on disk
        if of_search.genotype:
            found[key] = of_search
    return found


def _read_run(folder, genotype):
    """What the folder of a search has, in the form that is kept."""
    stages = (*sorted(folder.glob("stage_*")), folder)
    records = [record for stage in stages for record in run_log.read_records(stage)]
    if not genotype:
        return kept.Search(records, None)
    last = architecture.read_logits(folder, run_log.read_records(folder)[-1]["epoch"])
    logits = {cell_type: of_type.tolist() for cell_type, of_type in last.items()}
    return kept.Search(records, genotype, json.loads((folder / "doubts.json").read_bytes()), logits)


def check_results(path: Path, fields: Mapping[str, Any]) -> None:
    """Refuses a file of results that is of other settings than `fields`: config.json beside it has its own.

    Raises:
      ValueError: naming the settings that differ, or saying that there is no config.json.
    """
    checkpoints.check_config(path.parent, fields)
    if path.exists() and not (path.parent / "config.json").exists():
        raise ValueError(
            f"{path} has no config.json beside it, which says of which settings it is: use another --workdir"
        )


def seeds_of(results: Path, name: str) -> list[int]:
    """The seeds of a variant of which the folder of results has the search."""
    stem = workdir(results, name, 0).name.removesuffix("0")
    return sorted(int(path.stem.removeprefix(stem)) for path in results.glob(f"{stem}*.jsonl"))


def of(results: Results, name: str) -> list[kept.Search]:
    """The results of one variant, in the order of the seeds."""
    return [results[key] for key in sorted(key for key in results if key[0] == name)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """'mean ± standard deviation (value, value, ...)'; a single value by itself; 'diverged' if there are none, and in
    place of each NaN, which mean and deviation leave out."""
    each = [f"{value:{form}}" if np.isfinite(value) else "diverged" for value in values]
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < 2:
        return ", ".join(each or ["diverged"])
    return f"{np.mean(finite):{form}} ± {np.std(finite, ddof=1):{form}} ({', '.join(each)})"


def interval(values: Sequence[float], comparisons: int = 1) -> tuple[float, float]:
    """The mean, and the half width of its t interval: so wide that `comparisons` such intervals hold together with 95 %
    (Bonferroni); infinite for a single value."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return mean, np.inf
    return mean, float(scipy.stats.t.ppf(1 - 0.025 / comparisons, n - 1) * scipy.stats.sem(values))


def beside(samples: Mapping[str, Sequence[float]], control: str, label: str) -> str:
    """A table with a row for each sample but one, the control: by how much its mean is larger, and whether this can be
    told. The intervals are those of Dunnett's test, which hold together with 95 % if all spreads are alike.

    Args:
      samples: of independent values; those that are not finite are left out.
      control: the name of the sample that all others are compared with.
      label: what the values are.

    Returns:
      The table after an empty line, or '' if there is nothing to compare or no sample of two values to find a spread.
    """
    finite = {name: [value for value in sample if np.isfinite(value)] for name, sample in samples.items()}
    of_control = finite.pop(control)
    others = {name: sample for name, sample in finite.items() if sample}
    if not of_control or not others or max(map(len, [of_control, *others.values()])) == 1:
        return ""
    test = scipy.stats.dunnett(*others.values(), control=of_control, rng=0)
    rows = []
    for name, low, high in zip(others, *test.confidence_interval(), strict=True):
        difference = f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}"
        rows.append([f"`{name}`", difference, verdict(low, high)])
    return "\n" + markdown.table(["", f"{label} beside `{control}`", ""], rows)


def verdict(low: float, high: float) -> str:
    """What the ends of the interval of a difference say."""
    return "better" if low > 0 else "worse" if high < 0 else "cannot be told apart"


def skips(genotype: genotypes.AnyGenotype) -> float:
    """Percentage of skip connections in the cells."""
    return 100 * float(np.mean(list(genotypes.skip_share(genotype).values())))


# For `trajectories`: record -> number, label, limits.
SKIPS = (
    lambda record: 100 * record["skip_share"]["normal"],
    "skip connections in the derived cell, %",
    (-5, 105),
)


def depth(genotype: genotypes.AnyGenotype) -> float:
    """Mean depth of the cells."""
    return float(np.mean(list(genotypes.depth(genotype).values())))


def trajectories(
    results: Results,
    names: Sequence[str],
    value: Callable[[Mapping[str, Any]], float],
    label: str,
    marks: Mapping[str, float] = MappingProxyType({}),
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A panel for each variant, with a line for each seed, over the epochs of all stages.

    Args:
      results: from `run`.
      names: of the panels.
      value: record -> number.
      label: of the vertical axis.
      marks: horizontal lines by name.
      limits: of the vertical axis, by default those of the values and marks.
    """
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows + 1), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for name, panel in zip(names, panels, strict=False):
        for seed in (seed for found, seed in results if found == name):
            values = [value(record) for record in results[name, seed].records]
            panel.plot(range(1, len(values) + 1), values, color=f"C{seed}", marker=".", label=f"seed {seed}")
        for style, (mark, height) in zip((":", "--", "-."), marks.items(), strict=False):
            panel.axhline(height, color="grey", linestyle=style, linewidth=1, label=mark)
        panel.set_title(re.sub("([:,])", "\\1\n", name), fontsize=9)
    for panel in panels[: len(names)][-columns:]:
        panel.set_xlabel("epoch")
    if limits:
        panels[0].set_ylim(limits)
    figure.supylabel(label, fontsize=9)
    handles: dict[str, Any] = {}
    for panel in panels[: len(names)]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = sorted(handles, key=lambda label: (label in marks, len(label), label))  # seeds, then marks
    figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=2 * columns, fontsize=9)
    return figure
