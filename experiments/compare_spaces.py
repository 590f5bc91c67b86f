"""Do methods fill their cells with skip connections in S1 to S4, where DARTS is known to fail, and in DARTS's space?

S1 to S4 are those of Zela et al. (ICLR 2020). All methods search with the same images of real CIFAR-10, halves, network
and schedule, which are far smaller than theirs: 4,000 images averaged down to 16x16 (2,000 for the weights, 2,000 for
the logits), C = 8, five cells instead of eight, batch 32, 6 epochs of 62 steps instead of 50 of 390. The logits'
learning rate is 1e-2 instead of 3e-4. The outcomes are the share of skip connections (in S4, which has none, of noise)
and the depth of the derived cells.

    python experiments/compare_spaces.py --data_dir=DIR --workdir=runs/spaces

It takes 13 minutes for each space on two cores, with another experiment running beside it, and may be stopped and
started again. It writes a run folder for each search, table.md, and for each space skips_s1.png, ...
"""

import argparse

import family
from ml_collections import ConfigDict

from prdarts_jax import markdown, ops
from prdarts_jax.spaces import genotypes

SPACES = ("s1", "s2", "s3", "s4", "darts")
METHODS = ("darts", "pr_darts")


def make_config(space: str, data_dir: str) -> ConfigDict:
    """The settings that all searches in a space share."""
    config = family.small_config(space, data_dir, distinct_inputs=True)  # as in the rule of DARTS
    config.num_examples = 4000
    config.epochs = 6
    config.cells = 5
    return config


def _weak_share(genotype):
    """Percentage of skip connections and noise in the cells."""
    names = [op for entries in genotypes.cells(genotype).values() for op, _, _ in entries]
    return 100 * sum(ops.group(op) in ("skip", "noise") for op in names) / len(names)


def make_table(results: dict[str, family.Results], names: list[str]) -> str:
    """The cells derived at the end."""
    rows = []
    for space, found in results.items():
        for name in names:
            cells = [result.genotype for result in family.of(found, name)]
            skips = family.spread([_weak_share(cell) for cell in cells], ".0f")
            depth = family.spread([family.depth(cell) for cell in cells], ".1f")
            rows.append([space, f"`{name}`", skips, depth])
    return markdown.table(["space", "method", "skip connections (S4: noise), %", "depth"], rows)


def main() -> None:
    """Runs the missing searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    family.add_results(parser)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="NAME or NAME:FIELD=VALUE,...: only these")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=SPACES, help="only these")
    arguments = parser.parse_args()
    kept_in = family.results_of(arguments)
    results = {}
    with family.exit_if_refused():
        fields = family.parse_fields(arguments.set)
        for space in arguments.spaces:
            config = family.with_fields(make_config(space, arguments.data_dir), fields)
            results[space] = family.run(
                config, arguments.methods, arguments.workdir / space, arguments.seeds, kept_in / space
            )
    text = make_table(results, arguments.methods)
    (arguments.workdir / "table.md").write_text(text)
    for space, found in results.items():
        figure = family.trajectories(
            found,
            arguments.methods,
            lambda record: _weak_share(genotypes.Genotype(**record["genotype"])),
            f"{'noise' if space == 's4' else 'skips'} in the cells, %",
            {},
            (-5, 105),
        )
        figure.savefig(arguments.workdir / f"skips_{space}.png")
    print(text)


if __name__ == "__main__":
    main()
