"""Many cells trained by one compiled function, compared with one compilation per cell.

Random cells of DARTS's space in networks of three cells are trained on the digits as the main job trains its cells
(configs/digits.py): all of them by `pdx.evaluate`, one on each core, and a few as networks of their own
(`run/train.py`), from which the time for all is extrapolated. The time includes compilation; nothing is compiled
beforehand. A training by itself also tests after each epoch, and writes pictures and an exported classifier.

    python experiments/benchmark_cells.py

Nothing else may run at the same time.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import family
import jax
import numpy as np

import prdarts_jax as pdx
from prdarts_jax import devices
from prdarts_jax.run import compare, reporting, settings, train
from prdarts_jax.spaces import genotypes, reference_cells


def main() -> None:
    """Trains, and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--alone", type=int, default=5, help="how many of them are trained as networks of their own")
    parser.add_argument(
        "--set", default="", metavar="FIELD=VALUE,...", help="of the config, for instance evaluation.epochs=1"
    )
    arguments = parser.parse_args()
    devices.use_every_core()
    jax.config.update("jax_enable_compilation_cache", False)
    fields = {"space": "darts", "evaluation.cells": 3} | family.parse_fields(arguments.set)
    config = family.with_fields(family.read_config("configs/digits.py"), fields)
    space, generator = settings.space_of(config), np.random.default_rng(0)
    config = compare.training_config(config)
    cells = {f"random_{i}": reference_cells.random(space, generator) for i in range(arguments.cells)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = pdx.evaluate(cells, config, Path(folder) / "together", space=space)
        together = time.perf_counter() - start
        alone, accuracies = [], []
        for name in list(cells)[: arguments.alone]:
            config.genotype = genotypes.to_json(cells[name])
            start = time.perf_counter()
            accuracies.append(train.run(config, Path(folder) / name)["top1"])
            alone.append(time.perf_counter() - start)
    found = [row["accuracy"] for row in rows.values() if row["accuracy"] is not None]
    reporting.say(f"accuracies: {np.mean(found):.4f} on average, those alone {np.mean(accuracies):.4f}")
    reporting.say(f"{len(cells)} cells by one compiled function on {len(jax.devices())} devices: {together:.0f} s")
    each = statistics.mean(alone)
    times = ", ".join(f"{seconds:.1f}" for seconds in alone)
    reporting.say(f"as networks of their own {each:.1f} s each ({times}), so {each * len(cells):.0f} s in all")
    reporting.say(f"ratio {each * len(cells) / together:.1f}")


if __name__ == "__main__":
    main()
