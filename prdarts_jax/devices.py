"""Many devices: a mesh of them, and what code inside a mapped axis needs to give what one device would give.

`search_step` and the others are written for one part of a batch: with `axis_name` they take the moments of batch
normalisation, the gradients and the metrics of all parts. They are mapped by `jax.shard_map`. Augmentation and
drop-path are drawn for the whole batch; P-DARTS's dropout and the noise of S4 for each part by itself.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SEED, DATA = "seed", "data"
REPLICATED, SPREAD, SEEDS = PartitionSpec(), PartitionSpec(DATA), PartitionSpec(SEED)


def make_mesh(seeds: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices with the axes `seed` and `data`; devices along `data` share the batch of a search.

    Args:
      seeds: searches at once.
      devices: by default all of them, of all hosts.

    Raises:
      ValueError: processes have different numbers of devices.
    """
    devices = jax.devices() if devices is None else devices
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        raise ValueError(f"the processes must have as many devices as each other, but have {list(counts.values())}")
    return jax.make_mesh(mesh_shape(seeds, len(devices)), (SEED, DATA), (AxisType.Auto,) * 2, devices=devices)


def mesh_shape(seeds: int, devices: int) -> tuple[int, int]:
    """How many devices lie along `seed` and along `data`: along `seed` as many as divide both."""
    along_seed = math.gcd(seeds, devices)
    return along_seed, devices // along_seed


def axis_of(mesh: Mesh) -> str | None:
    """The `axis_name` of what runs on the mesh: None where no batch is spread."""
    return DATA if mesh.shape[DATA] > 1 else None


def over(mesh: Mesh, function: Callable, in_specs: Any = REPLICATED, out_specs: Any = REPLICATED) -> Callable:
    """The function on each device of the mesh, by default with all of its arguments; as it is on a mesh of one.

    Compile it with `jax.jit`. What the function gives must be the same along axes that `out_specs` does not name.
    """
    if mesh.size == 1:
        return function
    # The check would have the cell's own gradients declare what varies along which axis.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def put(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
    """The arrays on the devices of the mesh, by default all on each; each process has all of them."""
    where = sharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def put_one(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put_one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        # Unlike device_put, which sends all arrays to all processes to compare them.
        return jax.make_array_from_callback(leaf.shape, where, lambda part: leaf[part])

    return jax.tree.map(put_one, tree)


def put_shares(share: Any, mesh: Mesh) -> Any:
    """A batch spread over the devices of the mesh; each process has its share of the images, in their order."""
    if jax.process_count() == 1:
        return put(share, mesh, SPREAD)
    return jax.make_array_from_process_local_data(sharding(mesh, SPREAD), share)


def sharding(mesh: Mesh, spec: PartitionSpec) -> Any:
    """Where `put` has arrays."""
    return mesh.devices.flat[0] if mesh.size == 1 else NamedSharding(mesh, spec)


def check_divides(batch_size: int, mesh: Mesh, field: str) -> None:
    """Refuses a batch that cannot be spread evenly.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    parts = mesh.shape[DATA]
    if batch_size % parts:
        raise ValueError(
            f"{field}={batch_size} must be a multiple of {parts}, the devices that share a batch; "
            "CUDA_VISIBLE_DEVICES lets JAX see fewer"
        )


def memory(compiled: jax.stages.Compiled) -> str:
    """How much memory a compiled function needs on each device, in words, and what to change where that is too much."""
    found: Any = compiled.memory_analysis()
    if found is None:
        return "needs as much memory as this backend does not tell"
    needed = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    needed += found.temp_size_in_bytes
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(jax.local_devices())
    else:
        there = (device.memory_stats() or {}).get("bytes_limit", math.inf)
    text = f"needs {needed / 1e9:.2f} GB of memory on each device"
    if needed <= there:
        return text
    return (
        f"{text}, which has {there / 1e9:.2f} GB: if it does not fit, set config.accumulate to take a batch in pieces, "
        "config.dtype=bfloat16, or a smaller config.batch_size or config.channels"
    )


def grad(function: Callable, axis_name: str | None = None, **options: Any) -> Callable:
    """`jax.grad` of a loss that is a mean over the batch: with `axis_name` gradients and aux are means over its parts.

    Use it for all derivatives inside a mapped axis: each part then sees the gradient of the whole batch.

    Args:
      function: the loss of a part.
      axis_name: mapped axis over which the batch is spread, if any.
      **options: of `jax.grad`.
    """
    gradient = jax.grad(function, **options)
    if axis_name is None:
        return gradient
    return lambda *arguments: lax.pmean(gradient(*arguments), axis_name)


def draw_part(draw: Callable[[int], jax.Array], images: int, axis_name: str | None, axis: int = 0) -> jax.Array:
    """Random numbers for the images of this part, which each image gets however many parts there are.

    Args:
      draw: number of images -> array.
      images: in this part.
      axis_name: mapped axis over which the batch is spread, if any.
      axis: of the array, along the images.
    """
    if axis_name is None:
        return draw(images)
    start = lax.axis_index(axis_name) * images
    return lax.dynamic_slice_in_dim(draw(images * lax.axis_size(axis_name)), start, images, axis)


# Several processes ----------------------------------------------------------------------------------------------------


def is_main() -> bool:
    """Whether this process is the one that writes files and draws."""
    return jax.process_index() == 0


def fetch(tree: Any) -> Any:
    """The arrays as NumPy's, whole, in every process; all have to ask."""

    def fetch_one(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(fetch_one, tree)


def everywhere(value: int) -> set[int]:
    """The values that the processes have; all have to ask."""
    return set(np.ravel(multihost_utils.process_allgather(np.array(value))).tolist())


def agree(wish: bool) -> bool:
    """Whether any process wishes it; all have to ask."""
    return True in everywhere(wish)


def wait(what: str) -> None:
    """Returns once all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
