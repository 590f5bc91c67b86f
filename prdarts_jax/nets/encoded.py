"""A genotype as data: one network, and so one compilation, for all genotypes of a space.

The network is the space's supernet with op weights of 0 and 1; the executor runs only the ops of weight 1. It has the
parameters of all ops. So training it takes more memory than training a discrete network, but as many operations.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.nets import supernet_of
from prdarts_jax.nets.supernet import Macro
from prdarts_jax.spaces import SearchSpace, genotypes, nas_bench_201
from prdarts_jax.spaces.genotypes import AnyGenotype, EdgeGenotype

Variables = dict[str, Any]


class EncodedNetwork(nn.Module):
    """A network that computes what the discrete network of a genotype computes; the genotype is one of its variables.

    There is one difference: drop-path drops all ops of an edge together.

    Variables are in the collections `params` and `batch_stats`, which have the arrays of all ops of the space, and
    `genotype`, the arrays of `SearchSpace.encode`, which are only read. It is called as a `DiscreteNetwork`.

    Attributes:
      supernet: the supernet of the space, as `network` makes it.
    """

    supernet: Macro

    @property
    def axis_name(self) -> str | None:
        """The mapped axis over which the batch is spread, or None."""
        return self.supernet.axis_name

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, drop_path: jax.Array | float = 0.0) -> jax.Array:
        """Classifies images: logits f32[B, num_classes] from f32[B, H, W, channels], as `DiscreteNetwork.__call__`.

        `drop_path` has an effect only with train=True and `drop_path` of `network`; give an rng named `draws` then.
        """
        op_weights = {}
        for cell_type, layers in self.supernet.layers.items():
            chosen = self.variable("genotype", cell_type, jnp.zeros, self.supernet.space.shape).value
            op_weights[cell_type] = jnp.broadcast_to(chosen, (layers, *chosen.shape))
        return self.supernet(images, op_weights, train=train, dropout_rate=drop_path if train else 0.0)


def network(space: SearchSpace, *, drop_path: bool = False, **fields: Any) -> EncodedNetwork:
    """Makes the network for all genotypes of a space.

    Args:
      space: the search space.
      drop_path: whether the argument `drop_path` of a call has an effect. True makes each step a little slower.
      **fields: channels, cells, num_classes, auxiliary, dtype and axis_name, with the meaning that they have in
        `DiscreteNetwork` but the defaults of `Supernet` or `Supernet201`. For a space with NAS-Bench-201's network,
        `cells` is the number per stage, and there is no auxiliary head. The form is 'cifar'.
    """
    own: dict[str, Any] = {"affine": True, "pool_norm": False, "dropout": "nonskip" if drop_path else ""}
    return EncodedNetwork(supernet_of(space, **own, **fields))


def space_of(cells: Sequence[AnyGenotype]) -> SearchSpace:
    """The smallest space with all of the genotypes, which must be of the same class, have as many nodes and concatenate
    the same last ones: every edge has all ops that any of the genotypes has anywhere."""
    entries = [entry for genotype in cells for of_type in genotypes.cells(genotype).values() for entry in of_type]
    names = tuple(sorted({op for op, _, _ in entries}))
    if all(ops.group(op) == "none" for op in names):
        names += ("skip_connect",)  # a space must have an op that computes something
    nodes = 1 + max(target for _, _, target in entries)
    if isinstance(cells[0], EdgeGenotype):
        return dataclasses.replace(nas_bench_201(), name="of the genotypes", ops=names, nodes=nodes)
    outputs = len(genotypes.ends(cells[0], "normal")[1])
    return SearchSpace("of the genotypes", names, nodes, outputs=outputs)


def init_variables(network: EncodedNetwork, key: jax.Array, image_shape: tuple[int, ...]) -> Variables:
    """Initialises {'params', 'batch_stats'} of all ops for images of the shape (B, H, W, C).

    They do not depend on a genotype. Add the collection `genotype` (see `SearchSpace.encode`) to call the network.
    """
    whole = EncodedNetwork(network.supernet.clone(axis_name=None))  # so that no mapped axis is needed
    variables = jax.jit(lambda key: whole.init(key, jnp.zeros(image_shape), train=True))(key)
    return {name: variables[name] for name in ("params", "batch_stats")}
