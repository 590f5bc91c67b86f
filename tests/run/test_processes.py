"""Several processes of one machine run one search: killed, resumed, stopped, and ended by one alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import imagenet_folder
import numpy as np
import one_process
import pytest
from conftest import SCRIPT_PATH
from test_train import CELL

from prdarts_jax.run import reporting
from prdarts_jax.spaces import genotypes

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 20, 3
SLOW = pytest.mark.skipif(
    os.environ.get("PRDARTS_SLOW_TESTS") != "1", reason="takes minutes: runs with PRDARTS_SLOW_TESTS=1"
)


@pytest.fixture(scope="module", params=["stand-in", pytest.param("supernet", marks=SLOW)])
def network(request):
    """What is searched in: the search's own supernet takes long to compile, in each process."""
    return request.param


def start(network, workdir):
    """Two processes search in `workdir`."""
    port = free_port()
    return launch([one_process.__file__, network, workdir, port, 2, process] for process in range(2))


def start_main(workdir, processes, config, fields):
    """The command line."""
    arguments = ["-m", "prdarts_jax.main", f"--config={config}", f"--workdir={workdir}"]
    arguments += [f"--config.{name}={value}" for name, value in fields.items()]
    if processes == 1:
        return launch([arguments])
    arguments += [f"--coordinator=localhost:{free_port()}", f"--processes={processes}"]
    return launch([*arguments, f"--process={process}"] for process in range(processes))


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launch(commands):
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | SCRIPT_PATH | {"JAX_PLATFORMS": "cpu"},
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
    texts = finish(start(network, workdir))
    assert "48 images of digits" in texts[0] and "images" not in texts[1]  # one process speaks
    return workdir


def test_two_processes_write_each_file_once(undisturbed):
    records = reporting.read_records(undisturbed)
    assert [record["step"] for record in records] == [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
    assert json.loads((undisturbed / "config.json").read_text())["epochs"] == EPOCHS


def test_a_killed_search_is_resumed_bit_for_bit_and_one_process_can_end_it(network, undisturbed, tmp_path, capsys):
    started = start(network, tmp_path)
    wait_for_epochs(started, tmp_path, 3)
    started[1].kill()
    started[0].kill()  # which alone cannot go on
    for process in started:
        process.communicate()
    killed = len(reporting.read_records(tmp_path))
    assert 3 <= killed < EPOCHS

    started = start(network, tmp_path)
    wait_for_epochs(started, tmp_path, killed + 3)
    started[1].send_signal(signal.SIGTERM)  # both stop, though one alone is asked to
    text = finish(started)[0]
    assert "resumed at step" in text
    step = int(re.search(r"stopped at step (\d+) of 60; the same command resumes it", text)[1])
    done = step // STEPS
    assert killed + 3 <= done < EPOCHS
    for epoch in range(done):
        logits, expected = (reporting.read_logits(workdir, epoch) for workdir in (tmp_path, undisturbed))
        for cell_type in expected:
            np.testing.assert_array_equal(logits[cell_type], expected[cell_type])

    one_process.run(network, tmp_path)
    assert f"resumed at step {step}" in capsys.readouterr().out
    records, expected_records = (
        [record | {"seconds": 0} for record in reporting.read_records(workdir)] for workdir in (tmp_path, undisturbed)
    )
    assert records[:done] == expected_records[:done]
    assert [record["step"] for record in records] == [record["step"] for record in expected_records]
    logits, expected = (reporting.read_logits(workdir, done) for workdir in (tmp_path, undisturbed))
    for cell_type in expected:  # after at most three steps by one process instead of two
        np.testing.assert_allclose(logits[cell_type], expected[cell_type], atol=1e-3)


@SLOW
@pytest.mark.parametrize("dataset", ["digits", "imagenet"])
def test_two_processes_train_as_one_does(dataset, tmp_path):
    fields = {"genotype": genotypes.to_json(CELL), "channels": 4, "cells": 1, "auxiliary_weight": 0.0, "epochs": 3}
    if dataset == "digits":
        config = "configs/cifar10_eval.py"
        fields |= {"dataset": "digits", "num_examples": 80, "batch_size": 8, "augmentation.cutout": 2}
    else:
        config = "configs/imagenet_eval.py"
        fields |= {"data_dir": imagenet_folder.write(tmp_path / "data"), "image_size": 32, "batch_size": 4}
    for processes in (1, 2):
        finish(start_main(tmp_path / str(processes), processes, config, fields | {"weights.learning_rate": 0.01}))
    one, two = (dict(reporting.numbers(json.loads((tmp_path / n / "result.json").read_text()))) for n in "12")
    assert one.keys() == two.keys() and one["images"] == (360 if dataset == "digits" else imagenet_folder.VALIDATION)
    for name, expected in one.items():
        assert two[name] == pytest.approx(expected, rel=1e-3), name
    for record, expected in zip(*(reporting.read_records(tmp_path / n) for n in "21"), strict=True):
        assert record["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)


@SLOW
def test_two_processes_search_a_seed_each(tmp_path):
    fields = {"space": "s2", "channels": 2, "cells": 1, "num_examples": 48, "batch_size": 8, "epochs": 2, "seeds": 2}
    fields |= {"evaluation.epochs": 0, "hessian": True, "logits.learning_rate": 0.1}
    for processes in (1, 2):
        finish(start_main(tmp_path / str(processes), processes, "configs/digits.py", fields))
    for seed in ("seed_0", "seed_1"):
        one, two = (reporting.read_logits(tmp_path / n / seed, 1) for n in "12")
        for cell_type, logits in one.items():
            np.testing.assert_allclose(two[cell_type], logits, rtol=1e-4)
        one, two = (reporting.read_records(tmp_path / n / seed)[-1] for n in "12")
        assert {name: two[name] for name in ("val_loss", "eigenvalue")} == pytest.approx(
            {name: one[name] for name in ("val_loss", "eigenvalue")}, rel=1e-3
        )
    assert (tmp_path / "2/population.md").exists()
