"""How long the search step of every method takes to compile and to run, on random images of CIFAR-10's size.

All have DARTS's network (C = 16, eight cells, DARTS's space), 64 images for the weights and 64 for the logits. For
P-DARTS it is the first stage, with five cells.

    python experiments/benchmark_methods.py

It takes half an hour on two cores; nothing else may run at the same time.
"""

import argparse
import statistics

import family
import jax
from benchmark_step import alternate, compile_twice, on_random_images
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.run import settings
from prdarts_jax.search.step import search_step


def measure(base: ConfigDict, name: str, rounds: int) -> str:
    """A row of the table."""
    problem, state, batch = on_random_images(family.variant(base, name))
    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    compiled, ((tracing, cold), (_, warm)) = compile_twice(step, problem, state, batch, batch)

    def once():
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, batch, batch))

    seconds = statistics.median(alternate({name: once}, rounds)[name])
    memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
    times = [f"{tracing:.1f}", f"{cold:.1f}", f"{warm:.1f}", f"{seconds:.2f}"]
    return markdown.row([f"`{name}`", *times, f"{memory:.0f}"])


def main() -> None:
    """Prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods", nargs="+", default=family.VARIANTS, help="NAME or NAME:FIELD=VALUE,...: only these"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the step")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance channels=8")
    arguments = parser.parse_args()
    head = ["method", "tracing, s", "compilation, s", "again, from the cache, s", "a step, s", "temporary memory, MB"]
    print(markdown.table(head, []), end="", flush=True)
    with family.exit_if_refused():
        base = family.with_fields(settings.search("darts"), family.parse_fields(arguments.set))
        for name in arguments.methods:
            print(measure(base, name, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
