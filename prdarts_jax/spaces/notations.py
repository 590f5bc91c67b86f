"""The notations in use for a cell: pairs, triples, a list per node, mappings from edges, NAS-Bench-201's strings.

A list may be a list, a tuple, a range or a NumPy vector; an integer may be Python's or NumPy's. A wrong entry raises a
ValueError that names the entry as it was given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prdarts_jax import ops
from prdarts_jax.refusals import listed, shown

NAS_BENCH_201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")  # in its order
_EDGES = 1000  # most edges of a cell
_NODES = _EDGES // 2 + 2
_PAIR, _WEIGHTED, _EDGE = "(op, input)", "(op, input, weight)", "(op, node, input)"


class _Connection(NamedTuple):
    """An op that joins two nodes, and the label that messages have for it."""

    label: str
    op: str
    source: int
    target: int


def two_a_node(field: str, entries: Any, concat: Any) -> tuple[tuple[tuple[str, int], ...], tuple[int, ...]]:
    """The (op, input) pairs of a cell, two per node from node 2 on, and the nodes that are concatenated.

    As in Fair DARTS's network, a node without entries is not concatenated, and no other node reads it. A missing second
    entry becomes the op `none` from the first unused input.

    Args:
      field: the name of the entries in messages.
      entries: one of
        - (op, input) or (op, input, weight), two per node;
        - a list of these for each node, with at most two (pt.darts);
        - (op, node, input), at most two per node (Fair DARTS);
        - {(input, node): op}, at most two per node; an edge may be a text with these two numbers, such as '0->2'.
        If the third item is an integer it is an input; if it is a floating-point number it is a weight, and is ignored.
      concat: nodes.
    """
    items = _items(entries)
    if isinstance(entries, Mapping):
        found, nodes = _of_edges(field, entries, inputs=2), _NODES
    elif not items or len(items) > _EDGES:
        raise ValueError(f"{field} has {_count(entries)}, but must list two {_PAIR} entries per node, {_EDGES} at most")
    elif _is_by_node(items):
        found, nodes = _of_nodes(field, items, inputs=2), len(items) + 2
    elif _kind(items[0]) == _EDGE:
        found, nodes = _of_entries(field, items), _NODES
    else:
        pairs = tuple((of.op, of.source) for of in _of_entries(field, items))
        if len(pairs) % 2:
            raise ValueError(
                f"{field} has {_count(pairs)}, but must list two {_PAIR} entries per node, {_EDGES} at most"
            )
        return pairs, _concatenated(field, concat, len(pairs) // 2 + 2)
    return _filled(field, found, _concatenated(field, concat, nodes))


def one_an_edge(field: str, cell: Any) -> tuple[str, ...]:
    """The ops of the edges (0,1) (0,2) (1,2) (0,3) ... of a cell with one input.

    Args:
      field: the name of the cell in messages.
      cell: one of
        - names of ops in that order, or their indices in `NAS_BENCH_201_OPS`;
        - NAS-Bench-201's '|op~0|+|op~0|op~1|+...', or a list of (op, input) for each node;
        - {(input, node): op}, in any order; an edge may be a text with these two numbers, such as '1<-0'.
    """
    if isinstance(cell, str):
        cell = _nodes_of_string(field, cell)
    entries = _items(cell)
    if isinstance(cell, Mapping):
        found = _of_edges(field, cell, inputs=1)
    elif entries and _is_by_node(entries):
        found = _of_nodes(field, entries, inputs=1)
    elif entries is None or len(entries) not in {n * (n - 1) // 2 for n in range(2, 46)}:
        raise ValueError(
            f"{field} has {_count(cell, 'ops')}, but must list one op for each edge of a cell: 1, 3, 6, 10, ... ops, "
            f"{_EDGES} at most"
        )
    else:
        return tuple(_op_of_edge(f"{field}[{i}]={shown(op)}", op) for i, op in enumerate(entries))
    found = sorted(found, key=_place)
    for one, other in zip(found[:-1], found[1:], strict=True):
        if one[2:] == other[2:]:
            raise ValueError(f"{other.label} comes after {one.label}, but each edge may come only once")
    last = found[-1].target if found else 1
    if len(found) != last * (last + 1) // 2:
        raise ValueError(
            f"{field} has {len(found)} edges, but must have all {last * (last + 1) // 2} (input, node) of the nodes "
            f"0 to {last}"
        )
    return tuple(of.op for of in found)


def is_edge(key: Any) -> bool:
    """Whether a key of a mapping is an edge."""
    return _edge(key) is not None


def is_integers(value: Any) -> bool:
    """Whether a value is a list of integers."""
    return bool(_items(value)) and all(_integer(item) is not None for item in _items(value) or ())


# Values ---------------------------------------------------------------------------------------------------------------


def _items(value: Any) -> tuple[Any, ...] | None:
    """A list as a tuple; None for other values. Long ranges and vectors are cut to one item more than is allowed."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return tuple(value[: _EDGES + 1])
    if isinstance(value, range):
        return tuple(value[: _EDGES + 1])
    return tuple(value) if isinstance(value, list | tuple) else None


def _integer(value: Any) -> int | None:
    """The value as an int, or None; booleans, which are integers in Python, are no nodes."""
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _place(of: _Connection) -> tuple[int, int]:
    """The key by which edges are sorted."""
    return of.target, of.source


def _kind(entry: Any) -> str | None:
    """Which of the three kinds of entries this is, or None."""
    parts = _items(entry)
    if parts is None or len(parts) not in (2, 3):
        return None
    if len(parts) == 2:
        return _PAIR
    if isinstance(parts[2], float | np.floating):
        return _WEIGHTED
    return None if _integer(parts[2]) is None else _EDGE


def _count(value: Any, what: str = "entries") -> str:
    items = _items(value)
    return shown(value) if items is None else f"{len(items)} {what}"


def _is_by_node(entries: Sequence[Any]) -> bool:
    """Whether a list has a list of entries for each node, and not the entries themselves."""
    first = _items(entries[0])
    return first is not None and (not first or _items(first[0]) is not None)


def _edge(key: Any) -> tuple[int, int] | None:
    """(input, node) of a key, which may be a text with two numbers: the smaller one is the input."""
    if isinstance(key, str) and len(key) < 40:
        digits = "".join(c if c in "0123456789" else " " for c in key).split()
        key = tuple(sorted(map(int, digits)))
    items = _items(key)
    if items is None or len(items) != 2:
        return None
    source, target = map(_integer, items)
    return None if source is None or target is None else (source, target)


# Notations ------------------------------------------------------------------------------------------------------------


def _of_entries(field: str, entries: Sequence[Any]) -> list[_Connection]:
    kind = _kind(entries[0])
    found = []
    for i, entry in enumerate(entries):
        if kind is None:
            raise ValueError(f"{field}[0]={shown(entry)} must be {_PAIR}, {_WEIGHTED} or {_EDGE}")
        if _kind(entry) != kind:
            raise ValueError(f"{field}[{i}]={shown(entry)} must be {kind}, as {field}[0] is")
        parts = _items(entry) or ()
        target, source = parts[1:] if kind == _EDGE else (i // 2 + 2, parts[1])
        found.append(_checked(f"{field}[{i}]={shown(parts)}", parts[0], source, target, inputs=2))
    return found


def _of_nodes(field: str, nodes: Sequence[Any], inputs: int) -> list[_Connection]:
    found: list[_Connection] = []
    for i, node in enumerate(nodes):
        entries = _items(node)
        target = inputs + i
        if entries is None or len(found) + len(entries) > _EDGES:
            raise ValueError(
                f"{field}[{i}]={shown(node)} must be a list of the entries of node {target}, as {field}[0] is; there "
                f"may be {_EDGES} in all"
            )
        for j, entry in enumerate(entries):
            label = f"{field}[{i}][{j}]"
            if _kind(entry) not in (_PAIR, _WEIGHTED):
                raise ValueError(f"{label}={shown(entry)} must be {_PAIR} or {_WEIGHTED}")
            op, source = (_items(entry) or ())[:2]
            found.append(_checked(f"{label}={shown(_items(entry))}", op, source, target, inputs))
    return found


def _of_edges(field: str, edges: Mapping[Any, Any], inputs: int) -> list[_Connection]:
    if len(edges) > _EDGES:
        raise ValueError(f"{field} has {len(edges)} edges, but may have {_EDGES} at most")
    found = []
    for key, op in edges.items():
        edge, label = _edge(key), f"{field}[{shown(key)}]={shown(op)}"
        if edge is None:
            raise ValueError(f"{label} must be the op of an edge (input, node), or of a text with the two numbers")
        found.append(_checked(label, op, *edge, inputs))
    return sorted(found, key=_place)


def _nodes_of_string(field: str, text: str) -> list[list[tuple[str, int]]]:
    """The entries of each node of NAS-Bench-201's string."""
    nodes = []
    for node in text.split("+"):
        entries = [part.rpartition("~") for part in node[1:-1].split("|")]
        if not (node.startswith("|") and node.endswith("|")) or any(
            not (op and source.isascii() and source.isdecimal() and len(source) < 5) for op, _, source in entries
        ):
            raise ValueError(f"{field}={shown(text)} must be a string like '|op~0|+|op~0|op~1|' or a list")
        nodes.append([(op, int(source)) for op, _, source in entries])
    return nodes


def _op_of_edge(label: str, op: Any) -> str:
    """The op with this name, or with this index in the benchmark's order."""
    place = _integer(op)
    if place is not None and 0 <= place < len(NAS_BENCH_201_OPS):
        return NAS_BENCH_201_OPS[place]
    if isinstance(op, str) and op in ops.names():
        return str(op)
    places = f", and the indices 0 to {len(NAS_BENCH_201_OPS) - 1} in {', '.join(NAS_BENCH_201_OPS)}"
    raise ValueError(f"{label} is unknown {_allowed(op)}" + (places if place is not None else ""))


def _allowed(op: Any) -> str:
    return f"(an op of your own must be registered first); allowed are {listed(op, ops.names())}"


def _checked(label: str, op: Any, source: Any, target: Any, inputs: int) -> _Connection:
    if not isinstance(op, str) or op not in ops.names():
        raise ValueError(f"{label} has an unknown op {_allowed(op)}")
    node, number = _integer(target), _integer(source)
    if node is None or not inputs <= node < _NODES:
        raise ValueError(
            f"{label} must join an input and a node from {inputs} to {_NODES - 1}; an entry is {_PAIR}, {_WEIGHTED} "
            f"with a decimal point in the weight, or {_EDGE}"
        )
    if number is None or not 0 <= number < node:
        raise ValueError(f"{label} is an entry of node {node}, so its input must be an integer from 0 to {node - 1}")
    return _Connection(label, str(op), number, node)


def _concatenated(field: str, concat: Any, nodes: int) -> tuple[int, ...]:
    field, items = f"{field}_concat", _items(concat)
    if not items:
        raise ValueError(f"{field}={shown(concat)} must be a list or range of at least one node")
    found: list[int] = []
    for i, item in enumerate(items):
        node = _integer(item)
        if node is None or not 2 <= node < nodes:
            raise ValueError(f"{field}[{i}]={shown(item)} must be an integer from 2 to {nodes - 1}")
        if node in found:
            raise ValueError(f"{field}[{i}]={node} comes twice, but each node may come only once")
        found.append(node)
    return tuple(found)


def _filled(
    field: str, found: Sequence[_Connection], concat: tuple[int, ...]
) -> tuple[tuple[tuple[str, int], ...], tuple[int, ...]]:
    """Two pairs for each node, and the nodes of `concat` that have an entry."""
    pairs: list[tuple[str, int]] = []
    live = {0, 1}
    for node in range(2, 1 + max((of.target for of in found), default=1)):
        own = [(of.op, of.source) for of in found if of.target == node and of.source in live]
        if len(own) > 2:
            raise ValueError(f"{field} has {len(own)} entries of node {node}, but may have two per node")
        if own:
            live.add(node)
        free = [source for source in range(node) if all(source != used for _, used in own)]
        pairs += own + [("none", source) for source in free[: 2 - len(own)]]
    if not live.intersection(concat):
        raise ValueError(f"{field}_concat={shown(concat)} must have a node of which {field} has an entry")
    return tuple(pairs), tuple(node for node in concat if node in live)
