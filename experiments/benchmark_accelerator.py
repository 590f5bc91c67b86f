"""The search step on an accelerator: compilation, time and memory, and the cost of the loop over the ops of a cell.

    python experiments/benchmark_accelerator.py --workdir=runs/accelerator --authors=PR-DARTS

The images are random and of CIFAR-10's size, so no data are read. Each row of the tables of steps is for one dtype and
batch size (the number of images for the weights, and of those for the logits). With `--authors=CHECKOUT` and a PyTorch
that computes on the same device, the step of the authors' code (authors_code.py), which supports float32 only, runs
alternately with ours. The workdir gets a trace of two steps for each row, which XProf or Perfetto can open.

The table of the loop, for the first batch size and the last dtype, needs no viewer. It measures the edge groups of the
cells (nets/program.py) outside the step: a forward pass and all gradients by the executor's loop, and by the same ops
one after another in a program without loop and switches (unrolled.py). A step does this twice, once for the weights and
once for the logits, each time with the gradient of one of them.

A row is begun only if it would end within `--minutes` even if it took as long as the longest row so far.
"""

import argparse
import functools
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import authors_code
import family
import jax
import jax.numpy as jnp
import numpy as np
import unrolled
from benchmark_step import alternate, compile_twice, edge_groups, on_random_images, paired
from ml_collections import ConfigDict

from prdarts_jax import markdown
from prdarts_jax.run import validation
from prdarts_jax.search.step import search_step

STEP = ["dtype, images", "tracing, s", "compilation, s", "again, from the cache, s", "a step, ms (range)"]
STEP += ["temporary memory, MB", "peak of the device so far, MB"]
AUTHORS = ["authors' step, ms (range)", "authors' / ours, of medians (paired)"]
LOOP = ["edges", "such cells", "executed ops", "in the loop, ms", "without, ms", "more for each op and pass, us"]


class Table:
    """A table whose rows are printed one by one, as long as there is time and memory for them."""

    def __init__(self, columns: Sequence[str], end: float):
        self.end, self.longest = end, 0.0
        print(f"\n{markdown.table(columns, [])}", end="", flush=True)

    def add(self, name: str, measure: Callable[[], tuple[list[str], Any]]) -> Any:
        """Prints a row with the cells that `measure` returns first, and returns its second value; None if the row was
        not measured."""
        begun, cells, found = time.monotonic(), ["left out: may not end within --minutes"], None
        if begun + self.longest < self.end:
            cells, found = fitting(measure) or (["out of memory"], None)
            self.longest = max(self.longest, time.monotonic() - begun)
        print(markdown.row([name, *cells]), flush=True)
        return found


def fitting(function: Callable[[], Any]) -> Any:
    """The function's result; None if the device has too little memory for it."""
    try:
        return function()
    except RuntimeError as error:  # of JAX as well as of PyTorch
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error):
            raise
    return None


def spread(seconds: list[float]) -> str:
    """Median and range in milliseconds."""
    return f"{1e3 * statistics.median(seconds):.1f} ({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"


def measure_step(config: ConfigDict, rounds: int, theirs: Callable | None, device: str | None, trace: Path):
    """(cells of a row of a table of steps, (median in seconds, and the step's problem, logits and images))."""
    problem, state, batch = on_random_images(config)
    images = batch["image"]
    logits = jax.tree.map(jnp.copy, state.arch)  # since the state is donated
    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    compiled, ((tracing, cold), (_, warm)) = compile_twice(step, problem, state, batch, batch)

    def ours():
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, batch, batch))

    functions = {"ours": ours}
    if theirs:
        given = authors_code.tensors(np.asarray(images), np.asarray(batch["label"]), device)
        if fitting(lambda: [theirs(*given)]):
            functions["theirs"] = lambda: theirs(*given)
    seconds = alternate(functions, rounds)
    with jax.profiler.trace(trace):
        ours()
        ours()
    median = statistics.median(seconds["ours"])
    memory, peak = compiled.memory_analysis(), (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    cells = [f"{tracing:.1f}", f"{cold:.1f}", f"{warm:.1f}", spread(seconds["ours"])]
    cells += [f"{memory.temp_size_in_bytes / 1e6:.0f}", f"{peak / 1e6:.0f}" if peak else ""]
    if "theirs" in functions:
        ratio, pairs = statistics.median(seconds["theirs"]) / median, paired(seconds["theirs"], seconds["ours"])
        cells += [spread(seconds["theirs"]), f"{ratio:.2f} ({pairs:.2f})"]
    elif theirs:
        cells.append("out of memory")
    return cells, (median, problem, logits, images)


def measure_loop(rounds: int, end: float, step: float, problem: Any, logits: Any, images: jax.Array) -> None:
    """Prints the table of the loop, and the share of the loop in a step of `step` seconds."""
    supernet = problem.supernet
    drawn = problem.method.relaxation.weigh(supernet.space, logits, jax.random.key(0), jnp.float32(0))
    table, found = Table(LOOP, end), []

    def measure(weights, cells):
        loop, without, executed = seconds = unrolled.measure(group, shape, supernet.dtype, weights, rounds)
        more = f"{1e6 * (loop - without) / (2 * executed):.1f}" if executed else ""
        row = [str(cells), str(executed), f"{1e3 * loop:.2f}", f"{1e3 * without:.2f}", more]
        return row, cells * np.array(seconds)

    for (cell_type, rows, group, shape), cells in Counter(edge_groups(supernet, images)).items():
        name = f"{cell_type}, stride {group.stride}, {shape[1]} pixels, C = {shape[3]}"
        found.append(table.add(name, functools.partial(measure, drawn[cell_type][jnp.array(rows)], cells)))
    if measured := [row for row in found if row is not None]:
        loop, without, executed = 2 * sum(measured)
        print(f"\n{len(measured)} of {len(found)} rows, all cells, twice: {1e3 * loop:.1f} ms in the loop, ", end="")
        print(f"{1e3 * without:.1f} ms without, {executed:.0f} ops forward and backward; the difference is ", end="")
        print(f"{100 * (loop - without) / step:.1f} % of the step of {1e3 * step:.1f} ms", flush=True)


def torch_device() -> str | None:
    """PyTorch's name of the device that JAX computes on; None if PyTorch is not installed for it."""
    try:
        import torch
    except ImportError:
        return None
    return {"cpu": "cpu", "gpu": "cuda" if torch.cuda.is_available() else None}.get(jax.default_backend())


def main() -> None:
    """Measures and prints."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cifar10.py:pr_darts_released", help="a file, or FILE:METHOD")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance channels=8")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=(64, 250))
    parser.add_argument("--dtypes", nargs="+", default=("bfloat16", "float32"), help="the smallest first")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--authors", type=Path, help="a checkout of the authors' code")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the traces")
    given = parser.parse_args()
    if given.authors:  # otherwise JAX takes most of the memory at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    end, theirs, device = begun + 60 * given.minutes, None, given.authors and torch_device()
    with family.exit_if_refused():
        base = family.with_fields(family.read_config(given.config), family.parse_fields(given.set))
        for size in given.batch_sizes:
            for dtype in given.dtypes:
                validation.validate(family.with_fields(base, {"batch_size": size, "dtype": dtype}))
        if device:
            theirs = authors_code.make_step(given.authors, base, 10, device)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    if given.authors and not theirs:
        print("no columns of the authors' code: there is no PyTorch for this device")
    for size in given.batch_sizes:
        table = Table(STEP + (AUTHORS if theirs else []), end)
        for dtype in given.dtypes:
            config = family.with_fields(base, {"batch_size": size, "dtype": dtype})
            own, trace = theirs if dtype == "float32" else None, given.workdir / f"trace_{dtype}_{size}"
            measure = functools.partial(measure_step, config, given.rounds, own, device, trace)
            found = table.add(f"{dtype}, {size}", measure)
        if size == given.batch_sizes[0] and found:
            measure_loop(given.rounds, end, *found)


if __name__ == "__main__":
    main()
