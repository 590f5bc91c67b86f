"""Markdown tables, of which the texts among a run's results are made."""

from collections.abc import Iterable, Sequence
from typing import Any


def row(cells: Iterable[Any]) -> str:
    """A row of a table.

    >>> row(["darts", "", 2])
    '| darts | | 2 |'
    """
    texts = (str(cell).replace("|", r"\|") for cell in cells)
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)


def table(head: Sequence[Any], rows: Iterable[Iterable[Any]]) -> str:
    r"""A table, which ends with a line break. Without rows it is the head of one whose rows follow.

    >>> table(["method", "depth"], [["darts", 2]])
    '| method | depth |\n|---|---|\n| darts | 2 |\n'
    """
    return "".join(f"{line}\n" for line in (row(head), "|---" * len(head) + "|", *map(row, rows)))
