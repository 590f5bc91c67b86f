r"""One of the nine benchmarks of confopt's suite on CIFAR-10 (Jha et al., AutoML 2025): DARTS unless a method is named.

A benchmark is a network and a set of ops. `deep` has 18 cells of 7 channels, `wide` 4 cells of 18, `single_cell` one
cell of 26 with eight nodes, the last four of which are concatenated. `regular` is the set of ops of DARTS, `no_skip` is
without skip connections, and `all_skip` has one beside every op. A search takes half of the training images. Not yet
run here over all 100 epochs.

    python -m prdarts_jax.main --config=configs/bench_suite.py --workdir=runs/bench_suite
    python -m prdarts_jax.main --config=configs/bench_suite.py:single_cell_all_skip --workdir=runs/all_skip
    python -m prdarts_jax.main --config=configs/bench_suite.py:wide_no_skip:pr_darts --workdir=runs/wide

The suite searches with GDAS for 300 epochs, in batches five times as large. experiments/bench_suite.py trains the found
cells as the suite does.
"""

from ml_collections import ConfigDict

from prdarts_jax import refusals
from prdarts_jax.run import settings

# Network: (space of regular ops, channels, cells, batch size of a search).
NETWORKS = {
    "deep": ("darts", 7, 18, 64),
    "wide": ("darts", 18, 4, 96),
    "single_cell": ("single_cell", 26, 1, 96),
}
OPS = ("regular", "no_skip", "all_skip")
BENCHMARKS = {f"{network}_{ops}": (network, ops) for network in NETWORKS for ops in OPS}


def get_config(text: str = "deep_regular") -> ConfigDict:
    """The settings of a benchmark, BENCHMARK or BENCHMARK:METHOD.

    Raises:
      ValueError: there is no such benchmark.
    """
    name, _, method = text.partition(":")
    if name not in BENCHMARKS:
        raise ValueError(
            f"benchmark {refusals.shown(name)} is unknown; allowed are {refusals.listed(name, BENCHMARKS)}"
        )
    network, ops = BENCHMARKS[name]
    space, channels, cells, batch_size = NETWORKS[network]
    config = settings.search("darts")
    config.method = method or "darts"
    config.space = space if ops == "regular" else f"{space}_{ops}"
    config.num_examples = 25_000
    config.epochs = 100
    config.batch_size = batch_size
    config.evaluation.batch_size = 512
    for section in (config, config.evaluation):
        section.update({"channels": channels, "cells": cells})
    return config
