"""How the time of a search step grows with executed ops, cells, channels and pixels. Does a closed gate cost nothing?

    python experiments/benchmark_growth.py --figure=experiments/figures/benchmark_growth.png

Ops: one compiled step of the network of configs/cifar10.py:pr_darts_released (batch 64, random images) executes 1, 2, 4
and all 7 computing ops on each of the 14 edges of every cell, chosen at random, in alternation. The others: PR-DARTS
with two random ops per edge, C = 8, three cells, batch 32 and images of 16x16, except for the size that is varied; each
size is compiled by itself, and all are timed in alternation. It prints the medians and the straight line through them.
It takes about ten minutes on two cores; nothing else may run at the same time.
"""

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import family
import jax
import jax.numpy as jnp
import numpy as np
from benchmark_step import alternate
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import prdarts_jax as pdx
from prdarts_jax.run import problems, settings
from prdarts_jax.search import gates

PER_EDGE = (1, 2, 4, 7)
EDGES = 14
SIZES = {"cells": (2, 4, 6, 8), "channels": (8, 16, 24, 32), "side": (8, 16, 24, 32)}


@dataclasses.dataclass(frozen=True)
class RandomOps(pdx.relaxations.Softmax):
    """Executes `PER_EDGE[i]` random ops per edge in step i; the op `none` is never chosen."""

    def weigh(self, space, logits, key, progress):
        """Weights 1 and 0, with the gradient of the logits: they must depend on these, or no gradient is computed."""
        count = jnp.array(PER_EDGE)[jnp.round(progress * (len(PER_EDGE) - 1)).astype(jnp.int32)]

        def choose(key, logits):
            ranks = jnp.argsort(jnp.argsort(jax.random.uniform(key, (len(logits), logits.shape[1] - 1))))
            return gates.straight_through(jnp.pad(ranks < count, ((0, 0), (1, 0))), logits)  # `none` comes first

        return {t: choose(k, logits[t]) for t, k in pdx.relaxations.keys(key, logits).items()}


def make_step(config: ConfigDict, method: pdx.Method, side: int) -> Callable[[int, int], Any]:
    """A compiled step on random images, as a function of its number and of a seed for its random numbers."""
    problem = problems.make_search_problem(config, 10, len(PER_EDGE), method)
    images = jax.random.normal(jax.random.key(1), (config.batch_size, side, side, 3))
    batch = {"image": images, "label": jnp.arange(config.batch_size) % 10}
    state = jax.jit(pdx.init_search, static_argnums=0)(problem, jax.random.key(0), images)
    step = jax.jit(pdx.search_step, static_argnums=0).lower(problem, state, batch, batch).compile()

    def run(number: int, seed: int) -> Any:
        return jax.block_until_ready(
            step(state.replace(step=jnp.int32(number), key=jax.random.key(seed)), batch, batch)
        )

    return run


def time_steps(steps: dict[int, Callable[[int], Any]], rounds: int) -> dict[int, list[float]]:
    """Seconds of each of the steps in each round; every round draws other gates."""
    seeds = dict.fromkeys(steps, 0)

    def call(size):
        seeds[size] += 1
        steps[size](seeds[size])

    return alternate({size: functools.partial(call, size) for size in steps}, rounds)


def by_ops(config: ConfigDict, rounds: int) -> dict[int, list[float]]:
    """{number of executed ops per cell: seconds of each round}."""
    step = make_step(config, pdx.Method(relaxation=RandomOps(), weights_first=True), 32)
    return time_steps({count * EDGES: functools.partial(step, i) for i, count in enumerate(PER_EDGE)}, rounds)


def by_size(config: ConfigDict, field: str, sizes: Sequence[int], rounds: int) -> dict[int, list[float]]:
    """{value of 'cells' or 'channels', or number of pixels for 'side': seconds of each round}."""
    steps = {}
    for size in sizes:
        changed = family.with_fields(config, {} if field == "side" else {field: size})
        step = make_step(changed, pdx.methods.pr_darts(), size if field == "side" else 16)
        steps[size**2 if field == "side" else size] = functools.partial(step, 0)
    return time_steps(steps, rounds)


def draw(axes: Any, label: str, seconds: dict[int, list[float]]) -> None:
    """Prints the medians and the line through them, and draws them."""
    sizes = np.array(list(seconds))
    medians = np.array([statistics.median(values) for values in seconds.values()])
    slope, offset = np.polyfit(sizes, medians, 1)
    residual = np.abs(medians - slope * sizes - offset).max()
    found = ", ".join(f"{size}: {median:.3f} s" for size, median in zip(sizes, medians, strict=True))
    print(f"{label}: {found}")
    print(f"  line: {offset:.3f} s + {1e3 * slope:.3g} ms each; largest residual {residual:.3f} s")
    for size, values in seconds.items():
        axes.plot([size] * len(values), values, ".", color="C0", alpha=0.4)
    axes.plot(sizes, medians, "o", color="C0", label="median")
    line = np.array([0, sizes.max()])
    axes.plot(line, offset + slope * line, color="C1", label=f"{offset:.3f} s + {1e3 * slope:.3g} ms each")
    axes.set(xlabel=label, ylabel="seconds per step", xlim=(0, None), ylim=(0, None))
    axes.legend()


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of all configs, for instance channels=8")
    parser.add_argument("--figure", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args()
    fields = family.parse_fields(arguments.set)
    released, paper = settings.search("pr_darts_released"), settings.search("pr_darts")
    released.batch_size = 64
    paper.update({"batch_size": 32, "channels": 8, "cells": 3})
    picture = Figure(figsize=(10, 7), layout="constrained")
    panels = picture.subplots(2, 2).ravel()
    draw(panels[0], "executed ops per cell", by_ops(family.with_fields(released, fields), arguments.rounds))
    for axes, (field, sizes) in zip(panels[1:], SIZES.items(), strict=True):
        label = "pixels of an image" if field == "side" else field
        draw(axes, label, by_size(family.with_fields(paper, fields), field, sizes, arguments.rounds))
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(arguments.figure, dpi=110)


if __name__ == "__main__":
    main()
