"""Compile time, step time and memory of a search step, on the real data of a config.

    python experiments/benchmark_step.py --config=configs/cifar10_released.py --batch_size=64 --data_dir=DIR

Prints the figures of the README's table; takes about three minutes on two cores for that config.
"""

import argparse
import importlib.util
import resource
import statistics
import time

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from prdarts_jax import data, main
from prdarts_jax.bilevel import init_search, search_epoch


def read_config(path: str) -> ConfigDict:
    """The config of a file."""
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def run(config: ConfigDict, steps: int) -> None:
    """Compiles the step as the command line does, runs it, and prints what it took."""
    dataset = data.load(config.dataset, config.data_dir or None)
    halves = jax.device_put(data.split_halves(dataset, config.split_seed))
    augmentation = data.Augmentation(*data.statistics(dataset), **config.augmentation)
    steps_per_epoch = len(dataset.labels) // 2 // config.batch_size
    problem = main.make_problem(config, dataset.num_classes, config.epochs * steps_per_epoch)

    images = jnp.zeros((config.batch_size, *dataset.images.shape[1:]))
    state = jax.jit(init_search, static_argnums=0)(problem, jax.random.key(config.seed), images)
    epoch = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    start = time.perf_counter()
    lowered = epoch.lower(problem, state, *halves, augmentation, config.batch_size, jnp.int32(1))
    traced = time.perf_counter()
    one_step = lowered.compile()
    compiled = time.perf_counter()
    print(f"tracing {traced - start:.1f} s, compilation {compiled - traced:.1f} s")

    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(one_step(state, *halves, jnp.int32(1)))
        seconds.append(time.perf_counter() - start)
    print(
        f"{steps} steps of 2 x {config.batch_size} images: median {statistics.median(seconds):.2f} s, "
        f"from {min(seconds):.2f} to {max(seconds):.2f} s"
    )
    temporary = one_step.memory_analysis().temp_size_in_bytes / 1e6
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"temporary memory of the step {temporary:.0f} MB, peak of the process {resident:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--batch_size", type=int, help="instead of the config's")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps the data")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    chosen = read_config(arguments.config)
    chosen.data_dir = arguments.data_dir
    chosen.batch_size = arguments.batch_size or chosen.batch_size
    run(chosen, arguments.steps)
