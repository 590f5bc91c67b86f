"""Genotypes: the discrete cells a search ends in, the published ones, and how they are read."""

import dataclasses
import json
import os
import pathlib
import types
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from prdarts_jax import spaces

# The last two occur in NASNet and AmoebaNet only; `none` may win a search but never enters a cell.
OPS = (
    *(op for op in spaces.darts().ops if op != "none"),
    "sep_conv_7x7",
    "conv_7x1_1x7",
)

_ABBREVIATIONS = types.MappingProxyType(
    {
        "skip": "skip_connect",
        "sep3": "sep_conv_3x3",
        "sep5": "sep_conv_5x5",
        "sep7": "sep_conv_7x7",
        "dil3": "dil_conv_3x3",
        "dil5": "dil_conv_5x5",
        "conv7": "conv_7x1_1x7",
        "avg": "avg_pool_3x3",
        "max": "max_pool_3x3",
    }
)

# name: (normal cell, reduction cell), "op input, op input | next node ... -> concatenated nodes".
_PUBLISHED = types.MappingProxyType(
    {
        # Zhou et al., Theory-Inspired Path-Regularized Differentiable NAS, NeurIPS 2020
        "PRDARTS": (
            "skip 0, sep3 1 | dil3 2, sep3 0 | dil3 3, sep3 1 | dil3 4, dil3 1 -> 2 3 4 5",
            "avg 0, dil5 1 | sep3 0, dil5 2 | sep5 1, dil3 3 | dil5 4, dil5 1 -> 2 3 4 5",
        ),
        # Liu, Simonyan, Yang, DARTS, ICLR 2019: first order
        "DARTS_V1": (
            "sep3 1, sep3 0 | skip 0, sep3 1 | skip 0, sep3 1 | sep3 0, skip 2 -> 2 3 4 5",
            "max 0, max 1 | skip 2, max 0 | max 0, skip 2 | skip 2, avg 0 -> 2 3 4 5",
        ),
        # the same paper: second order
        "DARTS_V2": (
            "sep3 0, sep3 1 | sep3 0, sep3 1 | sep3 1, skip 0 | skip 0, dil3 2 -> 2 3 4 5",
            "max 0, max 1 | skip 2, max 1 | max 0, skip 2 | skip 2, max 1 -> 2 3 4 5",
        ),
        # Chen et al., Progressive Differentiable Architecture Search, ICCV 2019: CIFAR-10
        "PDARTS": (
            "skip 0, dil3 1 | skip 0, sep3 1 | sep3 1, sep3 3 | sep3 0, dil5 4 -> 2 3 4 5",
            "avg 0, sep5 1 | sep3 0, dil5 2 | max 0, dil3 1 | dil3 1, dil5 3 -> 2 3 4 5",
        ),
        # Xu et al., PC-DARTS, ICLR 2020: searched on CIFAR-10
        "PCDARTS": (
            "sep3 1, skip 0 | sep3 0, dil3 1 | sep5 0, sep3 1 | avg 0, dil3 1 -> 2 3 4 5",
            "sep5 1, max 0 | sep5 1, sep5 2 | sep3 0, sep3 3 | sep3 1, sep3 2 -> 2 3 4 5",
        ),
        # the same paper: searched on ImageNet
        "PCDARTS_IMAGENET": (
            "skip 1, sep3 0 | sep3 0, skip 1 | sep3 1, sep3 3 | sep3 1, dil5 4 -> 2 3 4 5",
            "sep3 0, skip 1 | dil5 2, max 1 | sep3 2, sep3 1 | sep5 0, sep3 3 -> 2 3 4 5",
        ),
        # Dong, Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019
        "GDAS": (
            "skip 0, skip 1 | skip 0, sep5 2 | sep3 3, skip 0 | sep5 4, sep3 3 -> 2 3 4 5",
            "sep5 0, sep3 1 | sep5 2, sep5 1 | dil5 2, sep3 1 | sep5 0, sep5 1 -> 2 3 4 5",
        ),
        # Zoph et al., Learning Transferable Architectures, CVPR 2018: NASNet-A
        "NASNet": (
            "sep5 1, sep3 0 | sep5 0, sep3 0 | avg 1, skip 0 | avg 0, avg 0 | sep3 1, skip 1 -> 2 3 4 5 6",
            "sep5 1, sep7 0 | max 1, sep7 0 | avg 1, sep5 0 | skip 3, avg 2 | sep3 2, max 1 -> 4 5 6",
        ),
        # Real et al., Regularized Evolution for Image Classifier Search, AAAI 2019: AmoebaNet-A
        "AmoebaNet": (
            "avg 0, max 1 | sep3 0, sep5 2 | sep3 0, avg 3 | sep3 1, skip 1 | skip 0, avg 1 -> 4 5 6",
            "avg 0, sep3 1 | max 0, sep7 2 | sep7 0, avg 1 | max 0, max 1 | conv7 0, sep3 5 -> 3 4 6",
        ),
    }
)


@dataclasses.dataclass(frozen=True)
class Genotype:
    """One normal and one reduction cell, in the form the DARTS papers print them.

    Lists, as JSON has them, are accepted and become tuples. Nodes 0 and 1 are the outputs of the
    cells k-2 and k-1; entries 2i and 2i+1 are the two that node i+2 sums.

    Attributes:
      normal: (op, input node) pairs, two a node.
      normal_concat: nodes whose concatenation is the output of the cell.
      reduce: as normal, for the reduction cell.
      reduce_concat: as normal_concat, for the reduction cell.

    Raises:
      ValueError: an entry is impossible; the sentence names it and what is allowed.
    """

    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks every entry; see the class."""
        for cell in spaces.CELL_TYPES:
            entries = _checked_entries(cell, getattr(self, cell))
            concat = _checked_concat(f"{cell}_concat", getattr(self, f"{cell}_concat"), nodes=len(entries) // 2 + 2)
            object.__setattr__(self, cell, entries)
            object.__setattr__(self, f"{cell}_concat", concat)


def _checked_entries(field: str, entries: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(entries, list | tuple) or not entries or len(entries) % 2:
        found = f"{len(entries)} entries" if isinstance(entries, list | tuple) else repr(entries)
        raise ValueError(f"{field} has {found}, but must list two (op, input) entries a node")
    for i, entry in enumerate(entries):
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise ValueError(f"{field}[{i}]={entry!r} must be a pair (op, input)")
        op, source = entry
        named_entry = f"{field}[{i}]={tuple(entry)!r}"
        if op not in OPS:
            raise ValueError(f"{named_entry} has an unknown op; allowed are {', '.join(OPS)}")
        node = i // 2 + 2
        # `type` and not isinstance: True is an int to Python but no node.
        if type(source) is not int or not 0 <= source < node:
            raise ValueError(
                f"{named_entry} is an entry of node {node}, so its input must be an integer from 0 to {node - 1}"
            )
    return tuple((op, source) for op, source in entries)


def _checked_concat(field: str, concat: object, nodes: int) -> tuple[int, ...]:
    if not isinstance(concat, list | tuple) or not concat:
        raise ValueError(f"{field}={concat!r} must be a list of at least one node")
    for i, node in enumerate(concat):
        if type(node) is not int or not 2 <= node < nodes:
            raise ValueError(f"{field}[{i}]={node!r} must be an integer from 2 to {nodes - 1}")
        if node in concat[:i]:
            raise ValueError(f"{field}[{i}]={node!r} comes twice, but each node may come only once")
    return tuple(concat)


def to_json(genotype: Genotype) -> str:
    """One line of JSON, an object with the four fields; `from_json` gives the genotype back."""
    return json.dumps(dataclasses.asdict(genotype))


def from_json(text: str) -> Genotype:
    """The genotype of `to_json`'s text.

    Raises:
      ValueError: the text is not JSON, a field is missing or unknown, or an entry is impossible.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"genotype is not valid JSON: {error}") from None
    allowed = [field.name for field in dataclasses.fields(Genotype)]
    if not isinstance(values, dict):
        raise ValueError(
            f"genotype must be a JSON object with the fields {', '.join(allowed)}, not a {type(values).__name__}"
        )
    for name in values:
        if name not in allowed:
            raise ValueError(f"genotype field {name!r} is unknown; allowed are {', '.join(allowed)}")
    for name in allowed:
        if name not in values:
            raise ValueError(f"genotype field {name!r} is missing; needed are {', '.join(allowed)}")
    return Genotype(**values)


def load(path: str | os.PathLike[str]) -> Genotype:
    """Reads a file of `to_json`'s text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as `from_json`, the path in front.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"genotype file {file} does not exist or is not a file")
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"genotype file {file}: {error}") from None


def names() -> tuple[str, ...]:
    """The published cells that `named` knows."""
    return tuple(_PUBLISHED)


def named(name: str) -> Genotype:
    """A published genotype, entries in the order the paper's authors give them.

    Raises:
      ValueError: the name is not one of `names()`.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"genotype {name!r} is unknown; allowed are {', '.join(names())}")
    normal, reduce = map(_parsed, _PUBLISHED[name])
    return Genotype(*normal, *reduce)


def find(text: str) -> Genotype:
    """The genotype that a config names: a published name, the JSON text of one, or the path of a file with that text.

    Raises:
      ValueError, FileNotFoundError: it is none of them.
    """
    if text in _PUBLISHED:
        return named(text)
    if text.lstrip().startswith("{"):
        return from_json(text)
    try:
        is_file = pathlib.Path(text).is_file()
    except OSError:  # longer than the name of a file may be
        is_file = False
    if not is_file:
        raise FileNotFoundError(f"genotype {text!r} is neither a file, nor JSON, nor one of {', '.join(names())}")
    return load(text)


def _parsed(cell: str) -> tuple[tuple[tuple[str, int], ...], tuple[int, ...]]:
    entries, concat = cell.split("->")
    pairs = (entry.split() for entry in entries.replace("|", ",").split(","))
    return (
        tuple((_ABBREVIATIONS[op], int(source)) for op, source in pairs),
        tuple(int(node) for node in concat.split()),
    )


def derive(space: spaces.SearchSpace, scores: Mapping[str, ArrayLike], *, distinct_inputs: bool) -> Genotype:
    """The genotype of the two strongest ops of every node, `none` excluded.

    Without distinct_inputs the two may share an edge (PR-DARTS, Zhou et al. 2020, scores being
    the activation probabilities). With it an edge keeps at most one op, which is DARTS section 2.4
    (Liu et al. 2019): per edge its best op, per node the two edges where that is largest.

    Args:
      space: names the edges and ops of the scores' axes.
      scores: {'normal': float[edges, ops], 'reduce': float[edges, ops]}.
      distinct_inputs: whether the two entries of a node must come from different nodes.

    Returns:
      Entries of a node by falling score, ties to the lower edge, then the lower op; every
      intermediate node is concatenated.

    Raises:
      ValueError: scores of another shape than the space's, or NaN among them.
    """
    concat = tuple(range(2, space.nodes))
    normal, reduce = (
        _strongest(space, cell, np.asarray(scores[cell], np.float64), distinct_inputs) for cell in spaces.CELL_TYPES
    )
    return Genotype(normal, concat, reduce, concat)


def _strongest(
    space: spaces.SearchSpace, cell: str, scores: np.ndarray, distinct_inputs: bool
) -> tuple[tuple[str, int], ...]:
    if scores.shape != space.shape:
        raise ValueError(
            f"scores[{cell!r}] has shape {scores.shape}, but the space {space.name!r} "
            f"needs (edges, ops) = {space.shape}"
        )
    if np.isnan(scores).any():
        edge, op = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"scores[{cell!r}][{edge}, {op}]=nan, but every score must be a number")
    entries: list[tuple[str, int]] = []
    for node in range(2, space.nodes):
        ranked = sorted(
            (-scores[edge, op], edge, op)
            for edge, (_, target) in enumerate(space.edges)
            if target == node
            for op, name in enumerate(space.ops)
            if name != "none"
        )
        kept: list[tuple[str, int]] = []
        for _, edge, op in ranked:
            source, _ = space.edges[edge]
            if not distinct_inputs or all(source != other for _, other in kept):
                kept.append((space.ops[op], source))
        entries += kept[:2]
    return tuple(entries)


def random(space: spaces.SearchSpace, generator: np.random.Generator) -> Genotype:
    """A cell whose every node has two different inputs, each with an op other than `none`, all drawn uniformly."""
    ops = [op for op in space.ops if op != "none"]

    def cell():
        return tuple(
            (ops[generator.integers(len(ops))], int(source))
            for node in range(2, space.nodes)
            for source in sorted(generator.choice(node, 2, replace=False))
        )

    concat = tuple(range(2, space.nodes))
    return Genotype(cell(), concat, cell(), concat)


def all_skip(space: spaces.SearchSpace) -> Genotype:
    """The cell whose every node adds its two input nodes, skip connections alone."""
    concat = tuple(range(2, space.nodes))
    cell = (("skip_connect", 0), ("skip_connect", 1)) * len(concat)
    return Genotype(cell, concat, cell, concat)


def skip_share(genotype: Genotype) -> dict[str, float]:
    """Share of skip_connect among the entries of each cell: {'normal': s, 'reduce': s}."""
    shares = {}
    for cell in spaces.CELL_TYPES:
        ops = [op for op, _ in getattr(genotype, cell)]
        shares[cell] = ops.count("skip_connect") / len(ops)
    return shares
