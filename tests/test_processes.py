"""Several processes of one machine run one search: killed, gone on with, and ended by one alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prdarts_jax import reporting

EPOCHS, STEPS = 40, 3
SLOW = pytest.mark.skipif(
    os.environ.get("PRDARTS_SLOW_TESTS") != "1", reason="takes minutes: runs with PRDARTS_SLOW_TESTS=1"
)


@pytest.fixture(scope="module", params=["stand-in", pytest.param("supernet", marks=SLOW)])
def network(request):
    """What is searched in: the search's own supernet takes long to compile, seven times."""
    return request.param


def start(network, workdir, processes):
    """Searches in `workdir`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("one_process.py")
    commands = [[sys.executable, script, network, workdir, port, processes, process] for process in range(processes)]
    return [
        subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for command in commands
    ]


def finish(started):
    """What they print, once all have ended well."""
    texts = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(texts)
    return texts


def wait_for_epochs(started, workdir, epochs):
    while len(reporting.read_records(workdir)) < epochs:
        assert all(process.poll() is None for process in started), [process.communicate()[0] for process in started]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(network, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    texts = finish(start(network, workdir, 2))
    assert "48 images of digits" in texts[0] and "images" not in texts[1]  # one process speaks
    return workdir


def test_two_processes_write_each_file_once(undisturbed):
    records = reporting.read_records(undisturbed)
    assert [record["step"] for record in records] == [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
    assert json.loads((undisturbed / "config.json").read_text())["epochs"] == EPOCHS


def test_a_killed_search_goes_on_bit_for_bit_and_one_process_can_end_it(network, undisturbed, tmp_path):
    started = start(network, tmp_path, 2)
    wait_for_epochs(started, tmp_path, 3)
    started[1].kill()
    started[0].kill()  # which alone cannot go on
    for process in started:
        process.communicate()
    killed = len(reporting.read_records(tmp_path))
    assert 3 <= killed < EPOCHS

    started = start(network, tmp_path, 2)
    wait_for_epochs(started, tmp_path, killed + 3)
    started[1].send_signal(signal.SIGTERM)  # both stop, though one alone is asked to
    text = finish(started)[0]
    assert "going on from step" in text
    step = int(re.search(r"stopped at step (\d+) of 120; the same command goes on from there", text)[1])
    done = step // STEPS
    assert killed + 3 <= done < EPOCHS
    for epoch in range(done):
        logits, expected = (reporting.read_logits(workdir, epoch) for workdir in (tmp_path, undisturbed))
        for cell_type in expected:
            np.testing.assert_array_equal(logits[cell_type], expected[cell_type])

    (text,) = finish(start(network, tmp_path, 1))
    assert f"going on from step {step}" in text
    records, expected_records = (
        [record | {"seconds": 0} for record in reporting.read_records(workdir)] for workdir in (tmp_path, undisturbed)
    )
    assert records[:done] == expected_records[:done]
    assert [record["step"] for record in records] == [record["step"] for record in expected_records]
    logits, expected = (reporting.read_logits(workdir, done) for workdir in (tmp_path, undisturbed))
    for cell_type in expected:  # after at most three steps by one process instead of two
        np.testing.assert_allclose(logits[cell_type], expected[cell_type], atol=1e-3)
