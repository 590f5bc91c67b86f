"""Many seeds and many devices, as far as one machine shows it.

Populations: four seeds in one compiled function beside the same four one after another. Weak scaling: a step with 32 +
32 images on one device of one core, and with 64 + 64 on two, and how many all-reduces the compiled step has.

    python experiments/benchmark_scale.py

PR-DARTS (paper's form) in DARTS's space, C = 8, five cells, 16x16; 6 minutes on two cores, nothing may run beside it.
"""

import argparse
import functools
import json
import os
import re
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
from benchmark_step import alternate

from prdarts_jax import devices
from prdarts_jax.bilevel import SearchProblem, init_search, search_step
from prdarts_jax.methods import PRDarts
from prdarts_jax.supernet import Supernet

SEEDS, STEPS = 4, 5
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def make_problem(axis_name: str | None = None) -> SearchProblem:
    """PR-DARTS in a small supernet."""
    return SearchProblem(
        supernet=Supernet(channels=8, cells=5, axis_name=axis_name),
        method=PRDarts(),
        weight_optimizer=optax.sgd(0.025, momentum=0.9),
        arch_optimizer=optax.adam(3e-4, b1=0.5),
        total_steps=1000,
    )


def make_batch(images: int) -> dict[str, jax.Array]:
    """Random images of 16x16."""
    return {"image": jax.random.normal(jax.random.key(1), (images, 16, 16, 3)), "label": jnp.arange(images) % 10}


def start(problem: SearchProblem, seed: int, batch: dict[str, jax.Array]):
    """A state."""
    return jax.jit(functools.partial(init_search, problem))(jax.random.key(seed), batch["image"])


def populations(rounds: int) -> None:
    """Prints how long four seeds take together and one after another."""
    problem, batch = make_problem(), make_batch(32)

    def steps(state):
        return jax.lax.fori_loop(0, STEPS, lambda _, state: search_step(problem, state, batch, batch)[0], state)

    states = [start(problem, seed, batch) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    alone, together = jax.jit(steps), jax.jit(lambda states: jax.lax.map(steps, states))
    expected = [alone(state) for state in states]
    found = together(stacked)
    same = all(bool(jnp.array_equal(found.arch[t][i], expected[i].arch[t])) for i in range(SEEDS) for t in found.arch)
    seconds = alternate(
        {
            "together": lambda: jax.block_until_ready(together(stacked)),
            "one after another": lambda: jax.block_until_ready([alone(state) for state in states]),
        },
        rounds,
    )
    first, second = (statistics.median(seconds[name]) for name in ("together", "one after another"))
    print(
        f"{SEEDS} seeds, {STEPS} steps: together {first:.2f} s, one after another {second:.2f} s, {second / first:.2f}"
    )
    print(f"logits equal bit for bit: {same}", flush=True)


def one_size(count: int, rounds: int) -> None:
    """Prints, as JSON, seconds of a step on so many devices and the bytes of its all-reduces by where they are."""
    mesh = devices.make_mesh()
    assert mesh.size == count
    problem, batch = make_problem(devices.axis_of(mesh)), make_batch(32 * count)
    specs = (devices.REPLICATED, devices.SPREAD, devices.SPREAD)
    step = jax.jit(devices.over(mesh, functools.partial(search_step, problem), specs))
    state, batch = devices.put(start(problem, 0, batch), mesh), devices.put(batch, mesh, devices.SPREAD)
    compiled = step.lower(state, batch, batch).compile()
    seconds = alternate({"step": lambda: jax.block_until_ready(compiled(state, batch, batch))}, rounds)["step"]
    shapes = re.findall(r"= (\(.*?\)|\S+) all-reduce(?:-start)?\(", compiled.as_text())
    sizes = [sum(map(size_of, re.findall(r"(\w+)\[([\d,]*)\]", shape))) for shape in shapes]
    print(json.dumps({"seconds": statistics.median(seconds), "sizes": sizes}))


def size_of(shape: tuple[str, str]) -> int:
    """Bytes of ('f32', '3,4')."""
    count = 1
    for side in filter(None, shape[1].split(",")):
        count *= int(side)
    return count * BYTES[shape[0]]


def weak_scaling(rounds: int) -> None:
    """Prints the seconds on one and on two devices of one thread each."""
    results = {}
    for count in (1, 2):
        given = f"--xla_force_host_platform_device_count={count} --xla_cpu_multi_thread_eigen=false"
        command = ["taskset", "-c", f"0-{count - 1}", sys.executable, __file__, "--devices", str(count)]
        environment = os.environ | {"XLA_FLAGS": f"{given} intra_op_parallelism_threads=1"}
        done = subprocess.run(
            [*command, "--rounds", str(rounds)], env=environment, check=True, capture_output=True, text=True
        )
        results[count] = json.loads(done.stdout.splitlines()[-1])
        print(f"{count} device(s) of one core, {32 * count} images: {results[count]['seconds']:.2f} s", flush=True)
    print(f"efficiency {results[1]['seconds'] / results[2]['seconds']:.2f}")
    sizes = results[2]["sizes"]
    print(f"{len(sizes)} all-reduces in the program, the largest of {', '.join(map(str, sorted(sizes)[-4:]))} bytes")


def main() -> None:
    """Prints it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    parser.add_argument("--devices", type=int, help="measure a step on so many, for the script itself")
    arguments = parser.parse_args()
    if arguments.devices:
        one_size(arguments.devices, arguments.rounds)
        return
    populations(arguments.rounds)
    weak_scaling(arguments.rounds)


if __name__ == "__main__":
    main()
