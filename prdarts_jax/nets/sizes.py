"""The size of a discrete network: its number of weights, and its multiply-adds for one image."""

import contextlib
import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from prdarts_jax import ops
from prdarts_jax.nets import discrete
from prdarts_jax.refusals import shown
from prdarts_jax.spaces import genotypes, layout
from prdarts_jax.spaces.genotypes import AnyGenotype, EdgeGenotype


def describe(
    genotype: AnyGenotype,
    form: discrete.Form = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> dict[str, int]:
    """Computes the size of the network of a genotype, without making its arrays.

    Args:
      genotype, form, channels, cells, num_classes: as for `discrete.network`.
      image_shape: (height, width, channels) of an image; (32, 32, 3) or (224, 224, 3) by default.

    Returns:
      params: number of weights without the auxiliary head.
      aux_params: number of weights that an auxiliary head would have; 0 if the images are too small for one, and for an
        EdgeGenotype.
      macs: multiply-adds of the convolutions and the classifier for one image, without the auxiliary head.

    Raises:
      ValueError: `form` is unknown, or it is not 'cifar' for an EdgeGenotype; a size is below 1.
    """
    without, cells_of = plan(genotype, form, channels, cells, num_classes, image_shape)
    # The size of the network without ops, plus that of each op; `of_op` computes each width and size only once.
    result, entries = dict(without_ops(*without)), genotypes.cells(genotype)
    for cell_type, places in cells_of:
        for op, source, _ in entries[cell_type]:
            params, macs = of_op(op, *places[source < 2])
            result["params"] += params
            result["macs"] += macs
    return result


class Place(NamedTuple):
    """The position of an op in a network: the channels of its input, its stride, the height and width of its input."""

    channels: int
    stride: int
    height: int
    width: int


Places = tuple[Place, Place]  # of a cell: the place of an op between two intermediate nodes, and of one at an input


def plan(
    genotype: AnyGenotype,
    form: discrete.Form,
    channels: int | None,
    cells: int | None,
    num_classes: int | None,
    image_shape: tuple[int, int, int] | None,
) -> tuple[tuple[nn.Module, tuple[int, int, int]], list[tuple[str, Places]]]:
    """Divides the network of a genotype into the part outside of the cells' ops, and the places of these ops.

    The arguments are those of `describe`.

    Returns:
      A pair ((network, image_shape), cells). `network` is the module with the op `none` on all edges; `image_shape` is
      (H, W, C) of one image. `cells` has a pair (cell type, `Places`) for each cell of the network, in order.
    """
    image_shape = image_shape or discrete.published(form).image_shape
    fits = isinstance(image_shape, tuple | list) and all(isinstance(n, int | np.integer) and n > 0 for n in image_shape)
    if not fits or len(image_shape) != 3:
        raise ValueError(f"image_shape={shown(image_shape)} must be (height, width, channels), each at least 1")
    height, width, _ = image_shape
    network = discrete.network(genotype, form=form, channels=channels, cells=cells, num_classes=num_classes)
    c = network.channels
    if isinstance(genotype, EdgeGenotype):
        empty: AnyGenotype = EdgeGenotype(("none",) * len(genotype.ops))
        of_stage = ("normal",) * network.cells
        types = (*of_stage, "reduce", *of_stage, "reduce", *of_stage)  # between the stages there are blocks, not cells
    else:
        normal, reduce = ((("none", 0),) * len(entries) for entries in (genotype.normal, genotype.reduce))
        empty = dataclasses.replace(genotype, normal=normal, reduce=reduce)
        types = layout(network.cells)
        if form == "imagenet":
            height, width = (-(-size // 8) for size in (height, width))
    without: nn.Module = network.clone(genotype=empty)
    found = []
    for cell_type in types:
        entering = Place(c, 1, height, width)
        if cell_type == "reduce":
            c, height, width = 2 * c, -(-height // 2), -(-width // 2)
            entering = entering._replace(channels=c, stride=2)
        if cell_type in genotypes.cells(genotype):
            found.append((cell_type, (Place(c, 1, height, width), entering)))
    return (without, image_shape), found


@functools.cache
def without_ops(network, image_shape):
    """What `describe` returns, for the `network` and the `image_shape` (H, W, C) that `plan` gives."""
    shape = (1, *image_shape)
    variables = discrete.shapes_of(network, shape)
    if hasattr(network, "auxiliary"):
        with contextlib.suppress(ValueError):  # the images may be too small for the auxiliary head
            variables = discrete.shapes_of(network.clone(auxiliary=True), shape)
    parts = dict(variables["params"])
    head = parts.pop("auxiliary_head", {})
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    jaxpr = jax.make_jaxpr(functools.partial(network.apply, train=False))(variables, images)

    def count(params):
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    return {"params": count(parts), "aux_params": count(head), "macs": _multiply_adds(jaxpr.jaxpr)}


@functools.cache
def of_op(name: str, channels: int, stride: int, height: int, width: int) -> tuple[int, int]:
    """Computes (number of weights, multiply-adds for one image) of an op with affine normalisation at a `Place`.

    Raises:
      ValueError: there is no op of this name.
    """
    if ops.group(name) == "none":
        return 0, 0
    op = ops.candidate(name, channels=channels, stride=stride, affine=True)
    params = {kernel: jax.ShapeDtypeStruct(shape, jnp.float32) for kernel, shape in op.shapes.items()}
    params |= {draw: jax.ShapeDtypeStruct((), jnp.float32) for draw in op.draws}
    x = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    norm = ops.batch_normalizer(train=True, axis_name=None)
    jaxpr = jax.make_jaxpr(lambda params, x: op.apply(params, None, x, norm)[0])(params, x)
    return sum(map(math.prod, op.shapes.values())), _multiply_adds(jaxpr.jaxpr)


def _multiply_adds(jaxpr: Jaxpr) -> int:
    """Counts the multiply-adds of convolutions and matrix products; of alternative branches it takes the largest."""

    def shapes(equation):
        return [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]

    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            _, kernel, out = shapes(equation)
            features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += math.prod(out) * math.prod(kernel) // features
        elif equation.primitive.name == "dot_general":
            left, _, out = shapes(equation)
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += math.prod(out) * math.prod(left[i] for i in contracted)
        elif equation.primitive.name == "cond":
            total += max(_multiply_adds(branch.jaxpr) for branch in equation.params["branches"])
        else:
            inner = (value.jaxpr for value in equation.params.values() if isinstance(value, ClosedJaxpr))
            total += sum(map(_multiply_adds, inner))
    return total
