"""Step time against the number of executed ops: does a closed gate really cost nothing?

    python experiments/benchmark_ops.py --figure=experiments/figures/benchmark_ops.png

One compiled step of the network of configs/cifar10.py:pr_darts_released (batch 64, random images) executes 1, 2, 4 and
all 7 computing ops on each of the 14 edges of every cell, chosen at random, in alternation. Prints the medians and the
straight line through them. Takes about four minutes on two cores.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import family
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax.run import problems, settings
from prdarts_jax.search import gates

PER_EDGE = (1, 2, 4, 7)
EDGES = 14


@dataclasses.dataclass(frozen=True)
class RandomOps(pdx.relaxations.Softmax):
    """Executes `PER_EDGE[i]` random ops an edge, all but none, at the step i."""

    def weigh(self, space, logits, key, progress):
        """Weights 1 and 0, with the gradient of the logits: they must depend on them for it to be computed."""
        count = jnp.array(PER_EDGE)[jnp.round(progress * (len(PER_EDGE) - 1)).astype(jnp.int32)]

        def choose(key, logits):
            ranks = jnp.argsort(jnp.argsort(jax.random.uniform(key, (len(logits), logits.shape[1] - 1))))
            return gates.straight_through(jnp.pad(ranks < count, ((0, 0), (1, 0))), logits)  # none comes first

        return {t: choose(k, logits[t]) for t, k in pdx.relaxations.keys(key, logits).items()}


def measure(config: ConfigDict, rounds: int) -> dict[int, list[float]]:
    """Seconds of a step for each number of ops per cell."""
    method = pdx.Method(relaxation=RandomOps(), weights_first=True)
    problem = problems.make_search_problem(config, 10, len(PER_EDGE), method)
    images = jax.random.normal(jax.random.key(1), (config.batch_size, 32, 32, 3))
    batch = {"image": images, "label": jnp.arange(config.batch_size) % 10}
    state = jax.jit(pdx.init_search, static_argnums=0)(problem, jax.random.key(0), images)
    step = jax.jit(pdx.search_step, static_argnums=0).lower(problem, state, batch, batch).compile()
    seconds: dict[int, list[float]] = {count * EDGES: [] for count in PER_EDGE}
    for i in range(rounds + 1):
        for number, count in enumerate(PER_EDGE):
            # Another key for every round: other ops of the same number.
            current = state.replace(step=jnp.int32(number), key=jax.random.key(i))
            start = time.perf_counter()
            jax.block_until_ready(step(current, batch, batch))
            if i:
                seconds[count * EDGES].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance channels=8")
    parser.add_argument("--figure", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args()
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    config = settings.search("pr_darts_released")
    config.batch_size = 64
    seconds = measure(family.with_fields(config, family.parse_fields(arguments.set)), arguments.rounds)
    counts = np.array(list(seconds))
    medians = np.array([statistics.median(values) for values in seconds.values()])
    slope, offset = np.polyfit(counts, medians, 1)
    residual = np.abs(medians - slope * counts - offset).max()
    for count, values in seconds.items():
        print(f"{count} ops a cell: median {statistics.median(values):.3f} s, {min(values):.3f} to {max(values):.3f} s")
    print(f"line: {offset:.3f} s + {1e3 * slope:.2f} ms an op of each cell; largest residual {residual:.3f} s")

    picture = Figure(figsize=(6, 4), layout="constrained")
    axes = picture.subplots()
    for count, values in seconds.items():
        axes.plot([count] * len(values), values, ".", color="C0", alpha=0.4)
    axes.plot(counts, medians, "o", color="C0", label="median")
    line = np.array([0, counts.max()])
    axes.plot(line, offset + slope * line, color="C1", label=f"{offset:.2f} s + {1e3 * slope:.1f} ms x ops")
    axes.set(xlabel="executed ops per cell", ylabel="seconds per step", xlim=(0, None), ylim=(0, None))
    axes.legend()
    picture.savefig(arguments.figure, dpi=120)


if __name__ == "__main__":
    main()
