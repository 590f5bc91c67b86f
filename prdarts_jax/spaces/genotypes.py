"""Genotypes: the discrete cells that a search ends in, how they are read and written, and what they consist of."""

import dataclasses
import json
import math
import os
from typing import Any

from prdarts_jax import ops, refusals
from prdarts_jax.refusals import cut, listed, shown
from prdarts_jax.spaces import published

CELL_TYPES = ("normal", "reduce")
_BYTES = 10**6  # of a file
_EDGES = 1000  # of a cell


def edges(nodes: int, inputs: int) -> tuple[tuple[int, int], ...]:
    """Pairs (source, target) of a cell, sorted by target, source: of its `nodes` all but the first `inputs`, which are
    its inputs, have an edge from every earlier one.

    >>> edges(nodes=4, inputs=2)
    ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    """
    return tuple((source, target) for target in range(inputs, nodes) for source in range(target))


def layout(cells: int) -> tuple[str, ...]:
    """The type of each cell of a network in order: cells k // 3 and 2k // 3 of k reduce (Liu et al., ICLR 2019).

    >>> layout(6)
    ('normal', 'normal', 'reduce', 'normal', 'reduce', 'normal')
    """
    reductions = {cells // 3, 2 * cells // 3}
    return tuple("reduce" if k in reductions else "normal" for k in range(cells))


@dataclasses.dataclass(frozen=True)
class Genotype:
    """One normal and one reduction cell, in the form the DARTS papers print them.

    Lists, as JSON has them, are accepted and become tuples. Nodes 0 and 1 are the outputs of the cells k-2 and k-1;
    entries 2i and 2i+1 are the two that node i+2 sums.

    Attributes:
      normal, reduce: (op, input node) pairs, two a node.
      normal_concat, reduce_concat: nodes whose concatenation is the output of the cell.

    Raises:
      ValueError: an entry is impossible; the sentence names it and what is allowed.
    """

    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for cell in CELL_TYPES:
            entries = _checked_entries(cell, getattr(self, cell))
            concat = _checked_concat(f"{cell}_concat", getattr(self, f"{cell}_concat"), nodes=len(entries) // 2 + 2)
            object.__setattr__(self, cell, entries)
            object.__setattr__(self, f"{cell}_concat", concat)


@dataclasses.dataclass(frozen=True)
class EdgeGenotype:
    """A cell of one input in which every edge has one op, as NAS-Bench-201's (Dong, Yang, ICLR 2020).

    Node 0 is the input and the last node the output; each node has an edge from every earlier one. A list, as JSON has
    it, is accepted and becomes a tuple. `str` gives the name that NAS-Bench-201 has for the cell.

    >>> str(EdgeGenotype(["skip_connect", "none", "nor_conv_3x3"]))
    '|skip_connect~0|+|none~0|nor_conv_3x3~1|'

    Attributes:
      ops: the op of each edge (0,1) (0,2) (1,2) (0,3) (1,3) (2,3) ...; 1, 3, 6, 10, ... in all.

    Raises:
      ValueError: no cell has so many edges, or an op is not registered; the sentence names it and what is allowed.
    """

    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        is_list = isinstance(self.ops, list | tuple)
        if not is_list or not 0 < len(self.ops) <= _EDGES or len(self.edges) != len(self.ops):
            found = f"{len(self.ops)} ops" if is_list else shown(self.ops)
            raise ValueError(
                f"ops has {found}, but must list one op for each edge of a cell: 1, 3, 6, 10, ... ops, {_EDGES} at most"
            )
        for i, op in enumerate(self.ops):
            if op not in ops.names():
                raise ValueError(f"ops[{i}]={shown(op)} is unknown; allowed are {listed(op, ops.names())}")
        object.__setattr__(self, "ops", tuple(self.ops))

    @property
    def nodes(self) -> int:
        """h, the input included: there are h (h - 1) / 2 edges."""
        return (1 + math.isqrt(1 + 8 * len(self.ops))) // 2

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (source, target) in the order of `ops`."""
        return edges(self.nodes, inputs=1)

    def __str__(self) -> str:
        nodes: dict[int, str] = {}
        for op, source, target in cells(self)["normal"]:
            nodes[target] = nodes.get(target, "|") + f"{op}~{source}|"
        return "+".join(nodes.values())


AnyGenotype = Genotype | EdgeGenotype


def _checked_entries(field: str, entries: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(entries, list | tuple) or not 0 < len(entries) <= _EDGES or len(entries) % 2:
        found = f"{len(entries)} entries" if isinstance(entries, list | tuple) else shown(entries)
        raise ValueError(f"{field} has {found}, but must list two (op, input) entries a node, {_EDGES} at most")
    for i, entry in enumerate(entries):
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise ValueError(f"{field}[{i}]={shown(entry)} must be a pair (op, input)")
        op, source = entry
        named_entry = f"{field}[{i}]={shown(tuple(entry))}"
        if op not in ops.names():
            raise ValueError(f"{named_entry} has an unknown op; allowed are {listed(op, ops.names())}")
        node = i // 2 + 2
        # `type` and not isinstance: True is an int to Python but no node.
        if type(source) is not int or not 0 <= source < node:
            raise ValueError(
                f"{named_entry} is an entry of node {node}, so its input must be an integer from 0 to {node - 1}"
            )
    return tuple((op, source) for op, source in entries)


def _checked_concat(field: str, concat: object, nodes: int) -> tuple[int, ...]:
    if not isinstance(concat, list | tuple) or not concat:
        raise ValueError(f"{field}={shown(concat)} must be a list of at least one node")
    for i, node in enumerate(concat):
        if type(node) is not int or not 2 <= node < nodes:
            raise ValueError(f"{field}[{i}]={shown(node)} must be an integer from 2 to {nodes - 1}")
        if node in concat[:i]:
            raise ValueError(f"{field}[{i}]={node} comes twice, but each node may come only once")
    return tuple(concat)


def to_json(genotype: AnyGenotype) -> str:
    """One line of JSON, an object with the genotype's fields; `from_json` gives the genotype back."""
    return json.dumps(dataclasses.asdict(genotype))


def from_json(text: str) -> AnyGenotype:
    """The genotype of `to_json`'s text: an EdgeGenotype where it has the field `ops`.

    Raises:
      ValueError: the text is not JSON, a field is missing or unknown, or an entry is impossible.
    """
    if not isinstance(text, str):
        raise ValueError(f"genotype {shown(text)} must be a text, as to_json gives it")
    try:
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"genotype is not valid JSON: {cut(str(error), 200)}") from None
    kind = EdgeGenotype if isinstance(values, dict) and "ops" in values else Genotype
    allowed = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(values, dict):
        raise ValueError(
            f"genotype must be a JSON object with the fields {', '.join(allowed)}, or with the field ops, "
            f"not a {type(values).__name__}"
        )
    for name in values:
        if name not in allowed:
            raise ValueError(f"genotype field {shown(name)} is unknown; allowed are {listed(name, allowed)}")
    for name in allowed:
        if name not in values:
            raise ValueError(f"genotype field {name!r} is missing; needed are {', '.join(allowed)}")
    return kind(**values)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON with these fields; of two with one name Python would take the last."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the field {shown(name)} comes twice")
        values[name] = value
    return values


def load(path: str | os.PathLike[str]) -> AnyGenotype:
    """Reads a file of `to_json`'s text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as `from_json`, the path in front.
    """
    file = refusals.file("genotype file", path, most=_BYTES)
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"genotype file {file}: {error}") from None


def named(name: str) -> Genotype:
    """A published genotype, entries in the order in which the paper's authors give them.

    Raises:
      ValueError: the name is not one of `published.names()`.
    """
    normal, reduce = published.parsed(name)
    return Genotype(*normal, *reduce)


def find(text: str) -> AnyGenotype:
    """The genotype that a config names: a published name, the JSON text of one, or the path of a file with that text.

    Raises:
      ValueError, FileNotFoundError: it is none of them.
    """
    if not isinstance(text, str) or text in published.names():
        return named(text)
    if text.lstrip().startswith("{"):
        return from_json(text)
    try:
        is_file = refusals.path("genotype", text).is_file()
    except ValueError:  # no file has such a name
        is_file = False
    if not is_file:
        raise FileNotFoundError(
            f"genotype {shown(text)} is neither a file, nor JSON, nor one of {listed(text, published.names())}"
        )
    return load(text)


def cells(genotype: AnyGenotype) -> dict[str, tuple[tuple[str, int, int], ...]]:
    """What joins the nodes of each cell: {cell type: ((op, source, target), ...)}, sorted by target.

    An EdgeGenotype has a 'normal' cell only, since its reductions are no cells. Entries of the group 'none', which add
    nothing, are among them.
    """
    if isinstance(genotype, EdgeGenotype):
        return {"normal": tuple((op, *edge) for op, edge in zip(genotype.ops, genotype.edges, strict=True))}
    return {
        cell: tuple((op, source, i // 2 + 2) for i, (op, source) in enumerate(getattr(genotype, cell)))
        for cell in CELL_TYPES
    }


def ends(genotype: AnyGenotype, cell_type: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(input nodes, output nodes) of a cell; where there are several outputs, their concatenation is the cell's."""
    if isinstance(genotype, EdgeGenotype):
        return (0,), (genotype.nodes - 1,)
    return (0, 1), getattr(genotype, f"{cell_type}_concat")


def skip_share(genotype: AnyGenotype) -> dict[str, float]:
    """Share of ops of the group 'skip' among the entries of each cell: {cell type: s}, s from 0 to 1."""
    return {
        cell: sum(ops.group(op) == "skip" for op, _, _ in connections) / len(connections)
        for cell, connections in cells(genotype).items()
    }


def depth(genotype: AnyGenotype) -> dict[str, int]:
    """Connections on the longest path from an input to an output node of each cell: {cell type: depth}.

    After Shu, Wang, Cai, Understanding Architectures Learnt by Cell-based NAS, ICLR 2020, who count the concatenation
    as one more: skip connections count, ops of the group 'none' do not; without a path the depth is 0.
    """
    depths = {}
    for cell, connections in cells(genotype).items():
        inputs, outputs = ends(genotype, cell)
        longest = dict.fromkeys(inputs, 0)  # of the nodes that an input reaches
        for op, source, target in connections:
            if ops.group(op) != "none" and source in longest:
                longest[target] = max(longest.get(target, 0), longest[source] + 1)
        depths[cell] = max(longest.get(node, 0) for node in outputs)
    return depths
