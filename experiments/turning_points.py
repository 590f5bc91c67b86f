"""When does a search turn to worse cells, and which diagnostic says so before?

It reads the kept results of searches in NAS-Bench-201 that recorded the dominant eigenvalue (compare_nasbench201.py),
and runs nothing. A search turns in the first epoch from which on all cells are more than one point of true accuracy
below the best cell of an earlier epoch. Beside it are the epoch after which R-DARTS would stop the search because the
eigenvalue grows, with the cell that it would then return, if it may return any cell and if it may return none of the
first ten epochs, as in its authors' code; and the entropy and the layers' alignment in the epoch before the turn, or in
the last epoch. Searches whose logits have no gradient, such as random search, are left out.

    python experiments/turning_points.py --results=experiments/results/nasbench201

It prints a table with a row for each search.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import kept
import numpy as np

from prdarts_jax import markdown, spaces
from prdarts_jax.search.curvature import EarlyStopping

DROP = 1.0  # of true accuracy, in percent, that makes a turn


def turn(accuracies: Sequence[float]) -> int | None:
    """The first epoch from which on every accuracy is more than DROP below the best one before that epoch."""
    for epoch in range(1, len(accuracies)):
        if max(accuracies[epoch:]) < max(accuracies[:epoch]) - DROP:
            return epoch
    return None


def stop(eigenvalues: Sequence[float], rule: EarlyStopping) -> tuple[int, int] | None:
    """(the epoch after which the rule ends a search, the epoch whose cell it returns), or None."""
    for epoch in range(len(eigenvalues)):
        if (returned := rule.stops(eigenvalues[: epoch + 1])) is not None:
            return epoch, returned
    return None


def make_table(searches: dict[str, list[dict]]) -> str:
    """A row for each search; epochs are counted from 1."""
    most = np.log(len(spaces.nas_bench_201().ops))
    head = ["search", "best cell, % (epoch)", "turns in epoch", "cell of the last epoch, %"]
    head += ["R-DARTS returns, % (stops after epoch): any cell", "from epoch 11 on"]
    head += ["before the turn or the end: entropy, % of the largest", "alignment"]
    rows = []
    for name, records in searches.items():
        accuracies = [record["benchmark"]["accuracy"] for record in records]
        turned, best = turn(accuracies), int(np.argmax(accuracies))
        eigenvalues, stopped = [record["eigenvalue"] for record in records], []
        for start in (0, 10):
            found = stop(eigenvalues, EarlyStopping(start=start))
            stopped.append(f"{accuracies[found[1]]:.2f} ({found[0] + 1})" if found else "never")
        before = records[turned - 1 if turned else -1]
        entries = [
            f"`{name}`",
            f"{accuracies[best]:.2f} ({best + 1})",
            str(turned + 1) if turned else "never",
            f"{accuracies[-1]:.2f}",
            *stopped,
            f"{100 * before['entropy']['normal'] / most:.1f}",
            f"{before['alignment_val']:.3f}",
        ]
        rows.append(entries)
    return markdown.table(head, rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder of finished results")
    paths = sorted(parser.parse_args().results.glob("*.jsonl"))
    if not paths:
        sys.exit("error: --results must be a folder with files METHOD_seed_N.jsonl")
    searches = {}
    for path in paths:
        try:
            head, records = kept.read(path)
        except ValueError as error:
            sys.exit(f"error: {error}")
        settings = head["settings"]
        if settings["space"] != "nas_bench_201" or not settings["hessian"] or settings["method"] == "p_darts":
            sys.exit(f"error: {path} must be of a search of one stage in nas_bench_201 with config.hessian=True")
        if any(record["eigenvalue"] for record in records):
            searches[path.stem] = records
    print(make_table(searches))


if __name__ == "__main__":
    main()
