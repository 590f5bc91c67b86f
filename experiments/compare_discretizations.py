"""Three ways from one supernet to a cell: by the logits, by perturbation, and by the best of several drawn cells.

It takes finished searches in NAS-Bench-201, the run folders of compare_nasbench201.py, and lets each supernet choose
its cell again, as `--config.discretization=perturbation` and `best_of` do. The benchmark's own test accuracies of the
cells are compared in pairs with the same supernet.

    python experiments/compare_discretizations.py --runs runs/nasbench201/*_seed_* --table=FILE \
        --workdir=runs/discretizations

The runs are copied, never changed. It takes some minutes for each run and way on one core, and may be stopped and
started again. It writes a folder for each way with copies of the runs in it, and table.md. The folder --results, by
default the workdir, keeps the cells: without --runs the table is of all that are there.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import family
import jax
import numpy as np

from prdarts_jax import markdown
from prdarts_jax.run import architecture, checkpoints, reporting, run_log, search, settings
from prdarts_jax.spaces import genotypes, tabular

WAYS = ("perturbation", "best_of")


class Choice(NamedTuple):
    """A cell that was chosen, and its validation accuracy by the shared weights, in percent."""

    genotype: genotypes.AnyGenotype
    by_shared_weights: float


def choose(run: Path, folder: Path, fields: Mapping[str, object]) -> dict[str, Choice]:
    """Copies a finished run into a folder and lets it choose its cell with some fields of its config changed. A choice
    that is there is made again only if the fields or the run have changed.

    Returns:
      {'derived': the cell of the logits, 'chosen': the chosen one}.
    """
    there, records = checkpoints.read_config(run), run_log.read_records(run)
    if not (there and records and (run / "genotype.json").exists()):
        raise ValueError(f"{run} is not the folder of a finished search")
    if folder.resolve() == run.resolve():
        raise ValueError(f"{run} must not be in the --workdir, which gets copies of the runs")
    source, logits = folder / "choice.json", architecture.read_logits(run, records[-1]["epoch"])
    made_of = {"fields": dict(fields), "logits": checkpoints.fingerprint(logits)}
    if not source.exists() or reporting.read_json(source) != made_of:
        config = settings.search(there["method"])
        config.update({name: value for name, value in there.items() if name in config})
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("tensorboard", "evaluation"))
        search.run(family.with_fields(config, fields), folder)
        jax.clear_caches()
        reporting.write_json(source, made_of)
    return read(reporting.read_json(folder / "discretization.json"))


def read(choices: Mapping[str, Any]) -> dict[str, Choice]:
    """Both cells of a discretization.json, as `choose` returns them."""
    return {
        name: Choice(genotypes.from_json(json.dumps(of["genotype"])), 100 * of["val_accuracy"])
        for name, of in choices.items()
    }


def complete(results: Path) -> list[str]:
    """The names of the runs whose choices in every way are kept.

    Raises:
      ValueError: there are none.
    """
    names = set.intersection(*({path.stem for path in results.glob(f"{way}/*.json")} for way in WAYS))
    if not names:
        raise ValueError(f"{results} has no results: give finished searches to --runs")
    return sorted(names)


def keep(result: Path, run: Path | None, folder: Path, fields: Mapping[str, object]) -> dict[str, Choice]:
    """The choice that `choose` makes, kept in the file `result`; if the file is there, the run may be missing.

    Raises:
      ValueError, OSError, loop.Stopped: the file is of other settings or of another search, or as `choose`.
    """
    config = family.with_fields(settings.search(), fields)
    selection = {"discretization": config.discretization} | config.selection.to_dict()
    if not result.exists():
        assert run is not None  # else all files are there
        choose(run, folder, fields)
        reporting.write_json(result, {"settings": selection} | reporting.read_json(folder / "discretization.json"))
    there = reporting.read_json(result)
    if there.pop("settings") != selection:
        raise ValueError(f"{result} is of other settings of the selection: use another --results or the old values")
    if run and json.loads((run / "genotype.json").read_text()) != there["derived"]["genotype"]:
        raise ValueError(f"{result} is of another search: use another --results")
    return read(there)


def difference(pairs: Sequence[float]) -> str:
    """'mean ± standard error' of paired differences."""
    if len(pairs) < 2:
        return f"{np.mean(pairs):+.2f}"
    return f"{np.mean(pairs):+.2f} ± {np.std(pairs, ddof=1) / len(pairs) ** 0.5:.2f}"


def make_table(results: Mapping[tuple[str, int], Mapping[str, Choice]], table: tabular.Table) -> str:
    """True accuracies of the cells of each run, those by shared weights in brackets, and the mean differences."""
    rows = []
    gains: dict[str, list[list[float]]] = {}
    for (method, seed), choices in results.items():
        cells = [choices["derived"], *(choices[way] for way in WAYS)]
        true = [table.accuracy(cell.genotype) for cell in cells]
        entries = [f"{a:.2f} ({cell.by_shared_weights:.1f})" for a, cell in zip(true, cells, strict=True)]
        rows.append([f"`{method}`", seed, *entries])
        gains.setdefault(method, []).append([after - true[0] for after in true[1:]])
    means = [[f"`{name}`", len(of), *map(difference, zip(*of, strict=True))] for name, of in gains.items()]
    what = ["mean difference to the logits' cell ± standard error", "runs", "perturbation", "best of N"]
    head = ["method", "seed", "logits, %", "perturbation, %", "best of N, %"]
    return markdown.table(head, rows) + "\n" + markdown.table(what, means)


def main() -> None:
    """Makes the choices that are missing, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", type=Path, default=(), help="folders METHOD_seed_N of finished searches")
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the results")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance selection's")
    family.add_results(parser)
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    runs = {run.name: run for run in arguments.runs}
    results = {}
    with family.exit_if_refused():
        table = tabular.load(arguments.table)
        for dataset in {config["dataset"] for run in arguments.runs if (config := checkpoints.read_config(run))}:
            tabular.load(arguments.table, dataset)  # refuses a table of another data set
        family.use_compilation_cache(arguments.workdir)
        fields = family.parse_fields(arguments.set)
        for name in sorted(runs) or complete(kept_in):
            method, _, seed = name.rpartition("_seed_")
            found = {}
            for way in WAYS:
                print(f"{name}, {way}", flush=True)
                place, of_way = Path(way) / name, fields | {"discretization": way}
                choices = keep(kept_in / f"{place}.json", runs.get(name), arguments.workdir / place, of_way)
                found |= {"derived": choices["derived"], way: choices["chosen"]}
            results[method, int(seed)] = found
    text = make_table(results, table)
    reporting.write_bytes(arguments.workdir / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
