"""Which part of a method is worth what? All compositions of some relaxations, terms and discretizations, in
NAS-Bench-201 on real CIFAR-10.

    python experiments/compose.py --data_dir=DIR --table=FILE --workdir=runs/compose

Network, images and schedule are those of compare_nasbench201.py, but a search has 10 epochs (3,900 steps) instead of
50, and the logits' learning rate is five times as large. A composition of a relaxation and a term is a TOML file in the
workdir, which the package's command line takes too. All have weight decay of the logits, Beta-DARTS's decay as well.
From each supernet the cell is derived by the logits, by perturbation and by best of N. The script writes a run folder
for each search and table.md: the benchmark's accuracies of the cells, and what each part is worth on average. This is
measured by the percentile, the share of all cells that are no better: a single cell without a path, of 10 %, would
decide a mean of accuracies. A search takes some minutes on one core. The script may be stopped and started again.
Several, with --seeds or --relaxations of their own, may share the workdir; then run it once more with all of them, for
the table.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import compare_discretizations
import compare_nasbench201
import family
import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.run import reporting
from prdarts_jax.spaces import genotypes, tabular

RELAXATIONS = {
    "softmax": '[relaxation]\npart = "Softmax"\n',
    "sigmoid": '[relaxation]\npart = "Sigmoid"\n',
    "gates": '[relaxation]\npart = "HardConcrete"\ninitial = 0.5\nnoise = 0.0\n',
    "gumbel": '[relaxation]\npart = "Gumbel"\n',
    "dirichlet": '[relaxation]\npart = "Dirichlet"\n',
}
_PATH = '[[terms]]\npart = "path_depth"\nweight = 0.005\n'
_SPARSITY = "".join(
    f'[[terms]]\npart = "{part}"\nweight = {weight}\n'
    for part, weight in (("skip_sparsity", 0.01), ("nonskip_sparsity", 0.005))
)
TERMS = {
    "none": "",
    "path": _PATH,
    "sparsity": _SPARSITY,
    "path and sparsity": _PATH + _SPARSITY,
    "beta decay": '[[terms]]\npart = "scheduled"\nterm = {part = "beta_decay", weight = 50.0}\n'
    'schedule = {part = "Linear", start = 0.0, end = 1.0}\n',
    "alignment": '[inner]\npart = "Alignment"\nweight = {part = "Linear", start = 0.0, end = 0.125}\n',
}
WAYS = ("logits", *compare_discretizations.WAYS)

Cells = Mapping[tuple[str, str, str, int], genotypes.EdgeGenotype]  # of (relaxation, term, way, seed)


def write_method(folder: Path, relaxation: str, term: str) -> str:
    """Writes the file of a composition, and returns its path."""
    path = folder / f"{relaxation}_{term.replace(' ', '_')}.toml"
    text = f"{RELAXATIONS[relaxation]}\n{TERMS[term]}"
    if not path.exists() or path.read_text() != text:  # other processes may read it
        path.parent.mkdir(parents=True, exist_ok=True)
        reporting.write_bytes(path, text.encode())
    return str(path)


def first(places: Iterable[tuple[str, str, str, int]], factor: int) -> str:
    """The level of a factor with which the others are compared."""
    return min((place[factor] for place in places), key=list((RELAXATIONS, TERMS, WAYS)[factor]).index)


def effects(percentiles: Mapping[tuple[str, str, str, int], float], factor: int) -> dict[str, list[float]]:
    """What the levels of a factor (0: relaxation, 1: term, 2: way) are worth beside its first level.

    Two levels are compared in pairs in which all else is the same, and so is the seed. The pairs of a seed are not
    independent, since supernets and images have much in common: so there is one number a seed.

    Returns:
      {level: the mean difference of the pairs of each seed}, without the first level.
    """
    reference, found = first(percentiles, factor), {}
    for place, percentile in percentiles.items():
        other = percentiles.get((*place[:factor], reference, *place[factor + 1 :]))
        if place[factor] != reference and other is not None:
            found.setdefault(place[factor], {}).setdefault(place[3], []).append(percentile - other)
    return {level: [float(np.mean(pairs)) for pairs in of_seeds.values()] for level, of_seeds in found.items()}


def judged(of_seeds: Sequence[float], comparisons: int) -> list[Any]:
    """The interval, the number of seeds and the verdict, as cells of a table."""
    mean, half = family.interval(of_seeds, comparisons)
    return [f"{mean:+.1f} ± {half:.1f}", len(of_seeds), family.verdict(mean - half, mean + half)]


def make_table(cells: Cells, table: tabular.Table) -> str:
    """The accuracies of all compositions over the seeds, and the effects of the parts on the percentile of the cell."""
    rows = []
    for relaxation, term in dict.fromkeys(place[:2] for place in cells):
        of_ways = [
            [table.accuracy(cell) for place, cell in cells.items() if place[:3] == (relaxation, term, way)]
            for way in WAYS
        ]
        rows.append([relaxation, term, *map(family.spread, of_ways)])
    text = markdown.table(["relaxation", "term", *WAYS], rows)
    percentiles = {place: table.percentile(cell) for place, cell in cells.items()}
    factors = {
        name: effects(percentiles, number) for number, name in enumerate(("relaxation", "term", "way to the cell"))
    }
    comparisons = sum(map(len, factors.values()))
    for number, (name, found) in enumerate(factors.items()):
        if found:
            head = [name, f"percentile beside {first(percentiles, number)}, points", "seeds", ""]
            rows = [[level, *judged(of_seeds, comparisons)] for level, of_seeds in found.items()]
            text += "\n" + markdown.table(head, rows)
    return text


def make_config(arguments: argparse.Namespace) -> ConfigDict:
    """The settings that all searches share."""
    config = compare_nasbench201.make_config(arguments.data_dir, arguments.table)
    config.epochs, config.logits.learning_rate, config.hessian = 10, 1.5e-3, False
    return family.with_fields(config, family.parse_fields(arguments.set))


def search(
    arguments: argparse.Namespace, config: ConfigDict, names: Sequence[tuple[str, str]]
) -> dict[Any, genotypes.EdgeGenotype]:
    """The cells of all compositions whose relaxation and term are named; runs what is missing."""
    folder, fields = arguments.workdir, family.parse_fields(arguments.set)
    of_choice = {name: value for name, value in fields.items() if name.startswith("selection.")}
    methods = {write_method(folder / "methods", *name): name for name in names}
    results = family.run(config, list(methods), folder, arguments.seeds)
    found = {}
    for (method, seed), result in results.items():
        found[*methods[method], "logits", seed] = result.genotype
        run = family.workdir(folder, method, seed)
        for way in compare_discretizations.WAYS:
            print(f"{run.name}, {way}", flush=True)
            of_way = of_choice | {"discretization": way}
            choices = compare_discretizations.choose(run, folder / way / run.name, of_way)
            found[*methods[method], way, seed] = choices["chosen"].genotype
    return found


def main() -> None:
    """Runs the missing searches, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument("--relaxations", nargs="+", choices=RELAXATIONS, default=list(RELAXATIONS))
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=list(TERMS))
    arguments = parser.parse_args()
    with family.exit_if_refused():
        config = make_config(arguments)
        table = tabular.load(arguments.table, config.dataset)
        names = [(relaxation, term) for relaxation in arguments.relaxations for term in arguments.terms]
        cells = search(arguments, config, names)
    text = make_table(cells, table)
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
