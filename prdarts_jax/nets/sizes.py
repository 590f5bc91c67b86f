"""How large a discrete network is: its weights, and the multiply-adds of an image."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from prdarts_jax.nets import discrete
from prdarts_jax.spaces.genotypes import Genotype


def describe(
    genotype: Genotype,
    form: discrete.Form = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> dict[str, int]:
    """The size of a network, without building its arrays.

    Args:
      genotype, form, channels, cells, num_classes: as for `discrete.network`.
      image_shape: (height, width, channels) of an image; (32, 32, 3) or (224, 224, 3) by default.

    Returns:
      params: number of weights without the auxiliary head.
      aux_params: number of weights of the auxiliary head; 0 where the images are too small for it.
      macs: multiply-adds of the convolutions and the classifier for one image, without the auxiliary head.

    Raises:
      ValueError: there is no such form, or the genotype is none with normal and reduction cells.
    """
    shape = (1, *(image_shape or discrete.published(form).image_shape))
    plain = discrete.network(genotype, form=form, channels=channels, cells=cells, num_classes=num_classes)
    try:
        variables = discrete.shapes_of(plain.clone(auxiliary=True), shape)
    except ValueError:  # images too small for the auxiliary head
        variables = discrete.shapes_of(plain, shape)
    parts = dict(variables["params"])
    head = parts.pop("auxiliary_head", {})
    jaxpr = jax.make_jaxpr(functools.partial(plain.apply, train=False))(
        variables, jax.ShapeDtypeStruct(shape, jnp.float32)
    )

    def count(params):
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    return {"params": count(parts), "aux_params": count(head), "macs": _multiply_adds(jaxpr.jaxpr)}


def _multiply_adds(jaxpr: Jaxpr) -> int:
    """Of the convolutions and matrix products of a program; of alternatives, those of the largest."""

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
