"""The discrete network of a genotype, for training from scratch (DARTS; Liu et al., ICLR 2019, section 3.2).

Like the supernet, but with the ops of the genotype alone, affine batch normalisation with running statistics, no
normalisation after pools, drop-path and an auxiliary head.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from prdarts_jax import devices, ops
from prdarts_jax.nets.discrete_201 import DiscreteNetwork201
from prdarts_jax.nets.layers import AuxiliaryHead, BatchNorm, Conv, Form, Layer, classifier, imagenet_stem
from prdarts_jax.refusals import listed, shown
from prdarts_jax.spaces import layout
from prdarts_jax.spaces.genotypes import AnyGenotype, EdgeGenotype, Genotype


class Published(NamedTuple):
    """What the authors' networks of a form have; `image_shape` is (height, width, channels)."""

    channels: int
    cells: int
    num_classes: int
    image_shape: tuple[int, int, int]


_PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {"cifar": Published(36, 20, 10, (32, 32, 3)), "imagenet": Published(48, 14, 1000, (224, 224, 3))}
)
FORMS = tuple(_PUBLISHED)


class DiscreteCell(nn.Module):
    """One cell of a genotype: `entries` and `concat` as there, of C `channels`.

    It halves the image if it is a `reduction`; with `reduction_before` the input of cell k-2 has twice the size of that
    of cell k-1.
    """

    entries: tuple[tuple[str, int], ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    reduction_before: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, s0: jax.Array, s1: jax.Array, keep: jax.Array | None, *, train: bool) -> jax.Array:
        """[B, H, W, D] of cells k-2 and k-1 -> [B, h, w, len(concat) C].

        `keep` is f32[entries, B], what drop-path multiplies the entries by, or None.
        """

        def apply(name, op, x):
            return Layer(op, self.channels, self.axis_name, name=name)(x, train=train)

        build = ops.factorized_reduce if self.reduction_before else ops.relu_conv_norm
        states = [
            apply("preprocess_0", build(s0.shape[-1], self.channels), s0),
            apply("preprocess_1", ops.relu_conv_norm(s1.shape[-1], self.channels), s1),
        ]
        results = []
        for i, (name, source) in enumerate(self.entries):
            stride = 2 if self.reduction and source < 2 else 1
            if ops.group(name) == "none":
                y = jnp.zeros_like(states[source][:, ::stride, ::stride])
            else:
                y = apply(f"op_{i}", ops.candidate(name, channels=self.channels, stride=stride), states[source])
            if keep is not None and not (ops.group(name) == "skip" and stride == 1):
                y *= keep[i, :, None, None, None].astype(y.dtype)
            results.append(y)
            if i % 2:
                states.append(results[-2] + y)
        return jnp.concatenate([states[node] for node in self.concat], axis=-1)


class DiscreteNetwork(nn.Module):
    """Stem, cells, head. Collections: `params` and `batch_stats`.

    The width doubles at the reductions (`spaces.layout`). In the form 'imagenet' three convolutions of stride 2 come
    first, and the first cell takes its second input from before the last of them.

    Attributes:
      genotype: the cells.
      form: 'cifar' or 'imagenet'.
      channels: C of the first cells, even.
      cells: k, at least 1.
      num_classes: length of the logits.
      auxiliary: with an auxiliary head; in training its logits are sown as `logits` into the collection `auxiliary`.
      dtype: compute dtype, float32 or bfloat16. Parameters, BN statistics and classifiers stay float32.
      axis_name: mapped axis over which the batch is spread, if any: BN takes the moments of the global batch.
    """

    genotype: Genotype
    form: Form = "cifar"
    channels: int = 36
    cells: int = 20
    num_classes: int = 10
    auxiliary: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, drop_path: jax.Array | float = 0.0) -> jax.Array:
        """Classifies images.

        Args:
          images: f32[B, H, W, channels].
          train: normalise by the batch and, if batch_stats is mutable, update the running statistics.
          drop_path: probability, below 1, that an image's path through an op (identities excepted) is cut; what is not
            cut is divided by 1 - drop_path. Counts when training with an rng named drop_path.

        Returns:
          Logits of the classes, f32[B, num_classes].
        """

        def norm(name, x):
            return BatchNorm(running_statistics=True, axis_name=self.axis_name, name=name)(x, train=train)

        x = images.astype(self.dtype)
        if self.form == "cifar":
            s0 = s1 = norm("stem_norm_0", Conv(3 * self.channels, dtype=self.dtype, name="stem_conv_0")(x))
        else:
            s0, s1 = imagenet_stem(x, self.channels, norm)

        keep: Any = [None] * self.cells
        if train and self.has_rng("drop_path"):
            paths, key = max(len(self.genotype.normal), len(self.genotype.reduce)), self.make_rng("drop_path")
            keep = devices.draw_part(
                lambda n: ops.drop_path_factors(key, drop_path, (self.cells, paths, n)), len(images), self.axis_name, 2
            )
        channels, reduction_before = self.channels, self.form == "imagenet"
        types = layout(self.cells)
        for k, cell_type in enumerate(types):
            reduction = cell_type == "reduce"
            channels *= 2 if reduction else 1
            cell = DiscreteCell(
                entries=getattr(self.genotype, cell_type),
                concat=getattr(self.genotype, f"{cell_type}_concat"),
                channels=channels,
                reduction=reduction,
                reduction_before=reduction_before,
                axis_name=self.axis_name,
                name=f"cell_{k}",
            )
            s0, s1 = s1, cell(s0, s1, keep[k], train=train)
            reduction_before = reduction
            if self.auxiliary and train and reduction and "reduce" not in types[k + 1 :]:
                head = AuxiliaryHead(self.num_classes, self.dtype, self.axis_name, name="auxiliary_head")
                self.sow("auxiliary", "logits", head(s1, train=train), reduce_fn=lambda _, new: new)
        return classifier(self.num_classes)(jnp.mean(s1.astype(jnp.float32), axis=(1, 2)))


def network(
    genotype: AnyGenotype,
    *,
    form: Form = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = False,
    **fields: Any,
) -> DiscreteNetwork | DiscreteNetwork201:
    """The network of a genotype with these fields; what is left out is as published for CIFAR-10 or ImageNet.

    Args:
      genotype: the cells.
      form: 'cifar' or 'imagenet'.
      channels: 36 or 48 by default; 16 for an EdgeGenotype.
      cells: 20 or 14 by default; for an EdgeGenotype those of each of three stages, 5.
      num_classes: 10 or 1000 by default.
      auxiliary: whether there is an auxiliary head.
      **fields: others of the network's class.

    Raises:
      ValueError: there is no such form, the genotype is none, or the network of an EdgeGenotype is to have another form
        or an auxiliary head.
    """
    defaults = published(form)
    if not isinstance(genotype, AnyGenotype):
        raise ValueError(f"genotype={shown(genotype)} must be a Genotype or an EdgeGenotype (genotypes.named has some)")
    own = defaults._asdict()
    own |= {"channels": 16, "cells": 5} if isinstance(genotype, EdgeGenotype) else {}
    given = {"channels": channels, "cells": cells, "num_classes": num_classes}
    fields |= {name: own[name] if value is None else value for name, value in given.items()}
    if isinstance(genotype, Genotype):
        return DiscreteNetwork(genotype, form, auxiliary=auxiliary, **fields)
    if form != "cifar" or auxiliary:
        raise ValueError(
            f"form={form!r} and auxiliary={auxiliary} must be 'cifar' and False for the network of an EdgeGenotype"
        )
    return DiscreteNetwork201(genotype, **fields)


def published(form: str) -> Published:
    """What the authors' networks of a form have; a ValueError if there is no such form."""
    if form not in FORMS:
        raise ValueError(f"form={shown(form)} must be one of {listed(form, FORMS)}")
    return _PUBLISHED[form]


def init_variables(network: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """What `network.init` gives for images of the shape (B, H, W, C), in less time: all kernels are cut from one draw.

    Returns:
      {'params', 'batch_stats'}, arrays of float32.
    """
    shapes = shapes_of(network, image_shape)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(shapes).items() if path[0] in ("params", "batch_stats")}
    kernels = {path: shape for path, shape in shapes.items() if len(shape) > 1 and path[0] == "params"}

    @jax.jit
    def draw(key):
        start = {path: jnp.full(shape, path[-1] in ("scale", "var"), jnp.float32) for path, shape in shapes.items()}
        return unflatten_dict(start | ops.init_params(key, kernels))

    return draw(key)


def shapes_of(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The shapes and dtypes of what `network.init` gives, for images of the shape (B, H, W, C)."""
    images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    if getattr(network, "axis_name", None):
        network = network.clone(axis_name=None)  # so that this need not be in a mapped axis
    return jax.eval_shape(functools.partial(network.init, train=True), jax.random.key(0), images)
