"""Several devices: a mesh of them, and what code in a mapped axis needs to compute the same as on one device.

A step is written for one part of a batch, and `shard_map` maps it over the mesh. With `axis_name` it averages the
moments of batch normalisation, the gradients and the metrics over all parts. The random numbers of augmentation and
drop-path do not depend on the number of parts; those of the dropout and the noise of candidate ops do, since each part
draws its own.
"""

import contextlib
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
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

SEED, DATA = "seed", "data"
REPLICATED, SPREAD, SEEDS = PartitionSpec(), PartitionSpec(DATA), PartitionSpec(SEED)


def make_mesh(seeds: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `seed` and `data`, for `seeds` searches at once; devices along `data` share a batch.

    `devices` are by default all devices of all hosts. In one process on the CPU they are only as many as get seeds of
    their own (see `mesh_shape`), since the ops of a step use all cores already.

    Raises:
      ValueError: processes have different numbers of devices.
    """
    if devices is None:
        devices = jax.devices()
        if devices[0].platform == "cpu" and jax.process_count() == 1:
            devices = devices[: mesh_shape(seeds, len(devices))[0]]
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        raise ValueError(f"the processes must have the same number of devices, but have {list(counts.values())}")
    return jax.make_mesh(mesh_shape(seeds, len(devices)), (SEED, DATA), (AxisType.Auto,) * 2, devices=devices)


def use_every_core() -> None:
    """Makes each processor core a device of JAX's CPU backend, so that each seed or training of a cell has its own.

    Call it before anything asks JAX for its devices; later it does nothing. It also does nothing if JAX_NUM_CPU_DEVICES
    or XLA_FLAGS set the number of devices. It has no effect on a GPU or TPU.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has its devices already
        jax.config.update("jax_num_cpu_devices", cores)


def mesh_shape(seeds: int, devices: int) -> tuple[int, int]:
    """(devices along `seed`, devices along `data`); the former is the greatest common divisor of seeds and devices."""
    along_seed = math.gcd(seeds, devices)
    return along_seed, devices // along_seed


def axis_of(mesh: Mesh) -> str | None:
    """The `axis_name` for code on the mesh: 'data', or None if only one device lies along it and no batch is spread."""
    return DATA if mesh.shape[DATA] > 1 else None


def shard_map(function: Callable, mesh: Mesh, in_specs: Any = REPLICATED, out_specs: Any = REPLICATED) -> Callable:
    """Runs a function on each device of the mesh; by default each device gets the whole arguments.

    Compile the result with `jax.jit`; on a mesh of one device it is the function itself. The function must return the
    same values along axes that `out_specs` does not name.
    """
    if mesh.size == 1:
        return function
    # The check would require the custom gradients of a cell to declare what varies along which axis.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def for_each_seed(function: Callable, mesh: Mesh, *specs: PartitionSpec, **options: Any) -> Any:
    """Compiles a function of (state, *others) -> results for the stacked states of all seeds, which share the others.

    `specs` say how the others lie on the mesh, `options` are those of `jax.jit`. Seeds on one device are computed one
    after another: with `jax.vmap` all ops would be executed, even those of weight 0.
    """

    def of_all(states, *others):
        return jax.lax.map(lambda state: function(state, *others), states)

    return jax.jit(shard_map(of_all, mesh, (SEEDS, *specs), SEEDS), **options)


def device_put(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
    """Puts arrays on the devices of the mesh, by default whole on each; every process must have the whole arrays."""
    where = sharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def put_leaf(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put_leaf(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        # Unlike device_put, this does not send all arrays to all processes to compare them.
        return jax.make_array_from_callback(leaf.shape, where, lambda part: leaf[part])

    return jax.tree.map(put_leaf, tree)


def device_put_local(batch: Any, mesh: Mesh) -> Any:
    """A batch, spread over the devices of the mesh along the first axis of its arrays.

    Each process passes its own part of the batch, in the order of the processes.
    """
    if jax.process_count() == 1:
        return device_put(batch, mesh, SPREAD)
    return jax.make_array_from_process_local_data(sharding(mesh, SPREAD), batch)


def sharding(mesh: Mesh, spec: PartitionSpec) -> jax.sharding.Sharding:
    """Where `device_put` puts arrays; on a mesh of one device this does not depend on the spec."""
    return SingleDeviceSharding(mesh.devices.flat[0]) if mesh.size == 1 else NamedSharding(mesh, spec)


def check_divides(batch_size: int, mesh: Mesh, name: str) -> None:
    """Refuses a batch that cannot be spread evenly over the mesh.

    Raises:
      ValueError: with the name, the value and what is allowed.
    """
    parts = mesh.shape[DATA]
    if batch_size % parts:
        raise ValueError(
            f"{name}={batch_size} must be a multiple of {parts}, the devices that share a batch; "
            "CUDA_VISIBLE_DEVICES lets JAX see fewer"
        )


def memory(compiled: jax.stages.Compiled) -> tuple[int | None, float]:
    """(bytes that a compiled function needs on each device, bytes of memory that a device has).

    The former is None, and the latter infinite, if the backend does not report it.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        used = jax.tree.leaves(compiled.input_shardings)[0].device_set & set(jax.local_devices())
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(used)
    else:
        available = (device.memory_stats() or {}).get("bytes_limit", math.inf)
    found: Any = compiled.memory_analysis()
    if found is None:
        return None, available
    needed = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return needed + found.temp_size_in_bytes, available


def grad(function: Callable, axis_name: str | None = None, **options: Any) -> Callable:
    """`jax.grad`, with its options, of a loss that is a mean over a batch, which may be spread over `axis_name`.

    Use it for all derivatives inside a mapped axis: it averages gradients and aux over the parts of the batch, so that
    each part gets those of the whole batch.
    """
    gradient = jax.grad(function, **options)
    if axis_name is None:
        return gradient
    return lambda *arguments: lax.pmean(gradient(*arguments), axis_name)


def draw_part(draw: Callable[[int], jax.Array], images: int, axis_name: str | None, axis: int = 0) -> jax.Array:
    """Random numbers for the images of this part of a batch; those of an image do not depend on the number of parts.

    Args:
      draw: number of images -> array; it is called for the whole batch.
      images: number of images in this part.
      axis_name: mapped axis over which the batch is spread, if any.
      axis: the axis of the array along which the images lie.
    """
    if axis_name is None:
        return draw(images)
    start = lax.axis_index(axis_name) * images
    return lax.dynamic_slice_in_dim(draw(images * lax.axis_size(axis_name)), start, images, axis)


# Several processes ----------------------------------------------------------------------------------------------------


def is_main() -> bool:
    """Whether this is the first process, which alone prints and writes files."""
    return jax.process_index() == 0


def device_get(tree: Any) -> Any:
    """The whole arrays as NumPy arrays, in every process; all processes must call it."""

    def get_leaf(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(get_leaf, tree)


def all_gather(value: int) -> set[int]:
    """The set of the values of all processes; all must call it."""
    return set(np.ravel(multihost_utils.process_allgather(np.array(value))).tolist())


def any(value: bool) -> bool:
    """Whether the value is true in any process; all must call it."""
    return True in all_gather(value)


def barrier(name: str) -> None:
    """Returns once all processes have called it with this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
