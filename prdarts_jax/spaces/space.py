"""A search space: which nodes a cell has, which edges join them, and which ops each edge may have."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from prdarts_jax import ops
from prdarts_jax.fields import at_least, checked
from prdarts_jax.ops.registry import Group
from prdarts_jax.refusals import listed, shown
from prdarts_jax.spaces import genotypes
from prdarts_jax.spaces.genotypes import CELL_TYPES, AnyGenotype, EdgeGenotype, Genotype

EdgeOps = tuple[tuple[str, ...], ...]


@checked
@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A cell search space.

    >>> SearchSpace("mine", ops=("none", "skip_connect", "max_pool_3x3"), nodes=4).shape
    (5, 3)

    Attributes:
      name: of the space, in configs and messages.
      ops: names of the candidate ops, all registered (`ops.names`), in the order of the last axis of the logits.
      nodes: number of nodes h of a cell, its inputs included.
      inputs: number of inputs of a cell: 2, the outputs of cells k-2 and k-1, or 1, the output of cell k-1.
      cell_types: 'normal' and, if the reductions are cells that are searched for, 'reduce'.
      edge_ops: `edge_ops[i][e]` are the candidates, among `ops`, of edge e in the cell of type cell_types[i]; empty if
        all edges have all ops.
      entries_per_node: number of (op, input) pairs that a node of a derived cell keeps; 0 if every edge keeps one op.
      outputs: number of last nodes whose concatenation is the output of a cell that keeps pairs; 0: all but its inputs.
      macro: the network around the cells: 'darts', whose cells are Genotypes, or 'nas_bench_201', whose cells are
        EdgeGenotypes.

    Raises:
      ValueError: an op is not registered, or the attributes do not fit together.
    """

    name: str
    ops: tuple[str, ...]
    nodes: int = 6
    inputs: int = 2
    cell_types: tuple[str, ...] = CELL_TYPES
    edge_ops: tuple[EdgeOps, ...] = ()
    entries_per_node: Annotated[int, at_least(0)] = 2
    outputs: int = 0
    macro: str = "darts"

    def __post_init__(self) -> None:
        space = f"space {shown(self.name)}"
        try:
            edge_ops = tuple(tuple(map(tuple, edges)) for edges in self.edge_ops)
        except TypeError:
            wrong = f"{space} has edge_ops={shown(self.edge_ops)}, which must be names of ops for each edge"
            raise ValueError(wrong) from None
        object.__setattr__(self, "edge_ops", edge_ops)  # hashable
        if not self.cell_types or not all(isinstance(cell_type, str) for cell_type in self.cell_types):
            raise ValueError(f"{space} has cell_types={shown(self.cell_types)}, which must be names, such as 'normal'")
        for op in self.ops:
            if op not in ops.names():
                allowed = listed(op, ops.names())
                raise ValueError(f"{space} has the op {shown(op)}, which is not registered; allowed are {allowed}")
        if not self.ops or not 1 <= self.inputs < self.nodes:
            raise ValueError(
                f"{space} must have ops, inputs and more nodes than inputs, but has ops={self.ops}, "
                f"inputs={self.inputs} and nodes={self.nodes}"
            )
        if not 0 <= self.outputs <= self.nodes - self.inputs:
            raise ValueError(
                f"{space} has outputs={self.outputs}, which must be from 0 to {self.nodes - self.inputs}, the number "
                "of nodes other than the inputs"
            )
        if len(set(self.ops)) < len(self.ops) or all(ops.group(op) == "none" for op in self.ops):
            raise ValueError(
                f"{space} has ops={shown(self.ops)}, but must name each op once, and one or more that compute something"
            )
        if self.edge_ops and [len(edges) for edges in self.edge_ops] != [len(self.edges)] * len(self.cell_types):
            raise ValueError(
                f"{space} has edge_ops={shown(self.edge_ops)}, which must have the candidates of each of "
                f"{len(self.edges)} edges for each of {len(self.cell_types)} cell types"
            )
        for cell_type, of_type in zip(self.cell_types, self.edge_ops, strict=False):
            if empty := [edge for edge, names in zip(self.edges, of_type, strict=True) if not names]:
                raise ValueError(
                    f"{space} has no candidate for the edge {empty[0]} of the {cell_type} cell, but every edge must "
                    "have one or more"
                )
        for op in (op for edges in self.edge_ops for names in edges for op in names):
            if op not in self.ops:
                raise ValueError(
                    f"{space} has the op {shown(op)} in edge_ops; allowed are its ops, {listed(op, self.ops)}"
                )

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The edges (source, target), sorted by target, then source: the order of the first axis of the logits."""
        return genotypes.edges(self.nodes, self.inputs)

    @property
    def concat(self) -> tuple[int, ...]:
        """The nodes whose concatenation is the output of a cell that keeps pairs."""
        return tuple(range(self.nodes - self.outputs if self.outputs else self.inputs, self.nodes))

    @property
    def shape(self) -> tuple[int, int]:
        """(edges, ops), the shape of the logits of one cell type."""
        return len(self.edges), len(self.ops)

    def candidates(self, cell_type: str) -> np.ndarray:
        """bool[edges, ops]: which ops are candidates of which edge of this cell type."""
        if not self.edge_ops:
            return np.ones(self.shape, bool)
        allowed = self.edge_ops[self.cell_types.index(cell_type)]
        return np.array([[op in names for op in self.ops] for names in allowed])

    @checked
    def op_indices(self, *groups: Group) -> tuple[int, ...]:
        """Indices of the ops of some groups (see `ops.group`), for instance of all parameterised ops for 'conv'.

        Raises:
          ValueError: there is no such group.
        """
        return tuple(i for i, op in enumerate(self.ops) if ops.group(op) in groups)

    def encode(self, genotype: AnyGenotype) -> dict[str, np.ndarray]:
        """Converts a genotype to op weights of 0 and 1: {cell type: f32[edges, ops]}.

        >>> SearchSpace("mine", ("none", "max_pool_3x3"), 3, 1, ("normal",), (), 0).encode(
        ...     EdgeGenotype(["max_pool_3x3", "none", "max_pool_3x3"]))["normal"]
        array([[0., 1.],
               [0., 0.],
               [0., 1.]], dtype=float32)

        Raises:
          ValueError: the genotype is not in the space, has an op twice on an edge, or concatenates other nodes than the
            space.
        """
        if not isinstance(genotype, self.genotype_class):
            kind = self.genotype_class.__name__
            raise ValueError(f"genotype {genotype!r} must be of the type {kind} in the space {self.name}")
        result = {}
        for cell_type, entries in genotypes.cells(genotype).items():
            weights, candidates = np.zeros(self.shape, np.float32), self.candidates(cell_type)
            nodes = genotype.nodes if isinstance(genotype, EdgeGenotype) else len(entries) // 2 + 2
            outputs = genotypes.ends(genotype, cell_type)[1]
            if nodes != self.nodes or (isinstance(genotype, Genotype) and outputs != self.concat):
                raise ValueError(
                    f"the {cell_type} cell must have {self.nodes} nodes and concatenate {self.concat} in the space "
                    f"{self.name}, but has {nodes} nodes and concatenates {outputs}"
                )
            for op, source, target in entries:
                if ops.group(op) == "none":
                    continue  # it adds nothing
                edge = self.edges.index((source, target))
                of_edge = [name for name, allowed in zip(self.ops, candidates[edge], strict=True) if allowed]
                if op not in of_edge:
                    raise ValueError(
                        f"op {op!r} on the edge {(source, target)} of the {cell_type} cell must be one of the space "
                        f"{self.name}: {', '.join(of_edge)}"
                    )
                place = edge, self.ops.index(op)
                if weights[place]:
                    raise ValueError(f"the {cell_type} cell must not have {op} twice on the edge {(source, target)}")
                weights[place] = 1
            result[cell_type] = weights
        return result

    @property
    def has_genotypes(self) -> bool:
        """Whether a class of genotypes can describe the cells of this space."""
        forms = (1, 0, ("normal",)), (2, 2, CELL_TYPES)
        return (self.inputs, self.entries_per_node, self.cell_types) in forms

    @property
    def genotype_class(self) -> type[Genotype] | type[EdgeGenotype]:
        """The class of genotypes that can describe the cells of this space.

        Raises:
          ValueError: neither class can.
        """
        if self.has_genotypes:
            return EdgeGenotype if self.inputs == 1 else Genotype
        raise ValueError(
            f"space {self.name!r} has inputs={self.inputs}, entries_per_node={self.entries_per_node} and "
            f"cell_types={self.cell_types}, but must have 2, 2 and {CELL_TYPES} for a Genotype or 1, 0 and ('normal',) "
            "for an EdgeGenotype"
        )

    def genotype(self, cells: Mapping[str, Sequence[Any]]) -> AnyGenotype:
        """The genotype of these cells: {cell type: (op, input) pairs, `entries_per_node` for each node}, or {'normal':
        the op of each edge} if every edge keeps one.

        The nodes `concat` of a Genotype are concatenated.

        Raises:
          ValueError: an entry is impossible, or no class of genotypes can describe the space's cells.
        """
        if self.genotype_class is EdgeGenotype:
            return EdgeGenotype(tuple(cells["normal"]))
        return Genotype(tuple(cells["normal"]), self.concat, tuple(cells["reduce"]), self.concat)
