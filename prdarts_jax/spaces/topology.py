"""What cells are made of: their types, their edges, and their order in a network."""

CELL_TYPES = ("normal", "reduce")


def edges(nodes: int, inputs: int) -> tuple[tuple[int, int], ...]:
    """Pairs (source, target) of a cell whose nodes all have an edge from every earlier node, sorted by target, source.

    >>> edges(nodes=4, inputs=2)
    ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

    Args:
      nodes: of the cell, its inputs included.
      inputs: how many of them are inputs; they have no edge into them.
    """
    return tuple((source, target) for target in range(inputs, nodes) for source in range(target))


def layout(cells: int) -> tuple[str, ...]:
    """The type of each cell of a network in order: cells k // 3 and 2k // 3 of k reduce (Liu et al., ICLR 2019).

    >>> layout(6)
    ('normal', 'normal', 'reduce', 'normal', 'reduce', 'normal')
    """
    reductions = {cells // 3, 2 * cells // 3}
    return tuple("reduce" if k in reductions else "normal" for k in range(cells))
