"""What each hypergradient costs, and how near it is to the exact implicit one, on a small supernet.

The space is that of NAS-Bench-201. The logits are fixed, and so are a batch of digits for the weights and one for the
logits. The weights are trained by SGD with momentum for the numbers of steps given by `--after`. At each of these
points the hypergradients of search steps are compared with the implicit one whose linear system is solved by as many
conjugate gradients as it takes. Since the Hessian of a network has negative eigenvalues, it is damped there. At the
first steps they are too low for that, as the comparison with half of the iterations shows.

    python experiments/hypergradients.py

The times are those of a whole search step; nothing else may run meanwhile.
"""

import argparse
import functools
import statistics
from pathlib import Path
from typing import Any

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmark_step import alternate, compile_twice
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.data import sources
from prdarts_jax.run import problems, validation
from prdarts_jax.search.hypergradients import ConjugateGradient, FirstOrder, Hypergradient, Neumann, Unrolled
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, SearchState, init_search
from prdarts_jax.search.step import search_step

CONFIG = Path(__file__).parents[1] / "configs/digits.py"
FIELDS = {"channels": 4, "cells": 1, "batch_size": 64}
AFTER = (30, 300)


def ways(damping: float) -> list[Hypergradient]:
    """The hypergradients that are compared; the last tends to the exact one."""
    unrolled = [Unrolled(steps) for steps in (1, 3)]
    neumann = [Neumann(products) for products in (0, 1, 3, 10)]
    return [FirstOrder(), *unrolled, *neumann, *(ConjugateGradient(products, damping) for products in (3, 10, 30))]


def make_problem(config: ConfigDict, hypergradient: Hypergradient, num_classes: int) -> SearchProblem:
    """A search whose logits move by their gradient, and whose weights are trained by plain SGD with weight decay."""
    method, weights = Method(hypergradient=hypergradient), config.weights
    decay = optax.add_decayed_weights(weights.weight_decay)
    sgd = optax.chain(decay, optax.sgd(weights.learning_rate))
    supernet = problems.make_supernet(config, method, num_classes)
    return SearchProblem(supernet, method, sgd, arch_optimizer=optax.sgd(1.0), total_steps=1)


def make_batches(config: ConfigDict) -> tuple[list[dict[str, jax.Array]], int]:
    """([a batch for the weights, one for the logits], number of classes)."""
    dataset = sources.load(config.dataset, config.data_dir or None, num_examples=config.num_examples)
    validation.validate_against_data(config, dataset)
    mean, std = sources.statistics(dataset)
    halves = sources.split_halves(dataset, config.split_seed)
    parts = [{name: array[: config.batch_size] for name, array in half.items()} for half in halves]
    return [part | {"image": jnp.float32((part["image"] / 255 - mean) / std)} for part in parts], dataset.num_classes


@functools.partial(jax.jit, static_argnums=0)
def descend(problem: SearchProblem, state: SearchState, steps: int, batches: Any) -> SearchState:
    """The state after some steps."""
    return jax.lax.fori_loop(0, steps, lambda _, state: search_step(problem, state, *batches)[0], state)


def trajectory(problem: SearchProblem, seed: int, batches: Any, after: list[int]) -> list[SearchState]:
    """The states after these numbers of steps of the weights alone, by SGD with momentum."""
    start = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(seed), batches[0]["image"])
    momentum = optax.chain(problem.weight_optimizer, optax.trace(decay=0.9))
    training = SearchProblem(problem.supernet, Method(), momentum, optax.set_to_zero(), total_steps=1)
    variables = {"params": start.params, "arch": start.arch}
    state, done, states = start.replace(opt_state=training.optimizer.init(variables)), 0, []
    for steps in after:
        state, done = descend(training, state, steps - done, batches), steps
        states.append(state.replace(step=start.step, opt_state=start.opt_state))
    return states


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two hypergradients."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--after", type=int, nargs="+", default=AFTER, metavar="STEPS", help="of the weights")
    parser.add_argument("--iterations", type=int, default=400, help="of conjugate gradients for the exact gradient")
    parser.add_argument("--damping", type=float, default=1.0, help="of the Hessian")
    parser.add_argument("--rounds", type=int, default=20, help="of the step")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance channels=8")
    arguments = parser.parse_args()
    with family.exit_if_refused():
        config = family.with_fields(family.read_config(f"{CONFIG}:darts"), FIELDS)
        config = family.with_fields(config, family.parse_fields(arguments.set))
        validation.validate(config)
        batches, num_classes = make_batches(config)
    damping, after = arguments.damping, sorted(arguments.after)
    states = trajectory(make_problem(config, FirstOrder(), num_classes), config.seed, batches, after)

    def measure(hypergradient):
        """(seconds of tracing and compilation, the compiled step, the hypergradient at each state)."""
        problem = make_problem(config, hypergradient, num_classes)
        function = jax.jit(search_step, static_argnums=0)
        step, ((traced, compiled), _) = compile_twice(function, problem, states[0], *batches)
        moved = [step(state, *batches)[0].arch for state in states]
        found = [ravel_pytree(s.arch)[0] - ravel_pytree(arch)[0] for s, arch in zip(states, moved, strict=True)]
        return traced + compiled, step, np.asarray(found, np.float64)

    exact, half = (measure(ConjugateGradient(n, damping))[2] for n in (arguments.iterations, arguments.iterations // 2))
    found = ", ".join(f"{cosine(a, b):.6f}" for a, b in zip(exact, half, strict=True))
    print(f"cosine of the exact ones to those with half of the iterations: {found}")
    heads = [
        "hypergradient",
        "compilation, s",
        "a step, s",
        "temporary memory, MB",
        *(f"cosine after {n} steps" for n in after),
    ]
    measured = {hypergradient: measure(hypergradient) for hypergradient in ways(damping)}
    calls = {
        str(hypergradient): lambda step=step: jax.block_until_ready(step(states[-1], *batches))
        for hypergradient, (_, step, _) in measured.items()
    }
    times = alternate(calls, arguments.rounds)
    rows = []
    for hypergradient, (seconds, step, found) in measured.items():
        memory = step.memory_analysis().temp_size_in_bytes / 1e6
        cells = [f"{seconds:.1f}", f"{statistics.median(times[str(hypergradient)]):.3f}", f"{memory:.1f}"]
        cells += [f"{cosine(a, b):.3f}" for a, b in zip(found, exact, strict=True)]
        rows.append([f"`{hypergradient}`", *cells])
    print(f"\n{markdown.table(heads, rows)}", end="")


if __name__ == "__main__":
    main()
