"""Genotypes: the discrete cells that searches find; how they are read and written, and their properties."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from prdarts_jax import ops, refusals
from prdarts_jax.refusals import listed, shown
from prdarts_jax.spaces import notations, published, texts

CELL_TYPES = ("normal", "reduce")
_BYTES = 10**6  # largest file


def edges(nodes: int, inputs: int) -> tuple[tuple[int, int], ...]:
    """The edges (source, target) of a cell, sorted by target, then source.

    The first `inputs` of its `nodes` are its inputs; every other node has an edge from each earlier node.

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
    """One normal and one reduction cell, in the form in which the DARTS papers print them.

    Nodes 0 and 1 are the outputs of cells k-2 and k-1; node i+2 is the sum of entries 2i and 2i+1. Other notations are
    accepted and become such pairs: lists, a list per node, (op, node, input) triples, and {(input, node): op}; see
    `notations.two_a_node`.

    >>> Genotype({"0->2": "sep_conv_3x3"}, range(2, 3), [[("none", 0), ("noise", 1)]], [2]).normal
    (('sep_conv_3x3', 0), ('none', 1))

    Attributes:
      normal, reduce: (op, input node) pairs, two per node.
      normal_concat, reduce_concat: nodes whose concatenation is the output of the cell.

    Raises:
      ValueError: an entry is impossible; the message names it and what is allowed.
    """

    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for cell in CELL_TYPES:
            entries, concat = notations.two_a_node(cell, getattr(self, cell), getattr(self, f"{cell}_concat"))
            object.__setattr__(self, cell, entries)
            object.__setattr__(self, f"{cell}_concat", concat)


@dataclasses.dataclass(frozen=True)
class EdgeGenotype:
    """A cell with one input in which every edge has one op, such as those of NAS-Bench-201 (Dong, Yang, ICLR 2020).

    Node 0 is the input and the last node the output; each node has an edge from every earlier node. `str` gives the
    name of the cell in NAS-Bench-201. Such names, lists of ops and {(input, node): op} are accepted as `ops`; see
    `notations.one_an_edge`.

    >>> str(EdgeGenotype(["skip_connect", "none", "nor_conv_3x3"]))
    '|skip_connect~0|+|none~0|nor_conv_3x3~1|'
    >>> EdgeGenotype('|skip_connect~0|+|none~0|nor_conv_3x3~1|').ops
    ('skip_connect', 'none', 'nor_conv_3x3')

    Attributes:
      ops: the op of each edge (0,1) (0,2) (1,2) (0,3) (1,3) (2,3) ...; 1, 3, 6, 10, ... in all.

    Raises:
      ValueError: no cell has such edges, or an op is not registered; the message names it and what is allowed.
    """

    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", notations.one_an_edge("ops", self.ops))

    @property
    def nodes(self) -> int:
        """The number of nodes h, the input included; there are h (h - 1) / 2 edges."""
        return (1 + math.isqrt(1 + 8 * len(self.ops))) // 2

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The edges (source, target) in the order of `ops`."""
        return edges(self.nodes, inputs=1)

    def __str__(self) -> str:
        nodes: dict[int, str] = {}
        for op, source, target in cells(self)["normal"]:
            nodes[target] = nodes.get(target, "|") + f"{op}~{source}|"
        return "+".join(nodes.values())


AnyGenotype = Genotype | EdgeGenotype


def to_json(genotype: AnyGenotype) -> str:
    """One line of JSON, an object with the genotype's fields; `from_json` turns it into the genotype again."""
    return json.dumps(dataclasses.asdict(genotype))


def from_json(text: str) -> AnyGenotype:
    """The genotype of a text that `to_json` wrote.

    Raises:
      ValueError: the text is not JSON, a field is missing or unknown, or an entry is impossible.
    """
    if not isinstance(text, str):
        raise ValueError(f"genotype {shown(text)} must be a text, as to_json gives it")
    return _of_value(texts.json_value(text))


def _of_value(value: Any) -> AnyGenotype:
    """The genotype of a mapping or list of its fields, or of a value that EdgeGenotype takes as `ops`."""
    if isinstance(value, Mapping) and list(value) == ["genotype"]:
        value = value["genotype"]
    if isinstance(value, list | tuple) and len(value) == 4 and notations.is_integers(value[1]):
        return Genotype(*value)
    of_edges = any(map(notations.is_edge, value)) if isinstance(value, Mapping) else isinstance(value, list | tuple)
    if of_edges or (isinstance(value, str) and value.startswith("|")):
        return EdgeGenotype(value)
    kind = EdgeGenotype if isinstance(value, Mapping) and "ops" in value else Genotype
    allowed = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(value, Mapping):
        raise ValueError(f"genotype={shown(value)} must be a mapping with the fields {', '.join(allowed)}, or a list")
    for name in value:
        if name not in allowed:
            raise ValueError(f"genotype field {shown(name)} is unknown; allowed are {listed(name, allowed)}")
    for name in allowed:
        if name not in value:
            raise ValueError(f"genotype field {name!r} is missing; needed are {', '.join(allowed)}")
    return kind(**value)


def load(path: str | os.PathLike[str]) -> AnyGenotype:
    """Reads the genotype in a file, whose text may have any form that `find` accepts.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has no genotype, or an impossible one; the message begins with the path.
    """
    file = refusals.file("genotype file", path, most=_BYTES)
    try:
        return _of_value(texts.value(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"genotype file {file}: {error}") from None


def named(name: str) -> Genotype:
    """A published genotype, with its entries in the order of the paper's authors.

    Raises:
      ValueError: the name is not one of `published.names()`.
    """
    normal, reduce = published.parsed(name)
    return Genotype(*normal, *reduce)


def find(text: str) -> AnyGenotype:
    """The genotype that a config names: a published name in any case, a text, or the path of a file with such a text.

    The text may be `Genotype(normal=[...], normal_concat=range(2, 6), ...)` as logs, papers and other packages print
    it, also with other text around it; its fields as JSON or YAML; or the ops of an `EdgeGenotype`. See `notations.py`
    for the forms that the entries of a cell may have. No code in the text is executed.

    >>> find("best: Genotype(normal=[[('skip_connect', 0)]], normal_concat=[2], reduce=[('none', 2, 1)],"
    ...      " reduce_concat=range(2, 3))").normal
    (('skip_connect', 0), ('none', 1))
    >>> find("[3, 0, 1]") == find("{(1, 2): 'skip_connect', (0, 1): 'nor_conv_3x3', (0, 2): 'none'}")
    True

    Raises:
      ValueError, FileNotFoundError: the text is none of these, or an impossible genotype.
    """
    if not isinstance(text, str) or text.lower() in map(str.lower, published.names()):
        return named(text)
    try:
        is_file = refusals.path("genotype", text).is_file()
    except ValueError:  # no file has such a name
        is_file = False
    if is_file:
        return load(text)
    value = texts.value(text) if any(character in text for character in "([{|\n") else text
    if not isinstance(value, str) or value.startswith("|"):
        return _of_value(value)
    raise FileNotFoundError(
        f"genotype {shown(text)} is neither a file, nor the text of a genotype, nor one of "
        f"{listed(text, published.names())}"
    )


def cells(genotype: AnyGenotype) -> dict[str, tuple[tuple[str, int, int], ...]]:
    """The connections of each cell: {cell type: ((op, source, target), ...)}, sorted by target.

    An EdgeGenotype has a 'normal' cell only; the reductions of its network are residual blocks. Entries of the group
    'none', which add nothing, are included.
    """
    if isinstance(genotype, EdgeGenotype):
        return {"normal": tuple((op, *edge) for op, edge in zip(genotype.ops, genotype.edges, strict=True))}
    return {
        cell: tuple((op, source, i // 2 + 2) for i, (op, source) in enumerate(getattr(genotype, cell)))
        for cell in CELL_TYPES
    }


def ends(genotype: AnyGenotype, cell_type: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(input nodes, output nodes) of a cell; the output of the cell is the concatenation of its output nodes."""
    if isinstance(genotype, EdgeGenotype):
        return (0,), (genotype.nodes - 1,)
    return (0, 1), getattr(genotype, f"{cell_type}_concat")


def skip_share(genotype: AnyGenotype) -> dict[str, float]:
    """Share of ops of the group 'skip' among the entries of each cell, from 0 to 1: {cell type: share}."""
    return {
        cell: sum(ops.group(op) == "skip" for op, _, _ in connections) / len(connections)
        for cell, connections in cells(genotype).items()
    }


def depth(genotype: AnyGenotype) -> dict[str, int]:
    """Number of connections on the longest path from an input to an output node of each cell: {cell type: depth}.

    Skip connections count, ops of the group 'none' do not; without a path the depth is 0. After Shu, Wang, Cai,
    Understanding Architectures Learnt by Cell-based NAS, ICLR 2020, whose depth is larger by 1, for the concatenation.
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
