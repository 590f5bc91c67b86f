"""One of several processes of a search, for test_processes.py.

PYTHONPATH=.:tests python tests/run/one_process.py NETWORK WORKDIR PORT PROCESSES PROCESS

NETWORK is `supernet` or `stand-in`.
"""

import sys
from pathlib import Path

import jax
import pytest
from shared import make_toy, tiny_config, without_pictures

from prdarts_jax.run import loop, problems, reporting, search

EPOCHS = 20


def run(network, workdir):
    """The search, or the rest of it."""
    config = tiny_config(epochs=EPOCHS, steps_per_call=1)
    with without_pictures(), pytest.MonkeyPatch.context() as patch:
        if network == "stand-in":
            config = tiny_config("darts", epochs=EPOCHS, steps_per_call=1)  # compiles faster
            patch.setattr(problems, "make_supernet", make_toy)
        search.run(config, workdir)


def main(network, workdir, port, processes, process):
    jax.distributed.initialize(f"localhost:{port}", processes, process)
    try:
        run(network, workdir)
    except loop.Stopped as stopped:
        reporting.say(str(stopped))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
