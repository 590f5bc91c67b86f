"""One of several processes of a search, for test_processes.py.

python tests/one_process.py NETWORK WORKDIR PORT PROCESSES PROCESS, where NETWORK is `supernet` or `stand-in`
"""

import sys
from pathlib import Path

import jax
from conftest import quick_compiler
from test_population import tiny_config
from test_search_job import Toy

from prdarts_jax import spaces
from prdarts_jax.run import loop, reporting, search


class Network(Toy):
    axis_name: str | None = None


def main(network, workdir, port, processes, process):
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    config = tiny_config(epochs=20, steps_per_call=1)
    if network == "stand-in":
        config.method = "darts"  # compiles faster
        search.make_supernet = lambda config, _, classes, axis_name: Network(spaces.named(config.space), axis_name)
    reporting.write_pictures = lambda *_: None  # takes longer than the search
    try:
        search.run(config, workdir)
    except loop.Stopped as stopped:
        reporting.say(str(stopped))


if __name__ == "__main__":
    with quick_compiler():
        main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
