"""Converts PyTorch checkpoints of PR-DARTS, DARTS, Fair DARTS and NAS-Bench-201 to variables of discrete networks, and
back.

Both directions use one table, `_entries`: the names of every array in PyTorch and here, and how its axes are ordered.
"""

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prdarts_jax import ops, refusals, spaces
from prdarts_jax.fields import at_least, checked
from prdarts_jax.nets import discrete, torch_files
from prdarts_jax.nets.discrete_201 import DiscreteNetwork201

_LISTED = 3  # the most names of each kind in a message
_HEAD = "auxiliary_head"  # its name in PyTorch and here
_COUNTER = "num_batches_tracked"  # the counter of a batch normalisation; with a fixed momentum it has no effect


@checked
def load(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    network: discrete.Network,
    image_channels: Annotated[int, at_least(1)] = 3,
) -> dict[str, Any]:
    """Reads the weights of a discrete network from PyTorch.

    The keys under which a file may have the weights are listed in `torch_files.state_dict`. To read a file, PyTorch
    must be installed. The counters `num_batches_tracked` are ignored, and so is an auxiliary head that the network has
    not. DARTS's own ImageNet checkpoint has a head without the second normalisation, unlike that of `discrete.py`: read
    it with a network without one.

    Args:
      path_or_state_dict: a file of `torch.save`, or a mapping of names to floating-point arrays or tensors. Names are
        those in the code of DARTS or Fair DARTS, or for an EdgeGenotype those in the code of NAS-Bench-201.
      network: as `discrete.network` makes it; the entries of its cells are in the order that the checkpoint has.
      image_channels: number of channels of the images, 1 for grey ones.

    Returns:
      {'params': ..., 'batch_stats': ...}, trees of float32 arrays, the variables of the network.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a file is given and PyTorch is missing.
      ValueError: the file cannot be read or has no state_dict; arrays are missing, left over or of another shape; an op
        of the network was registered without its names in PyTorch; or an argument is of another type or out of range.
    """
    if isinstance(path_or_state_dict, Mapping):
        source, content = "state_dict", path_or_state_dict
    else:
        source, content = f"checkpoint {path_or_state_dict}", torch_files.read(path_or_state_dict)
    state = torch_files.state_dict(source, content)
    arrays = {name: value for name, value in state.items() if not name.endswith(f".{_COUNTER}")}
    if not getattr(network, "auxiliary", False):
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{_HEAD}.")}
    if isinstance(network, discrete.DiscreteNetwork):
        arrays = _numbered(arrays, network)
    entries = list(_entries(network, image_channels))
    expected = {entry.name: entry.layout.torch_shape(entry.shape) for entry in entries}
    found = _checked(arrays, expected, f"{source} does not fit this network")
    return traverse_util.unflatten_dict(
        {entry.path: jnp.array(entry.layout.from_torch(found[entry.name])) for entry in entries}
    )


@checked
def to_torch(
    variables: Mapping[str, Any], network: discrete.Network, image_channels: Annotated[int, at_least(1)] = 3
) -> dict[str, np.ndarray]:
    """Converts the variables of a discrete network to PyTorch's names and layouts; the inverse of `load`.

    With `state = to_torch(...)`, `{name: torch.from_numpy(array) for name, array in state.items()}` is a state_dict
    for `load_state_dict(strict=True)`.

    Args:
      variables: {'params', 'batch_stats'} of the network. Other collections are ignored, and so is an auxiliary head
        that the network has not.
      network, image_channels: as for `load`.

    Returns:
      {name in PyTorch: float32 array}, in the order of PyTorch's state_dict. Each counter `num_batches_tracked` is an
      int64 zero, since batches are not counted here.

    Raises:
      ValueError: as `load`.
    """
    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    flat = traverse_util.flatten_dict(collections)
    arrays = {
        ".".join(path): a for path, a in flat.items() if _HEAD not in path[1:2] or getattr(network, "auxiliary", False)
    }
    entries = list(_entries(network, image_channels))
    expected = {".".join(entry.path): entry.shape for entry in entries}
    found = _checked(arrays, expected, "variables do not fit this network")
    state = {}
    for entry in entries:
        state[entry.name] = np.array(entry.layout.to_torch(found[".".join(entry.path)]), order="C")
        if entry.path[-1] == "var":
            state[entry.name.removesuffix("running_var") + _COUNTER] = np.zeros((), np.int64)
    return state


# The table ------------------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """The layout of an array in PyTorch: `axes` are our axes in PyTorch's order, `units` the added axes of length 1."""

    axes: tuple[int, ...]
    units: tuple[int, ...] = ()

    def to_torch(self, array):
        return np.expand_dims(array.transpose(self.axes), self.units)

    def from_torch(self, array):
        return array.squeeze(self.units).transpose(np.argsort(self.axes))

    def torch_shape(self, shape):
        return self.to_torch(np.broadcast_to(np.float32(0), shape)).shape


_VECTOR = _Layout((0,))
_DENSE = _Layout((1, 0))  # ours [in, out], PyTorch's [out, in]
_POINTWISE = _Layout((1, 0), (2, 3))  # [in, out], [out, in, 1, 1]
_DEPTHWISE = _Layout((2, 0, 1), (1,))  # [k, k, C], [C, 1, k, k]
_FULL = _Layout((3, 2, 0, 1))  # [k, l, in, out], [out, in, k, l]
_OF_OPS = MappingProxyType({2: _POINTWISE, 3: _DEPTHWISE, 4: _FULL})  # by the number of our axes


class _Entry(NamedTuple):
    """An array: its name in PyTorch, its path and shape in our variables, and its layout in PyTorch."""

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    layout: _Layout


def _entries(network: discrete.Network, image_channels: int) -> Iterator[_Entry]:
    """Every array of a network, in PyTorch's order."""
    if isinstance(network, DiscreteNetwork201):
        yield from _entries_201(network, image_channels)
        return
    channels = network.channels
    if network.form == "cifar":
        width_0 = width_1 = 3 * channels
        yield from _conv_and_norm(
            "stem.0", "stem.1", ("stem_conv_0",), ("stem_norm_0",), (3, 3, image_channels, width_1)
        )
    else:
        width_0 = width_1 = channels
        for i, theirs in enumerate((("stem0.0", "stem0.1"), ("stem0.3", "stem0.4"), ("stem1.1", "stem1.2"))):
            shape = (3, 3, (image_channels, channels // 2, channels)[i], (channels // 2, channels, channels)[i])
            yield from _conv_and_norm(*theirs, (f"stem_conv_{i}",), (f"stem_norm_{i}",), shape)

    # width_0 and width_1 are the widths of a cell's inputs, channels that of the cell.
    reduction_before = network.form == "imagenet"
    for k, cell_type in enumerate(spaces.layout(network.cells)):
        cell, path = f"cells.{k}", f"cell_{k}"
        reduction = cell_type == "reduce"
        channels *= 2 if reduction else 1
        for i, width in enumerate((width_0, width_1)):
            op, layers = ops.relu_conv_norm(width, channels), ops.RELU_CONV_NORM_LAYERS
            if reduction_before and i == 0:
                op, layers = ops.factorized_reduce(width, channels), ops.FACTORIZED_REDUCE_LAYERS
            yield from _op(f"{cell}.preprocess{i}", (path, f"preprocess_{i}"), layers, op, channels)
        for i, (name, node) in enumerate(getattr(network.genotype, cell_type)):
            stride = 2 if reduction and node < 2 else 1
            op = ops.candidate(name, channels=channels, stride=stride)
            yield from _op(f"{cell}._ops.{i}", (path, f"op_{i}"), _layers(name, stride, op), op, channels)
        width_0, width_1 = width_1, len(getattr(network.genotype, f"{cell_type}_concat")) * channels
        reduction_before = reduction
        if reduction:
            features = width_1  # the input of the auxiliary head, which follows the last reduction

    if network.auxiliary:
        for i, shape in enumerate(((1, 1, features, 128), (2, 2, 128, 768))):
            theirs = (f"{_HEAD}.features.{2 + 3 * i}", f"{_HEAD}.features.{3 + 3 * i}")
            yield from _conv_and_norm(*theirs, (_HEAD, f"conv_{i}"), (_HEAD, f"norm_{i}"), shape)
        yield from _dense(f"{_HEAD}.classifier", (_HEAD, "classifier"), (768, network.num_classes))
    yield from _dense("classifier", ("classifier",), (width_1, network.num_classes))


def _numbered(arrays: Mapping[str, Any], network: discrete.DiscreteNetwork) -> dict[str, Any]:
    """Renames the arrays of Fair DARTS as in DARTS: `_ops.3` for entry 3, not `_ops.NODE.INPUT.0` for its edge."""
    names, connections = {}, spaces.genotypes.cells(network.genotype)
    for k, cell_type in enumerate(spaces.layout(network.cells)):
        edges: list[tuple[int, int]] = []
        for i, (op, source, target) in enumerate(connections[cell_type]):
            if ops.group(op) != "none":
                names[f"cells.{k}._ops.{target}.{source}.{edges.count((source, target))}"] = f"cells.{k}._ops.{i}"
                edges.append((source, target))
    parts = {name: name.split(".") for name in arrays}
    edge = {name: ".".join(part[:6]) for name, part in parts.items()}
    return {".".join([names.get(edge[name], edge[name]), *parts[name][6:]]): arrays[name] for name in arrays}


def _entries_201(network: DiscreteNetwork201, image_channels: int) -> Iterator[_Entry]:
    """Every array of a network of NAS-Bench-201 (Dong, Yang, ICLR 2020), whose code counts residual blocks as cells."""
    channels, cells = network.channels, network.cells
    yield from _conv_and_norm("stem.0", "stem.1", ("stem",), ("stem_norm",), (3, 3, image_channels, channels))
    for stage in range(3):
        first = stage * (cells + 1)  # the index of the stage's first cell in the benchmark's code
        if stage:
            theirs, path = f"cells.{first - 1}", f"block_{stage}"
            channels *= 2
            for i, (name, width) in enumerate((("conv_a", channels // 2), ("conv_b", channels))):
                convolution = (f"{theirs}.{name}.op.1", f"{theirs}.{name}.op.2")
                yield from _conv_and_norm(
                    *convolution, (path, f"conv_{i}"), (path, f"norm_{i}"), (3, 3, width, channels)
                )
            shortcut = ("params", path, "shortcut", "kernel")
            yield _Entry(f"{theirs}.downsample.1.weight", shortcut, (channels // 2, channels), _POINTWISE)
        for k in range(cells):
            for i, name in enumerate(network.genotype.ops):
                op = ops.candidate(name, channels=channels, stride=1)
                ours = (f"cell_{stage * cells + k}", f"op_{i}")
                yield from _op(f"cells.{first + k}.layers.{i}", ours, _layers(name, 1, op), op, channels)
    yield from _norm("lastact.0", ("head_norm",), ("head_norm", "moments"), channels)
    yield from _dense("classifier", ("classifier",), (channels, network.num_classes))


def _layers(name: str, stride: int, op: ops.Op) -> ops.Layers:
    """The layers of a registered op that have weights, with their names in PyTorch."""
    layers = ops.find(name).torch.get(stride, ())
    if {ours for _, ours in layers} != {*op.shapes, *op.norms}:
        raise ValueError(
            f"op {name!r} has weights at stride {stride} whose names in PyTorch are not registered; allowed are ops "
            "whose `torch` names the module of every kernel and normalisation"
        )
    return layers


def _op(theirs: str, ours: tuple[str, ...], layers: ops.Layers, op: ops.Op, channels: int) -> Iterator[_Entry]:
    for module, name in layers:
        if name in op.norms:
            yield from _norm(f"{theirs}.{module}", (*ours, "norm", name), (*ours, "norm", name), channels)
        else:
            shape = op.shapes[name]
            if len(shape) not in _OF_OPS:
                raise ValueError(f"the array {name!r} of {theirs}, of the shape {shape}, must have 2 to 4 axes")
            yield _Entry(f"{theirs}.{module}.weight", ("params", *ours, "conv", name), shape, _OF_OPS[len(shape)])


def _conv_and_norm(
    their_conv: str, their_norm: str, conv: tuple[str, ...], norm: tuple[str, ...], shape: tuple[int, ...]
) -> Iterator[_Entry]:
    yield _Entry(f"{their_conv}.weight", ("params", *conv, "kernel"), shape, _FULL)
    yield from _norm(their_norm, norm, (*norm, "moments"), shape[-1])


def _norm(theirs: str, affine: tuple[str, ...], moments: tuple[str, ...], channels: int) -> Iterator[_Entry]:
    yield _Entry(f"{theirs}.weight", ("params", *affine, "scale"), (channels,), _VECTOR)
    yield _Entry(f"{theirs}.bias", ("params", *affine, "bias"), (channels,), _VECTOR)
    yield _Entry(f"{theirs}.running_mean", ("batch_stats", *moments, "mean"), (channels,), _VECTOR)
    yield _Entry(f"{theirs}.running_var", ("batch_stats", *moments, "var"), (channels,), _VECTOR)


def _dense(theirs: str, ours: tuple[str, ...], shape: tuple[int, int]) -> Iterator[_Entry]:
    yield _Entry(f"{theirs}.weight", ("params", *ours, "kernel"), shape, _DENSE)
    yield _Entry(f"{theirs}.bias", ("params", *ours, "bias"), shape[1:], _VECTOR)


# Checking -------------------------------------------------------------------------------------------------------------


def _array(value: Any) -> np.ndarray:
    """Converts an array or tensor for which `shape_of` is not None to float32."""
    if hasattr(value, "is_floating_point"):
        value = value.detach().cpu().float().resolve_neg().numpy()
    return np.asarray(value, np.float32)


def _checked(arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], failure: str) -> dict[str, np.ndarray]:
    """The arrays in float32. Nothing is copied unless all names and shapes are as expected.

    Raises:
      ValueError: names, shapes or numbers cannot be those of the network; the message lists the differences.
    """
    found = {name: shape for name, value in arrays.items() if (shape := torch_files.shape_of(value)) is not None}
    differences = {
        "missing": [name for name in expected if name not in arrays],
        "left over": [name for name in arrays if name not in expected],
        "no dense floating-point array": [name for name in expected if name in arrays and name not in found],
        "of another shape": [
            f"{name} {refusals.shown(found[name])} instead of {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    copied = {}
    if not any(differences.values()):
        copied = {name: _array(arrays[name]) for name in expected}
        differences["with numbers that are not finite"] = [n for n, a in copied.items() if not np.isfinite(a).all()]
        differences["with negative variances"] = [n for n, a in copied.items() if n.endswith("var") and np.any(a < 0)]
    if any(differences.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_cut(names)}" for kind, names in differences.items() if names)
        raise ValueError(f"{failure}: {listed}")
    return copied


def _cut(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(refusals.cut(name, 100) for name in names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
