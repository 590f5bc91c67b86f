"""One of several processes of a search, for test_processes.py.

PYTHONPATH=.:tests python tests/run/one_process.py NETWORK WORKDIR PORT PROCESSES PROCESS

NETWORK is `supernet` or `stand-in`.
"""

import os
import sys
from pathlib import Path

import jax
import pytest
from conftest import quick_compiler
from test_population import tiny_config
from test_search_job import Toy

from prdarts_jax import devices, spaces
from prdarts_jax.run import loop, problems, reporting, search


class Network(Toy):
    axis_name: str | None = None


def stand_in(config, method, classes, axis_name):
    return Network(spaces.named(config.space), axis_name)


def run(network, workdir):
    """The search, or the rest of it."""
    config = tiny_config(epochs=20, steps_per_call=1)
    with quick_compiler(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "write_pictures", lambda *_: None)  # takes longer than the search
        if network == "stand-in":
            config.method = "darts"  # compiles faster
            patch.setattr(problems, "make_supernet", stand_in)
        search.run(config, workdir)


def main(network, workdir, port, processes, process):
    jax.distributed.initialize(f"localhost:{port}", processes, process)
    if not devices.is_main():
        sys.stdout = open(os.devnull, "w")
    try:
        run(network, workdir)
    except loop.Stopped as stopped:
        print(stopped)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
