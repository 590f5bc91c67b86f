"""The cost of each op of a search space in the discrete network of a found cell: weights, multiply-adds or seconds."""

import dataclasses
import functools
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax import ops
from prdarts_jax.nets import discrete, sizes
from prdarts_jax.refusals import shown
from prdarts_jax.spaces import SearchSpace, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype

Kind = Literal["params", "macs", "latency"]
UNITS = MappingProxyType({"params": "weights", "macs": "multiply-adds", "latency": "seconds"})
_IMAGES, _ROUNDS = 16, 5  # images per measurement, and number of measurements


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of the discrete networks of all cells of a space, in the unit of the `kind` in `of_network`. Hashable.

    Attributes:
      space: the search space; it defines the order of edges and ops.
      fixed: the cost of a network without the ops of its cells.
      of_ops: pairs (cell type, costs); `costs[edge][op]` is the cost of an op on an edge, summed over all cells of the
        type in the network.
    """

    space: SearchSpace
    fixed: float
    of_ops: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """The costs of the ops, `of_ops`, as {cell type: f64[edges, ops]}."""
        return {cell_type: np.array(rows) for cell_type, rows in self.of_ops}

    def of(self, genotype: AnyGenotype) -> float:
        """The cost of the network of a genotype, which must be a cell of the space.

        Raises:
          ValueError: the genotype is not in the space, see `SearchSpace.encode`.

        >>> from prdarts_jax import genotypes, spaces
        >>> cell = genotypes.EdgeGenotype(["nor_conv_3x3"] * 6)
        >>> of_network(spaces.nas_bench_201()).of(cell) == sizes.describe(cell)["macs"]
        True
        """
        chosen = self.space.encode(genotype)
        return self.fixed + sum(float(np.sum(chosen[t] * of_ops)) for t, of_ops in self.arrays().items())


def of_network(
    space: SearchSpace,
    kind: Kind = "macs",
    form: discrete.Form = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Costs:
    """Computes the costs of the discrete networks of all cells of a space.

    Args:
      space: the search space.
      kind: 'params', the number of weights; 'macs', the multiply-adds for one image; 'latency', the seconds for one
        image on JAX's default device. Latencies are measured with one image at a time, those of the same op in
        networks of the same sizes once per process; the latency of a network is the sum of those of its ops and of its
        other layers.
      form, channels, cells, num_classes, image_shape: the sizes of the networks, as for `sizes.describe`.

    Raises:
      ValueError: `kind` or `form` is unknown, `form` does not fit the space, or no genotype can represent the cells of
        the space.
    """
    if kind not in UNITS:
        raise ValueError(f"kind={shown(kind)} must be one of {', '.join(UNITS)}")
    some = discretizations.strongest()(space, {t: np.zeros(space.shape) for t in space.cell_types})
    without, cells_of = sizes.plan(some, form, channels, cells, num_classes, image_shape)
    of_op: Callable[..., float] = _latency if kind == "latency" else functools.partial(_count, kind)
    fixed = _latency_without(*without) if kind == "latency" else float(sizes.without_ops(*without)[kind])
    arrays = {cell_type: np.zeros(space.shape) for cell_type in space.cell_types}
    for cell_type, places in cells_of:
        for edge, (source, _) in enumerate(space.edges):
            arrays[cell_type][edge] += [of_op(name, *places[source < 2]) for name in space.ops]
    rows = {t: tuple(tuple(row) for row in array.tolist()) for t, array in arrays.items()}
    return Costs(space, fixed, tuple(rows.items()))


def _count(kind, *place):
    return sizes.of_op(*place)[("params", "macs").index(kind)]


@functools.cache
def _latency(name, channels, stride, height, width):
    """Measures the seconds that an op takes for one image."""
    if ops.group(name) == "none":
        return 0.0
    op = ops.candidate(name, channels=channels, stride=stride, affine=True)
    params = {kernel: jnp.ones(shape) for kernel, shape in op.shapes.items()}
    params |= {draw: jnp.zeros(()) for draw in op.draws}
    norm = ops.batch_normalizer(train=True, axis_name=None)
    return _seconds(lambda params, x: op.apply(params, None, x, norm)[0], params, (1, height, width, channels))


def _latency_without(network, image_shape):
    variables = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), discrete.shapes_of(network, (1, *image_shape)))
    return _seconds(functools.partial(network.apply, train=False), variables, (1, *image_shape))


def _seconds(function: Callable, params: Any, shape: tuple[int, ...]) -> float:
    """Measures the seconds of `function(params, image)`: the mean over some images, and the median of some rounds."""
    images = jnp.ones((_IMAGES, *shape))
    compiled = jax.jit(lambda params, images: jax.lax.map(functools.partial(function, params), images))
    jax.block_until_ready(compiled(params, images))
    clocks = []
    for _ in range(_ROUNDS):
        clock = time.perf_counter()
        jax.block_until_ready(compiled(params, images))
        clocks.append(time.perf_counter() - clock)
    return float(np.median(clocks)) / _IMAGES
