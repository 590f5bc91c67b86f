"""The worker processes that read batches from disk: how they start, outlive signals, and end."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prdarts_jax.data import streaming
from prdarts_jax.data.source import Source

TRAIN: dict[str, Any] = {"image_size": 16, "batch_size": 4, "seed": 3, "step": 0}


def reporting_source(report: Callable[[], int]) -> Source:
    """Small images whose labels are what `report` says in the process that reads them."""

    def read(positions: list[int]) -> list[dict]:
        return [{"image": np.zeros((4, 4, 3), np.uint8), "label": report()} for _ in positions]

    return Source((30, 30, 3), 1, 4000, read)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("ending", ["close", "drop"])
def test_workers_outlive_signals_to_the_group_but_not_the_generator(ending: str) -> None:
    source = reporting_source(lambda: os.getpid())
    batches = streaming.train_batches(source, **TRAIN | {"workers": 2})
    workers = {int(next(batches)["label"][0]) for _ in range(4)}
    assert len(workers) == 2 and os.getpid() not in workers
    for worker in workers:
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
    assert {int(next(batches)["label"][0]) for _ in range(100)} == workers
    if ending == "close":
        batches.close()
    else:
        del batches
    assert not any(map(alive, workers)) and not multiprocessing.active_children()


def test_a_worker_that_died_is_reported_and_the_others_end() -> None:
    def report() -> int:
        time.sleep(0.02)  # where the kill will find it, so that it leaves no shared memory behind
        return os.getpid()

    batches = streaming.train_batches(reporting_source(report), **TRAIN | {"workers": 2})
    os.kill(int(next(batches)["label"][0]), signal.SIGKILL)
    with pytest.raises(OSError, match="broke down: .*terminated unexpectedly"):
        list(batches)
    assert not multiprocessing.active_children()


def test_workers_start_no_backend_of_jax_and_no_tensorflow() -> None:
    def report() -> int:
        from jax._src import xla_bridge

        return int(xla_bridge.backends_are_initialized()) + 2 * ("tensorflow" in sys.modules)

    with contextlib.closing(streaming.train_batches(reporting_source(report), **TRAIN | {"workers": 1})) as batches:
        assert set(next(batches)["label"]) == {0}


def test_workers_end_after_a_process_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import os, time
import numpy as np
from prdarts_jax.data import sources, streaming

def read(positions):
    return [{"image": np.zeros((4, 4, 3), np.uint8), "label": os.getpid()} for _ in positions]

if __name__ == "__main__":
    source = sources.Source((30, 30, 3), 1, 4000, read)
    batches = streaming.test_batches(source, image_size=16, batch_size=4, workers=1)
    print(next(batches)["label"][0], flush=True)
    time.sleep(60)
""")
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert alive(worker)
        process.kill()
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
