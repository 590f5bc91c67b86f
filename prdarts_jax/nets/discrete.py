"""The discrete network of a genotype, for training from scratch (DARTS; Liu et al., ICLR 2019, section 3.2).

It is like the supernet, but has only the ops of the genotype, affine batch normalisation with running statistics, no
normalisation after pools, drop-path and an auxiliary head.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from prdarts_jax import devices, ops
from prdarts_jax.fields import at_least, checked
from prdarts_jax.nets.discrete_201 import DiscreteNetwork201
from prdarts_jax.nets.layers import AuxiliaryHead, BatchNorm, Conv, Form, Layer, check_dtype, classifier, imagenet_stem
from prdarts_jax.refusals import listed, shown
from prdarts_jax.spaces import layout
from prdarts_jax.spaces.genotypes import AnyGenotype, Genotype


class Published(NamedTuple):
    """The sizes of the networks of a form, 'cifar' or 'imagenet', in the papers of DARTS and PR-DARTS."""

    channels: int  # of the first cells
    cells: int
    num_classes: int
    image_shape: tuple[int, int, int]  # (height, width, channels)


_PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {"cifar": Published(36, 20, 10, (32, 32, 3)), "imagenet": Published(48, 14, 1000, (224, 224, 3))}
)
FORMS = tuple(_PUBLISHED)


class DiscreteCell(nn.Module):
    """A cell of a `DiscreteNetwork`. Its two inputs are the outputs of the two cells before it, k-2 and k-1.

    Attributes:
      entries: the pairs (op, input node) of the genotype, two for each intermediate node.
      concat: the nodes that are concatenated.
      channels: C, the width of each node.
      reduction: whether the cell halves height and width.
      reduction_before: whether the cell k-1 halves them, so that the output of the cell k-2 is twice as high and wide.
      axis_name: as that of `DiscreteNetwork`.
    """

    entries: tuple[tuple[str, int], ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    reduction_before: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, s0: jax.Array, s1: jax.Array, keep: jax.Array | None, *, train: bool) -> jax.Array:
        """Computes the output of the cell.

        Args:
          s0: output of the cell k-2, [B, H, W, D]; with `reduction_before` [B, 2 H, 2 W, D], or one less on a side.
          s1: output of the cell k-1, [B, H, W, D'].
          keep: f32[entries, B], the factors of drop-path for each entry and image, or None.
          train: as for `DiscreteNetwork.__call__`.

        Returns:
          [B, h, w, len(concat) C], where h and w are H and W, in a reduction half of them, rounded up.
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


@checked
class DiscreteNetwork(nn.Module):
    """The network of a `Genotype`: a stem, cells and a head. The width doubles at the reductions (`spaces.layout`).

    Variables are in the collections `params` and `batch_stats`.

    Attributes:
      genotype: the cells.
      form: the stem. 'cifar': one convolution with 3 C channels. 'imagenet': three convolutions of stride 2, with
        C / 2, C and C channels; the inputs of the first cell are the outputs of the second and the third.
      channels: C of the first cells.
      cells: number of cells, at least 1.
      num_classes: number of classes.
      auxiliary: whether there is an auxiliary head after the last reduction. In calls with train=True, its logits
        f32[B, num_classes] are sown under the name `logits` into the collection `auxiliary`.
      dtype: dtype of the computation, float32 or bfloat16. Parameters, BN statistics and classifiers stay float32.
      axis_name: the mapped axis over which the batch is spread, if any; BN then takes the moments of the whole batch.

    Raises:
      ValueError: a field is of another type or out of range.
    """

    genotype: Genotype
    form: Form = "cifar"
    channels: Annotated[int, at_least(1)] = 36
    cells: Annotated[int, at_least(1)] = 20
    num_classes: Annotated[int, at_least(1)] = 10
    auxiliary: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, drop_path: jax.Array | float = 0.0) -> jax.Array:
        """Classifies images.

        Args:
          images: f32[B, H, W, channels].
          train: whether to normalise by the statistics of the batch and, if `batch_stats` is mutable, to update the
            running statistics.
          drop_path: the probability, below 1, that the output of an op for an image is set to 0; outputs that are kept
            are divided by 1 - drop_path. Identities are never dropped. It has an effect only with train=True and an rng
            named `drop_path`.

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


Network = DiscreteNetwork | DiscreteNetwork201  # what `network` makes


def network(
    genotype: AnyGenotype,
    *,
    form: Form = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = False,
    **fields: Any,
) -> Network:
    """Makes the network of a genotype. The defaults are the published sizes for CIFAR-10 or ImageNet.

    Args:
      genotype: a `Genotype`, which gives a `DiscreteNetwork`, or an `EdgeGenotype`, which gives a `DiscreteNetwork201`.
      form: 'cifar' or 'imagenet'; an EdgeGenotype has only 'cifar'.
      channels: C; by default 36 for 'cifar' and 48 for 'imagenet', or 16 for an EdgeGenotype.
      cells: the number of cells, by default 20 for 'cifar' and 14 for 'imagenet'; for an EdgeGenotype the number per
        stage, by default 5.
      num_classes: by default 10 for 'cifar' and 1000 for 'imagenet'.
      auxiliary: whether there is an auxiliary head; an EdgeGenotype has none.
      **fields: further fields of the network's class, such as dtype and axis_name.

    Raises:
      ValueError: `form` is unknown, `genotype` is not a genotype, or an EdgeGenotype is given with another form than
        'cifar' or with an auxiliary head.
    """
    sizes = published(form)
    if not isinstance(genotype, AnyGenotype):
        raise ValueError(f"genotype={shown(genotype)} must be a Genotype or an EdgeGenotype (genotypes.named has some)")
    given = {"channels": channels, "cells": cells, "num_classes": num_classes}
    fields |= {name: value for name, value in given.items() if value is not None}
    if isinstance(genotype, Genotype):
        own = {name: getattr(sizes, name) for name in given}
        return DiscreteNetwork(genotype, form, auxiliary=auxiliary, **own | fields)
    if form != "cifar" or auxiliary:
        raise ValueError(
            f"form={form!r} and auxiliary={auxiliary} must be 'cifar' and False for the network of an EdgeGenotype"
        )
    return DiscreteNetwork201(genotype, **fields)


def published(form: object) -> Published:
    """The published sizes of the networks of a form, 'cifar' or 'imagenet'.

    Raises:
      ValueError: there is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"form={shown(form)} must be one of {listed(form, FORMS)}")
    return _PUBLISHED[form]


def init_variables(network: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Initialises the variables of a network, faster than `network.init` because all kernels are slices of one draw.

    The values have the same distribution as those of `network.init`, but are not the same.

    Args:
      network: a discrete network.
      key: a random key; do not use it again.
      image_shape: (B, H, W, C); the result does not depend on B.

    Returns:
      {'params', 'batch_stats'}, trees of float32 arrays.
    """
    shapes = shapes_of(network, image_shape)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(shapes).items() if path[0] in ("params", "batch_stats")}
    kernels = {path: shape for path, shape in shapes.items() if len(shape) > 1 and path[0] == "params"}

    @jax.jit
    def draw(key):
        ones = {path: path[-1].endswith("scale" if path[0] == "params" else "var") for path in shapes}
        start = {path: jnp.full(shape, ones[path], jnp.float32) for path, shape in shapes.items()}
        return unflatten_dict(start | ops.init_params(key, kernels))

    return draw(key)


def shapes_of(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The shapes and dtypes of the variables that `network.init` gives for images of the shape (B, H, W, C), as a tree
    of `jax.ShapeDtypeStruct`."""
    images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    if getattr(network, "axis_name", None):
        network = network.clone(axis_name=None)  # so that no mapped axis is needed
    return jax.eval_shape(functools.partial(network.init, train=True), jax.random.key(0), images)
