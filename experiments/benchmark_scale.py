"""Many seeds and many devices, as far as one machine can show it.

Populations: eight seeds in one compiled function on one device, compared with the same seeds one after another and with
one device per core. Weak scaling: a step with 32 + 32 images on one device of one core, and on each of two such devices
that work independently; and with 64 + 64 images on both devices together, with exchange and, to see what that costs,
without. The method is PR-DARTS (as in the paper) in DARTS's space, C = 8, five cells, 16x16.

Traffic: the number and the size of the all-reduces in a step of DARTS's search (C = 16, eight cells, 64 + 64 images of
32x32), and from these an estimate of the efficiency on more devices if nothing overlaps. The arrays of a gradient count
as one, since the compilers for GPU and TPU combine them; the two losses of a step are not counted.

    python experiments/benchmark_scale.py

It takes more than ten minutes on two cores; nothing else may run at the same time.
"""

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from benchmark_step import alternate
from jax import lax
from jax.sharding import PartitionSpec as P

from prdarts_jax import devices
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_step

SEEDS, STEPS = 8, 5
# Assumed, not measured: seconds of a small all-reduce, and bytes per second that each device moves in a large one.
LINKS = {8: (20e-6, 150e9), 256: (60e-6, 25e9)}
STEP_SECONDS = (0.05, 0.2, 1.0)


class Size(NamedTuple):
    """The size of a supernet and of a device's part of a batch."""

    channels: int
    cells: int
    images: int
    side: int


SMALL, WHOLE = Size(8, 5, 32, 16), Size(16, 8, 64, 32)


def make_problem(size: Size, axis_name: str | None = None, method: str = "pr_darts") -> SearchProblem:
    """The search with a method in a supernet of DARTS's space."""
    return SearchProblem(
        supernet=Supernet(channels=size.channels, cells=size.cells, axis_name=axis_name),
        method=methods.find(method)(),
        weight_optimizer=optax.sgd(0.025, momentum=0.9),
        arch_optimizer=optax.adam(3e-4, b1=0.5),
        total_steps=1000,
    )


def make_batch(size: Size, parts: int = 1) -> dict[str, jax.Array]:
    """A batch of random images for `parts` devices."""
    images, side = size.images * parts, size.side
    return {"image": jax.random.normal(jax.random.key(1), (images, side, side, 3)), "label": jnp.arange(images) % 10}


def start(problem: SearchProblem, seed: int, batch: dict[str, jax.Array]):
    """The initial state of a search."""
    return jax.jit(init_search, static_argnums=0)(problem, jax.random.key(seed), batch["image"])


def populations(size: Size, rounds: int) -> None:
    """Prints how long eight seeds take one after another, together on one device, and with a device for each core."""
    problem, batch = make_problem(size), make_batch(size)

    def steps(state):
        return jax.lax.fori_loop(0, STEPS, lambda _, state: search_step(problem, state, batch, batch)[0], state)

    mesh = devices.make_mesh(SEEDS)
    states = [start(problem, seed, batch) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    spread = devices.device_put(stacked, mesh, devices.SEEDS)
    alone, together = jax.jit(steps), jax.jit(lambda states: jax.lax.map(steps, states))
    each = devices.for_each_seed(steps, mesh)
    expected = [alone(state) for state in states]
    for name, found in (("together", together(stacked)), (f"on {mesh.size} devices", each(spread))):
        largest = max(
            float(jnp.max(jnp.abs(found.arch[t][i] - expected[i].arch[t]))) for i in range(SEEDS) for t in found.arch
        )
        print(f"{name}: logits differ from those of each seed alone by at most {largest:.2g}", flush=True)
    seconds = alternate(
        {
            "one after another": lambda: jax.block_until_ready([alone(state) for state in states]),
            "together": lambda: jax.block_until_ready(together(stacked)),
            "each core": lambda: jax.block_until_ready(each(spread)),
        },
        rounds,
    )
    first, second, third = (statistics.median(values) for values in seconds.values())
    print(
        f"{SEEDS} seeds, {STEPS} steps: one after another {first:.2f} s, together on one device {second:.2f} s, on "
        f"{mesh.size} devices {third:.2f} s; throughput {first / second:.2f} and {first / third:.2f}",
        flush=True,
    )


def one_size(size: Size, count: int, rounds: int) -> None:
    """Prints the seconds of a step on `count` devices, and of a step without exchange between them."""
    mesh, batch = devices.make_mesh(devices=jax.devices()), make_batch(size, count)
    assert mesh.size == count
    spread = devices.device_put(batch, mesh, devices.SPREAD)
    specs = (devices.REPLICATED, devices.SPREAD, devices.SPREAD)

    def steps(axis_name):
        problem = make_problem(size, axis_name)
        step = jax.jit(devices.shard_map(functools.partial(search_step, problem), mesh, specs))
        state = devices.device_put(start(problem, 0, batch), mesh)
        compiled = step.lower(state, spread, spread).compile()
        return lambda: [jax.block_until_ready(compiled(state, spread, spread)) for _ in range(STEPS)]

    seconds = alternate({"exchange": steps(devices.axis_of(mesh)), "none": steps(None)}, rounds)
    print(*(statistics.median(values) / STEPS for values in seconds.values()))


def measure(size: Size, count: int, cores: str, rounds: int) -> subprocess.Popen:
    """Starts `one_size` in a process of its own on the given cores."""
    given = f"--xla_force_host_platform_device_count={count} --xla_cpu_multi_thread_eigen=false"
    numbers = [f"--devices={count}", f"--rounds={rounds}", "--small", *map(str, size)]
    command = ["taskset", "-c", cores, sys.executable, __file__, *numbers]
    environment = os.environ | {"XLA_FLAGS": f"{given} intra_op_parallelism_threads=1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def weak_scaling(size: Size, rounds: int) -> None:
    """Prints the seconds on one device, on two independent ones, and on two together with and without exchange; each
    device has one thread."""

    def seconds(*started):
        lines = [process.communicate()[0].splitlines()[-1].split() for process in started]
        return [statistics.mean(map(float, column)) for column in zip(*lines, strict=True)]

    one, _ = seconds(measure(size, 1, "0", rounds))
    apart, _ = seconds(measure(size, 1, "0", rounds), measure(size, 1, "1", rounds))
    together, silent = seconds(measure(size, 2, "0-1", rounds))
    print(f"one device {one:.3f} s, two independent ones {apart:.3f} s")
    print(f"two together {together:.3f} s, without exchange {silent:.3f} s")
    print(f"efficiency {one / together:.2f}, without exchange {one / silent:.2f}, apart {one / apart:.2f}", flush=True)


@contextlib.contextmanager
def counted_all_reduces() -> Iterator[list[int]]:
    """A list that gets the bytes of each all-reduce that is executed within."""
    found: list[int] = []
    pmean = lax.pmean

    def counting(tree, axis_name):
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        jax.debug.callback(lambda: found.append(size))
        return pmean(tree, axis_name)

    jax.clear_caches()  # of functions traced with the other pmean
    lax.pmean = counting
    try:
        yield found
        jax.effects_barrier()
    finally:
        lax.pmean = pmean
        jax.clear_caches()


def traffic(size: Size, method: str) -> None:
    """Prints the number and the bytes of the all-reduces in a step of a search, and the efficiency to be expected."""
    problem, batch = make_problem(size, devices.DATA, method), make_batch(size)
    with counted_all_reduces() as found:
        mesh = jax.sharding.Mesh(jax.devices()[:1], (devices.DATA,))
        step = functools.partial(search_step, problem)
        step = jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        jax.block_until_ready(jax.jit(step)(start(problem, 0, batch), batch, batch))
    print(
        f"{method}: {len(found)} all-reduces of {sum(found) / 1e6:.1f} MB a step, the largest {max(found) / 1e6:.1f} MB"
    )
    for count, (latency, bandwidth) in LINKS.items():
        exchange = len(found) * latency + 2 * (count - 1) / count * sum(found) / bandwidth
        shares = (f"{seconds / (seconds + exchange):.2f} at {seconds} s a step" for seconds in STEP_SECONDS)
        print(f"  {count} devices: {1000 * exchange:.0f} ms, efficiency {', '.join(shares)}", flush=True)


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    of_size = {"nargs": 4, "type": int, "metavar": ("CHANNELS", "CELLS", "IMAGES", "SIDE")}
    parser.add_argument("--small", **of_size, default=SMALL, help="populations and weak scaling")
    parser.add_argument("--whole", **of_size, default=WHOLE, help="traffic")
    parser.add_argument("--methods", nargs="+", default=("pr_darts", "pr_darts_released", "darts"), help="of traffic")
    parser.add_argument("--devices", type=int, help="number of devices of one measurement; used by the script itself")
    arguments = parser.parse_args()
    small, whole = Size(*arguments.small), Size(*arguments.whole)
    if arguments.devices:
        one_size(small, arguments.devices, arguments.rounds)
        return
    devices.use_every_core()
    populations(small, arguments.rounds)
    weak_scaling(small, arguments.rounds)
    for method in arguments.methods:
        traffic(whole, method)


if __name__ == "__main__":
    main()
