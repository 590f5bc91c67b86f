"""Where the nodes, edges and labels of the drawing of a cell go, in inches: a search without randomness."""

import itertools
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 12.0, 6.0
TOP, BOTTOM = 5.1, 1.0
NODE_HALF = np.array([0.34, 0.24])
LABEL_MARGIN = 0.06


def place_nodes(edges: Sequence[tuple[int, int]], inputs: int, nodes: int, narrow: bool) -> np.ndarray:
    """Positions of nodes in inches, f64[nodes, 2]: columns by depth, rows of least entanglement.

    Every assignment of the inner nodes to rows is tried, judged as if edges were straight.

    Args:
      edges: (source, target) of every arrow.
      inputs: how many nodes are inputs, 1 or 2; they come first.
      nodes: how many there are, the output, which is the last, included.
      narrow: make the last gap narrower, since no edge there has a label.
    """
    depth = [0] * nodes
    for target in range(inputs, nodes):
        depth[target] = 1 + max((depth[s] for s, t in edges if t == target), default=0)
    depth[-1] = max(depth[:-1]) + 1
    end = depth[-1] - 0.4 * narrow
    x = np.interp(np.append(depth[:-1], end), (0, end), (0.6, WIDTH - 0.6))

    rows = max(7, 2 * max(map(depth.count, depth)) - 1)
    middle = (rows - 1) / 2
    inner = np.array(list(itertools.product(range(rows), repeat=nodes - inputs - 1)), float)
    ends = np.tile([*([middle + 1.5, middle - 1.5] if inputs == 2 else [middle]), middle], (len(inner), 1))
    y = np.concatenate([ends[:, :-1], inner, ends[:, -1:]], axis=1)

    def height(edge: tuple[int, int], at: float) -> np.ndarray:
        s, t = edge
        return y[:, s] + (y[:, t] - y[:, s]) * (at - x[s]) / (x[t] - x[s])

    straight = sorted(set(edges))
    cost = 0.05 * np.abs(inner - middle).sum(1)
    for i, j in itertools.combinations(range(nodes), 2):
        if x[i] == x[j]:
            cost += 100 * (np.abs(y[:, i] - y[:, j]) < 2)
    for s, t in straight:
        cost += 0.1 * np.abs(y[:, s] - y[:, t])
        for node in range(nodes):
            if x[s] < x[node] < x[t]:
                cost += 5 * np.maximum(0, 1.5 - np.abs(height((s, t), x[node]) - y[:, node]))
    for a, b in itertools.combinations(straight, 2):
        left, right = max(x[a[0]], x[b[0]]), min(x[a[1]], x[b[1]])
        if left < right:
            before = height(a, left) - height(b, left)
            after = height(a, right) - height(b, right)
            cost += 2.0 * (before * after < 0)
    best = y[np.argmin(cost)]
    return np.stack([x, np.interp(best, (0, rows - 1), (BOTTOM + 0.4, TOP - 0.3))], axis=1)


def route(edges: Sequence[tuple[int, int]], positions: np.ndarray, halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bends the edges and places their labels by coordinate descent on the overlaps.

    Args:
      edges: (source, target) of every arrow, an edge that carries two ops twice.
      positions: f64[nodes, 2], node centres.
      halves: f64[edges, 2], half width and height of the labels, -inf for none.

    Returns:
      Control points of the cubic curves, f64[edges, 4, 2], and label centres, f64[edges, 2].
    """
    bends = np.linspace(-1.8, 1.8, 13)
    places = np.linspace(0.2, 0.8, 13)
    controls = np.stack([_controls(edges, i, positions, bends) for i in range(len(edges))])
    centres = np.einsum("pc,ebcd->ebpd", _bernstein(places), controls)
    # Curves run strictly from left to right, so their heights over one grid tell how they meet.
    grid = np.linspace(0, WIDTH, 241)
    points = np.einsum("pc,ebcd->ebdp", _bernstein(np.linspace(0, 1, 61)), controls)
    heights = np.array([[np.interp(grid, x, y, np.nan, np.nan) for x, y in edge] for edge in points])
    paths = np.stack(np.broadcast_arrays(grid, heights), axis=-1)

    def inside(points: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
        return (np.abs(points - centre) < half).all(-1)

    own = np.zeros(centres.shape[:3])
    for i, (source, target) in enumerate(edges):
        length = positions[target, 0] - positions[source, 0]
        own[i] += 20 * (bends[:, None] / length) ** 2 + 8 * (places - 0.5) ** 2
        own[i] += 20 * ((heights[i] < BOTTOM) | (heights[i] > TOP)).sum(-1)[:, None]
        for node, position in enumerate(positions):
            own[i] += 1000 * inside(centres[i], position, halves[i] + NODE_HALF)
            if node not in (source, target):
                own[i] += 20 * inside(paths[i], position, NODE_HALF + 0.1).sum(-1)[:, None]

    chosen: dict[int, tuple[int, int]] = {}
    for _, i in itertools.product(range(3), range(len(edges))):
        cost = own[i].copy()
        for j, (bend, place) in chosen.items():
            if i != j:
                centre = centres[j, bend, place]
                gaps = heights[i] - heights[j, bend]
                meetings = 10 * (gaps[:, 1:] * gaps[:, :-1] < 0).sum(-1)
                cost += (meetings + 0.1 * (np.abs(gaps) < 0.2).sum(-1))[:, None]
                cost += 5 * inside(paths[i], centre, halves[j]).sum(-1)[:, None]
                cost += 5 * inside(paths[j, bend], centres[i][:, :, None], halves[i]).sum(-1)
                cost += 1000 * inside(centres[i], centre, halves[i] + halves[j])
        chosen[i] = divmod(int(np.argmin(cost)), len(places))
    picks = [chosen[i] for i in range(len(edges))]
    return (
        np.stack([controls[i, bend] for i, (bend, _) in enumerate(picks)]),
        np.stack([centres[i, bend, place] for i, (bend, place) in enumerate(picks)]),
    )


def _controls(edges: Sequence[tuple[int, int]], i: int, positions: np.ndarray, bends: np.ndarray) -> np.ndarray:
    """Control points of edge i for every bend, f64[bends, 4, 2], from right side to left side.

    Arrows that enter one node are spread along its side in the order of their sources' heights.
    """
    source, target = edges[i]
    rivals = [j for j, edge in enumerate(edges) if edge[1] == target]
    rivals.sort(key=lambda j: (positions[edges[j][0], 1], -j))
    entry = 0.2 * ((rivals.index(i) + 0.5) / len(rivals) * 2 - 1) * (len(rivals) > 1)
    start = positions[source] + np.array([NODE_HALF[0], 0.0])
    end = positions[target] + np.array([-NODE_HALF[0], entry])
    reach = np.array([0.4 * (end[0] - start[0]), 0.0])
    lift = np.stack([np.zeros_like(bends), bends], axis=1)
    return np.stack(np.broadcast_arrays(start, start + reach + lift, end - reach + lift, end), axis=1)


def _bernstein(t: np.ndarray) -> np.ndarray:
    """Weights of a cubic curve's control points at parameters t, f64[t, 4]."""
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
