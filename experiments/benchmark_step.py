"""Compile time, step time and memory of a search step, on the real data of a config.

    python experiments/benchmark_step.py --config=configs/cifar10.py:pr_darts_released --set=batch_size=64,data_dir=DIR

With `--against=CHECKOUT` the step of the authors' PyTorch code (see authors_code.py) runs alternately with ours.
docs/performance.md has the results.
"""

import argparse
import dataclasses
import functools
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import authors_code
import family
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from prdarts_jax import ops
from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.nets import sizes
from prdarts_jax.nets.program import EdgeGroup, program
from prdarts_jax.nets.supernet import Macro
from prdarts_jax.run import problems, validation
from prdarts_jax.search import terms
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss, init_search
from prdarts_jax.search.step import search_epoch, search_step
from prdarts_jax.spaces import reference_cells


def on_random_images(config: ConfigDict) -> tuple[SearchProblem, SearchState, dict[str, jax.Array]]:
    """A search of ten classes, its first state, and a batch of random images of `config.image_size`, by default that of
    CIFAR-10."""
    problem = problems.make_search_problem(config, num_classes=10, total_steps=1000)
    images = jax.random.normal(jax.random.key(0), (config.batch_size, *2 * (config.image_size or 32,), 3))
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(0), images)
    return problem, state, {"image": images, "label": jnp.arange(config.batch_size) % 10}


def compile_twice(function: Callable, *arguments: Any) -> tuple[jax.stages.Compiled, list[tuple[float, float]]]:
    """Compiles with an empty persistent cache, and again with the filled cache.

    Returns:
      The compiled function, and [(seconds of tracing, seconds of compilation)], first with the empty cache.
    """
    seconds, cache = [], jax.config.jax_compilation_cache_dir
    try:
        with tempfile.TemporaryDirectory() as folder:
            jax.config.update("jax_compilation_cache_dir", folder)
            compilation_cache.reset_cache()
            for _ in range(2):
                jax.clear_caches()
                start = time.perf_counter()
                lowered = function.lower(*arguments)
                traced = time.perf_counter()
                compiled = lowered.compile()
                seconds.append((traced - start, time.perf_counter() - traced))
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
        compilation_cache.reset_cache()
    return compiled, seconds


def alternate(functions: Mapping[Hashable, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each function in each round, after one round that does not count."""
    seconds: dict[Any, list[float]] = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ops_alone(problem: SearchProblem, state: Any, batch: dict[str, jax.Array]) -> tuple[float, float]:
    """The cost of the executed ops of a step alone, without stem, preprocessing, head and the loop over the ops.

    Returns:
      XLA's count of the floating-point operations of all ops and their gradients, and the seconds of their compiled
      functions (medians). Both are weighted by how often an op is executed, on average over 20 draws of the gates.
    """
    supernet, relaxation = problem.supernet, problem.method.relaxation
    keys = jax.random.split(jax.random.key(0), 20)
    drawn = jax.vmap(lambda key: relaxation.weigh(supernet.space, state.arch, key, 0.0))(keys)
    executed = {t: np.mean(np.asarray(weights) != 0, axis=0) for t, weights in drawn.items()}
    totals, measured = np.zeros(2), functools.cache(_op_alone)
    for cell_type, rows, group, shape in edge_groups(supernet, batch["image"]):
        counts = executed[cell_type][list(rows)].sum(axis=0)
        for name in group.candidates:
            if count := counts[group.op_names.index(name)]:
                totals += count * measured(name, dataclasses.replace(group, edges=((0, 1),)), shape, supernet.dtype)
    return tuple(totals)


def edge_groups(
    supernet: Macro, images: jax.Array
) -> Iterator[tuple[str, tuple[int, ...], EdgeGroup, tuple[int, ...]]]:
    """Yields for each cell in order, and each of its groups in `program`: the cell type, the rows, the group, and the
    shape that its ops read."""
    any_cell = reference_cells.random(supernet.space, np.random.default_rng(0))
    network = (getattr(supernet, "form", "cifar"), supernet.channels, supernet.cells, supernet.num_classes)
    fields = {"pool_norm": getattr(supernet, "pool_norm", False), "dropout": supernet.dropout}
    for cell_type, (within, entering) in sizes.plan(any_cell, *network, images.shape[1:])[1]:
        reduction, fields["channels"] = entering.stride == 2, within.channels
        for rows, group in program(supernet.space, reduction, partial=supernet.partial, **fields):
            place = entering if group.stride == 2 else within
            yield cell_type, rows, group, (len(images), place.height, place.width, place.channels)


def _op_alone(name, group, shape, dtype):
    """[operations, seconds] of one op in both passes of a step: the pass for the weights has the gradients of all
    parameters, the pass for the logits those of the input and the op weight; both compute the op again."""
    op, key = group.candidates[name], jax.random.key(0)
    norm, again = ops.batch_normalizer(train=True, axis_name=None), ops.batch_normalizer_again(None)
    of_ops = (group.init_params(key), group.init_draws(key, jnp.float32(0), shape[0]), group.init_stats())
    params, drawn, moments = (jax.tree.map(lambda a: a[0], stacked.get(name, {})) for stacked in of_ops)
    params |= drawn
    x = jnp.ones(shape, dtype)
    dy = jnp.ones(jax.eval_shape(lambda: op.apply(params, None, x, norm)[0]).shape, dtype)

    def forward(p, moments, x, dy):
        return op.apply(p, None, x, norm)

    def weights_backward(p, moments, x, dy):
        return jax.vjp(lambda p, x: op.apply(p, moments, x, again)[0], p, x)[1](dy)

    def logits_backward(p, moments, x, dy):
        y, vjp = jax.vjp(lambda x: op.apply(p, moments, x, again)[0], x)
        return vjp(dy), jnp.sum(y.astype(jnp.float32) * dy.astype(jnp.float32), (0, 1, 2))

    total = np.zeros(2)
    for times, function in ((2, forward), (1, weights_backward), (1, logits_backward)):
        with jax.default_device(jax.devices("cpu")[0]):  # other backends do not count before compiling
            flops = jax.jit(function).lower(params, moments, x, dy).cost_analysis().get("flops", 0.0)
        compiled = jax.jit(function).lower(params, moments, x, dy).compile()
        call = functools.partial(compiled, params, moments, x, dy)
        seconds = alternate({"": lambda call=call: jax.block_until_ready(call())}, 7)[""]
        total += times * np.array([flops, statistics.median(seconds)])
    return total


def halves(problem: SearchProblem, state: Any, batch: dict[str, jax.Array]) -> dict[str, Callable[[], Any]]:
    """The gradient of the weights alone, and that of the logits alone, each with new gates in every call."""
    method, space, progress = problem.method, problem.supernet.space, jnp.float32(0)

    def weights_loss(params, arch, key, state, batch):
        op_weights = problem.op_weights(arch, key, progress)
        return batch_loss(problem, state, key, batch, {"params": params, "arch": arch}, op_weights)[0]

    def logits_loss(params, arch, key, state, batch):
        loss = weights_loss(params, arch, key, state, batch)
        view = terms.View(space, arch, method.activation(space, arch, progress), jax.lax.stop_gradient(loss))
        op_weights = method.relaxation.weigh(space, arch, key, progress)
        return loss + terms.total(method.terms, view, op_weights, progress)[0]

    state = jax.tree.map(jnp.copy, state)  # since it is donated to the step
    found = {}
    for number, (name, loss) in enumerate({"weights": weights_loss, "logits": logits_loss}.items()):
        gradient = jax.jit(jax.value_and_grad(loss, argnums=number))
        compiled = gradient.lower(state.params, state.arch, jax.random.key(0), state, batch).compile()
        keys = (jax.random.key(i) for i in itertools.count())
        found[f"gradient of the {name}"] = lambda f=compiled, keys=keys: jax.block_until_ready(
            f(state.params, state.arch, next(keys), state, batch)
        )
    return found


def describe(name: str, seconds: list[float]) -> str:
    """Median and range of several times, in words."""
    return f"{name}: median {statistics.median(seconds):.3f} s, from {min(seconds):.3f} to {max(seconds):.3f} s"


def paired(first: list[float], second: list[float]) -> float:
    """Median over the rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def run(config: ConfigDict, rounds: int, against: Path | None) -> None:
    """Compiles the step, runs it, and prints the times and the memory.

    Raises:
      ValueError, OSError: the config, the data or the checkout cannot be used; nothing has then been compiled.
    """
    validation.validate(config)
    dataset = sources.load(
        config.dataset, config.data_dir or None, image_size=config.image_size, num_examples=config.num_examples
    )
    validation.validate_against_data(config, dataset)
    theirs = authors_code.make_step(against, config, dataset.num_classes) if against else None
    train_data, val_data = jax.device_put(sources.split_halves(dataset, config.split_seed))
    augmentation = Augmentation(*sources.statistics(dataset), **config.augmentation)
    steps_per_epoch = len(train_data["label"]) // config.batch_size
    problem = problems.make_search_problem(config, dataset.num_classes, config.epochs * steps_per_epoch)
    batch = {name: array[: config.batch_size] for name, array in train_data.items()}
    batch["image"] = (batch["image"] / 255.0 - jnp.array(augmentation.mean)) / jnp.array(augmentation.std)
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(config.seed), batch["image"])

    step, times = compile_twice(jax.jit(search_step, static_argnums=0, donate_argnums=1), problem, state, batch, batch)
    for name, (traced, compiled) in zip(("cold", "warm"), times, strict=True):
        print(f"{name}: tracing {traced:.1f} s + compilation {compiled:.1f} s = {traced + compiled:.1f} s")
    in_epoch_state, halves_of = jax.tree.map(jnp.copy, state), halves(problem, state, batch)
    state, _ = jax.block_until_ready(step(state, batch, batch))
    temporary = step.memory_analysis().temp_size_in_bytes / 1e6
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"temporary memory of the step {temporary:.0f} MB, peak of the process so far {resident:.0f} MB")
    epoch = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    epoch = epoch.lower(
        problem, in_epoch_state, train_data, val_data, augmentation, config.batch_size, jnp.int32(1)
    ).compile()

    def ours():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, batch, batch))

    def in_epoch():
        nonlocal in_epoch_state
        in_epoch_state, _ = jax.block_until_ready(epoch(in_epoch_state, train_data, val_data, jnp.int32(1)))

    in_epoch()  # so that both states have done as many steps, and execute as many ops
    matrix = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    functions = {"matmul": lambda: product(matrix, matrix).block_until_ready()}
    functions |= {"step": ours, "step inside search_epoch": in_epoch} | halves_of
    if theirs:
        given = authors_code.tensors(np.asarray(batch["image"]), np.asarray(batch["label"]))
        functions["authors' step"] = lambda: theirs(*given)
    seconds = alternate(functions, rounds)

    print(f"{rounds} rounds, {config.batch_size} images for the weights and {config.batch_size} for the logits")
    for name, values in seconds.items():
        print(describe(name, values))
    median = statistics.median(seconds["step"])
    print(f"{2 * config.batch_size / median:.0f} images/s")
    (count, alone), peak = ops_alone(problem, state, batch), 2 * 2048**3 / statistics.median(seconds["matmul"])
    share = 100 * count / median / peak
    print(f"{count / 1e9:.1f} GFLOP a step: {count / median / 1e9:.1f} GFLOP/s, {share:.0f} % of a matrix product's")
    print(
        f"the executed ops and their gradients by themselves: {alone:.3f} s, {100 * alone / median:.0f} % of the step"
    )
    print(f"inside search_epoch / step, paired: {paired(seconds['step inside search_epoch'], seconds['step']):.3f}")
    if theirs:
        authors = seconds["authors' step"]
        print(
            f"authors' step / ours: {statistics.median(authors) / median:.2f} of the medians, "
            f"{paired(authors, seconds['step']):.2f} paired"
        )


def main() -> None:
    """Reads the config and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="a file of configs/, or FILE:METHOD")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance data_dir=DIR")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--against", type=Path, help="a checkout of the authors' code")
    arguments = parser.parse_args()
    with family.exit_if_refused():
        config = family.with_fields(family.read_config(arguments.config), family.parse_fields(arguments.set))
        run(config, arguments.rounds, arguments.against)


if __name__ == "__main__":
    main()
