"""The variables of one genotype's discrete network among those of all ops of an encoded network."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from prdarts_jax.nets import discrete
from prdarts_jax.nets.encoded import EncodedNetwork, Variables
from prdarts_jax.nets.program import program
from prdarts_jax.spaces import genotypes
from prdarts_jax.spaces.genotypes import AnyGenotype


def discrete_network(network: EncodedNetwork, genotype: AnyGenotype) -> nn.Module:
    """The discrete network of one genotype; it computes what `network` computes with this genotype."""
    supernet: Any = network.supernet
    names = ("channels", "cells", "num_classes", "dtype", "axis_name")
    fields = {name: getattr(supernet, name) for name in names}
    return discrete.network(genotype, auxiliary=getattr(supernet, "auxiliary", False), **fields)


def to_discrete(
    network: EncodedNetwork, genotype: AnyGenotype, variables: Variables, image_shape: tuple[int, ...]
) -> Variables:
    """Selects the variables of `discrete_network(network, genotype)` from those of all ops.

    Args:
      network: the network that has `variables`.
      genotype: a genotype of the network's space.
      variables: {'params', 'batch_stats'} of `network`.
      image_shape: (B, H, W, C) of the images.

    Returns:
      {'params', 'batch_stats'} of the discrete network.
    """
    given = flatten_dict(variables)
    shapes = flatten_dict(discrete.shapes_of(discrete_network(network, genotype), image_shape))
    result = {}
    for path in (path for path in shapes if path[0] in variables):
        place, row = _place(network.supernet, genotype, path)
        result[path] = given[place] if row is None else given[place][row]
    return unflatten_dict(result)


def _place(supernet, genotype, path):
    """The location (path, row) in the variables of all ops of an array of the discrete network; row is None if the
    array is not stacked over edges."""
    collection, module, *rest = path
    renamed = {"stem_conv_0": "stem", "stem_norm_0": "stem_norm"}
    if not module.startswith("cell_"):
        return (collection, "supernet", renamed.get(module, module), *rest), None
    layer, kind, *name = rest
    if collection == "params":
        name = ["_".join(name)]  # a kernel, or NORM_scale
    if layer.startswith("preprocess"):
        return (collection, "supernet", module, layer, "conv" if collection == "params" else "moments", *name), None
    cell_type = supernet.cell_types[int(module.removeprefix("cell_"))]
    op, source, target = genotypes.cells(genotype)[cell_type][int(layer.removeprefix("op_"))]
    edge = supernet.space.edges.index((source, target))
    groups = [rows for rows, _ in program(supernet.space, cell_type == "reduce", channels=supernet.channels)]
    stage = next(i for i, rows in enumerate(groups) if edge in rows)
    return (collection, "supernet", module, f"stage_{stage}", op, *name), groups[stage].index(edge)


def from_discrete(network, genotype, variables, others):
    """The inverse of `to_discrete`: a copy of `others`, the variables of all ops, with `variables` in their places."""
    result = flatten_dict(others)
    for path, leaf in flatten_dict(variables).items():
        place, row = _place(network.supernet, genotype, path)
        result[place] = leaf if row is None else jnp.asarray(result[place]).at[row].set(leaf)
    return unflatten_dict(result)
