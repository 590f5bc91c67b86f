"""Which part of a method is worth what? All compositions of some relaxations, terms and discretizations, in
NAS-Bench-201 on real CIFAR-10.

    python experiments/compose.py --data_dir=DIR --table=FILE --workdir=runs/compose

Network, images and schedule are those of compare_nasbench201.py, but a search has 10 epochs (3,900 steps) instead of
50, and the logits' learning rate is five times as large. A composition of a relaxation and a term is a TOML file in the
workdir, which the package's command line takes too. All have weight decay of the logits, Beta-DARTS's decay as well.
From each supernet the cell is derived by the logits, by perturbation and by best of N. The script writes a run folder
for each search and table.md: the benchmark's accuracies of the cells, and what each part is worth on average. A search
takes some minutes on one core; the script may be stopped and started again, and several, with --seeds or --relaxations
of their own, may share the workdir.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import compare_discretizations
import compare_nasbench201
import family
import numpy as np
import scipy.stats

from prdarts_jax.run import loop, reporting
from prdarts_jax.spaces import tabular

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

Accuracies = Mapping[tuple[str, str, str, int], float]  # of (relaxation, term, way, seed), in percent


def write_method(folder: Path, relaxation: str, term: str) -> str:
    """Writes the file of a composition, and returns its path."""
    path = folder / f"{relaxation}_{term.replace(' ', '_')}.toml"
    text = f"{RELAXATIONS[relaxation]}\n{TERMS[term]}"
    if not path.exists() or path.read_text() != text:  # other processes may read it
        path.parent.mkdir(parents=True, exist_ok=True)
        reporting.write_bytes(path, text.encode())
    return str(path)


def effects(accuracies: Accuracies, factor: int) -> list[tuple[str, float, float, float]]:
    """What the levels of a factor (0: relaxation, 1: term, 2: way) are worth beside its first level.

    The accuracies of the three ways from one supernet are not independent: but for the effect of the way itself, their
    mean is taken first. Two levels are compared in pairs in which all else is the same, and so is the seed.

    Returns:
      (level, its mean accuracy, mean difference to the first level, half width of its 95 % t interval) for each level.
    """
    by_place: dict[str, dict[tuple, list[float]]] = {}
    for place, accuracy in accuracies.items():
        others = tuple(entry for i, entry in enumerate(place) if i != factor and (i != 2 or factor == 2))
        by_place.setdefault(place[factor], {}).setdefault(others, []).append(accuracy)
    means = {level: {others: np.mean(a) for others, a in of_level.items()} for level, of_level in by_place.items()}
    first, found = next(iter(means.values())), []
    for level, of_level in means.items():
        pairs = [value - first[others] for others, value in of_level.items() if others in first]
        half = np.nan
        if len(pairs) > 1:
            half = scipy.stats.t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / len(pairs) ** 0.5
        found.append((level, float(np.mean(list(of_level.values()))), float(np.mean(pairs)), float(half)))
    return found


def make_table(accuracies: Accuracies) -> str:
    """The accuracies of all compositions over the seeds, and the effects of the parts."""
    lines = [f"| relaxation | term | {' | '.join(WAYS)} |", f"|---|---|{'---|' * len(WAYS)}"]
    for relaxation, term in dict.fromkeys(place[:2] for place in accuracies):
        of_ways = [[a for place, a in accuracies.items() if place[:3] == (relaxation, term, way)] for way in WAYS]
        lines.append(f"| {relaxation} | {term} | {' | '.join(family.spread(of_way) for of_way in of_ways)} |")
    for factor, name in enumerate(("relaxation", "term", "way to the cell")):
        lines += ["", f"| {name} | mean accuracy, % | beside the first | |", "|---|---|---|---|"]
        for i, (level, mean, difference, half) in enumerate(effects(accuracies, factor)):
            verdict = "" if i == 0 else "cannot be told apart" if not abs(difference) > half else "differs"
            beside = "" if i == 0 else f"{difference:+.2f} ± {half:.2f}"
            lines.append(f"| {level} | {mean:.2f} | {beside} | {verdict} |")
    return "\n".join(lines) + "\n"


def measure(arguments: argparse.Namespace, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str, int], float]:
    """The accuracies of all compositions whose relaxation and term are named; runs what is missing."""
    table, folder = tabular.load(arguments.table), arguments.workdir
    config = compare_nasbench201.make_config(arguments.data_dir, arguments.table)
    config.epochs, config.logits.learning_rate = 10, 1.5e-3
    fields = family.parse_fields(arguments.set)
    config = family.with_fields(config, fields)
    of_choice = {name: value for name, value in fields.items() if name.startswith("selection.")}
    methods = {write_method(folder / "methods", *name): name for name in names}
    results = family.run(config, list(methods), folder, arguments.seeds)
    found = {}
    for (method, seed), result in results.items():
        found[*methods[method], "logits", seed] = table.accuracy(result.genotype)
        run = family.workdir(folder, method, seed)
        for way in compare_discretizations.WAYS:
            print(f"{run.name}, {way}", flush=True)
            choice = compare_discretizations.choose(run, folder / way / run.name, of_choice | {"discretization": way})[
                "chosen"
            ]
            found[*methods[method], way, seed] = table.accuracy(choice.genotype)
    return found


def main() -> None:
    """Runs the missing searches, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument("--relaxations", nargs="+", choices=RELAXATIONS, default=list(RELAXATIONS))
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=list(TERMS))
    arguments = parser.parse_args()
    try:
        found = measure(
            arguments, [(relaxation, term) for relaxation in arguments.relaxations for term in arguments.terms]
        )
    except (ValueError, OSError, loop.Stopped) as error:
        sys.exit(f"error: {error}")
    text = make_table(found)
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
