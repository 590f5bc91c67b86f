"""Search spaces: which nodes a cell has, which edges join them, which ops may stand on an edge."""

import dataclasses

CELL_TYPES = ("normal", "reduce")


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A cell search space: every edge of the cell chooses among the same ops.

    Attributes:
      name: how configs call it.
      ops: candidate ops of every edge, in the order of the last axis of the logits.
      nodes: h, the two input nodes (outputs of cells k-2 and k-1) included.
    """

    name: str
    ops: tuple[str, ...]
    nodes: int = 6

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (source, target), sorted by target then source: the first axis of the logits."""
        return tuple((s, t) for t in range(2, self.nodes) for s in range(t))

    @property
    def shape(self) -> tuple[int, int]:
        """(edges, ops), the shape of the logits of one cell type."""
        return len(self.edges), len(self.ops)

    def op_indices(self, kind: str) -> tuple[int, ...]:
        """Positions of the ops of one `group`, e.g. every parameterised op for 'conv'."""
        return tuple(i for i, op in enumerate(self.ops) if group(op) == kind)


def group(op: str) -> str:
    """The group of an op: 'none', 'skip', 'pool' or 'conv' (the parameterised ones)."""
    if op == "none":
        return "none"
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
