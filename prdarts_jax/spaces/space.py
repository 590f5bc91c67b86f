"""Search spaces: which nodes a cell has, which edges join them, which ops may stand on each edge."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

CELL_TYPES = ("normal", "reduce")
EdgeOps = tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A cell search space.

    Attributes:
      name: how configs call it.
      ops: candidate ops, in the order of the last axis of the logits. They are those of `ops.candidate`, and 'none'.
      nodes: h, the input nodes included.
      inputs: how many of them are inputs of the cell: 2, the outputs of cells k-2 and k-1, or 1, that of cell k-1.
      cell_types: 'normal' and, where reductions are cells that are searched for, 'reduce'.
      edge_ops: for each cell type and edge its candidates among `ops`; empty where every edge has them all.
      entries_per_node: how many (op, input) pairs a derived node keeps; 0 where every edge keeps one op.
      macro: which supernet it has, a key of `nets.MACROS`.
    """

    name: str
    ops: tuple[str, ...]
    nodes: int = 6
    inputs: int = 2
    cell_types: tuple[str, ...] = CELL_TYPES
    edge_ops: tuple[EdgeOps, ...] = ()
    entries_per_node: int = 2
    macro: str = "darts"

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (source, target), sorted by target then source: the first axis of the logits."""
        return tuple((s, t) for t in range(self.inputs, self.nodes) for s in range(t))

    @property
    def shape(self) -> tuple[int, int]:
        """(edges, ops), the shape of the logits of one cell type."""
        return len(self.edges), len(self.ops)

    def candidates(self, cell_type: str) -> np.ndarray:
        """bool[edges, ops]: which op may stand on which edge."""
        if not self.edge_ops:
            return np.ones(self.shape, bool)
        allowed = self.edge_ops[self.cell_types.index(cell_type)]
        return np.array([[op in names for op in self.ops] for names in allowed])

    def op_indices(self, *kinds: str) -> tuple[int, ...]:
        """Positions of the ops of some groups (see `group`), e.g. every parameterised op for 'conv'."""
        return tuple(i for i, op in enumerate(self.ops) if group(op) in kinds)


def layout(cells: int) -> tuple[str, ...]:
    """The type of each cell of a network of so many cells, in order: cells k // 3 and 2k // 3 reduce the image."""
    return tuple("reduce" if k in (cells // 3, 2 * cells // 3) else "normal" for k in range(cells))


def group(op: str) -> str:
    """The group of an op: 'none', 'skip', 'noise', 'pool' or 'conv' (the parameterised ones)."""
    if op in ("none", "noise"):
        return op
    if op == "skip_connect":
        return "skip"
    return "pool" if "pool" in op else "conv"


def darts() -> SearchSpace:
    """The DARTS space (Liu, Simonyan, Yang, ICLR 2019): 14 edges, eight ops."""
    return SearchSpace(
        name="darts",
        ops=(
            "none",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
            "avg_pool_3x3",
            "max_pool_3x3",
        ),
    )


def darts_no_none() -> SearchSpace:
    """The DARTS space without `none`, as Lambda-DARTS and Fair DARTS search it."""
    return SearchSpace(name="darts_no_none", ops=darts().ops[1:])


# R-DARTS's S1 (Zela et al., ICLR 2020, appendix): the two candidates of each edge.
_S1_NORMAL = "skip dil3, skip dil5, skip dil5, skip sep3, skip dil3, max skip, skip sep3, skip sep3, skip dil3, skip sep3, max skip, skip dil3, dil3 dil5, dil3 dil5"  # noqa: E501
_S1_REDUCE = "max avg, max dil3, max avg, max avg, skip dil5, max avg, max sep3, skip dil3, skip dil5, max avg, max avg, skip dil5, skip dil5, skip dil5"  # noqa: E501

ABBREVIATIONS: Mapping[str, str] = MappingProxyType(
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


def s1() -> SearchSpace:
    """S1 (Zela et al., Understanding and Robustifying DARTS, ICLR 2020): two preselected ops an edge."""

    def edge_ops(text):
        return tuple(tuple(ABBREVIATIONS[name] for name in pair.split()) for pair in text.split(","))

    return SearchSpace(
        name="s1",
        ops=tuple(op for op in darts().ops if op not in ("none", "sep_conv_5x5")),
        edge_ops=(edge_ops(_S1_NORMAL), edge_ops(_S1_REDUCE)),
    )


def s2() -> SearchSpace:
    """S2 of the same paper: a skip connection or a 3x3 separable convolution."""
    return SearchSpace(name="s2", ops=("skip_connect", "sep_conv_3x3"))


def s3() -> SearchSpace:
    """S3 of the same paper: S2 and none."""
    return SearchSpace(name="s3", ops=("none", "skip_connect", "sep_conv_3x3"))


def s4() -> SearchSpace:
    """S4 of the same paper: a 3x3 separable convolution, or noise, which puts N(0, 1) in place of its input."""
    return SearchSpace(name="s4", ops=("noise", "sep_conv_3x3"))


def nas_bench_201() -> SearchSpace:
    """NAS-Bench-201 (Dong, Yang, ICLR 2020): one kind of cell, four nodes, every edge keeps one of five ops."""
    return SearchSpace(
        name="nas_bench_201",
        ops=("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
        nodes=4,
        inputs=1,
        cell_types=("normal",),
        entries_per_node=0,
        macro="nas_bench_201",
    )


NAMED: Mapping[str, Callable[[], SearchSpace]] = MappingProxyType(
    {make.__name__: make for make in (darts, darts_no_none, s1, s2, s3, s4, nas_bench_201)}
)


def named(name: str) -> SearchSpace:
    """The space that a config calls `name`.

    Raises:
      ValueError: there is none of that name.
    """
    if name not in NAMED:
        raise ValueError(f"space {name!r} is unknown; allowed are {', '.join(NAMED)}")
    return NAMED[name]()
