"""Several processes of one machine run one search: killed, resumed, stopped, and ended by one alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import imagenet_folder
import numpy as np
import one_process
import pytest
from scripts import SCRIPT_PATH
from shared import CELL, ROOT, read_records

from prdarts_jax.run import architecture, run_log
from prdarts_jax.spaces import genotypes

EPOCHS, STEPS = one_process.EPOCHS, 3


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
    while len(run_log.read_records(workdir)) < epochs:
        assert all(process.poll() is None for process in started), [process.communicate()[0] for process in started]
        time.sleep(0.05)


def kill(started):
    """Both, since one alone cannot go on; what each has printed."""
    for process in started:
        process.kill()
    return [process.communicate()[0] for process in started]


def assert_same_logits(found, expected, epochs, **tolerance):
    for epoch in epochs:
        logits, others = (architecture.read_logits(workdir, epoch) for workdir in (found, expected))
        for cell_type in others:
            np.testing.assert_allclose(logits[cell_type], others[cell_type], **tolerance)


def test_two_processes_search_as_one_does_and_once_killed_are_resumed_by_one_alone(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    started = start("stand-in", two)
    wait_for_epochs(started, two, 3)
    texts = kill(started)
    assert "48 images of digits" in texts[0] and "images" not in texts[1]  # one process speaks
    assert json.loads((two / "config.json").read_text())["epochs"] == EPOCHS
    killed = len(run_log.read_records(two))
    assert 3 <= killed < EPOCHS

    one_process.run("stand-in", two)
    assert re.search(r"^resumed at step \d+ of 60$", capsys.readouterr().out, re.MULTILINE)
    one_process.run("stand-in", one)
    for workdir in (one, two):  # each epoch is written once
        steps = [record["step"] for record in run_log.read_records(workdir)]
        assert steps == [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
    assert_same_logits(two, one, range(EPOCHS), atol=1e-4)


# Slow: several times two processes


@pytest.fixture(scope="module", params=["stand-in", "supernet"])
def network(request):
    """What is searched in: the search's own supernet takes long to compile, in each process."""
    return request.param


@pytest.fixture(scope="module")
def undisturbed(network, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(start(network, workdir))
    return workdir


@pytest.mark.slow
def test_killed_processes_are_resumed_bit_for_bit_and_stop_together(network, undisturbed, tmp_path, capsys):
    started = start(network, tmp_path)
    wait_for_epochs(started, tmp_path, 3)
    kill(started)
    killed = len(run_log.read_records(tmp_path))
    assert 3 <= killed < EPOCHS

    started = start(network, tmp_path)
    wait_for_epochs(started, tmp_path, killed + 3)
    started[1].send_signal(signal.SIGTERM)  # both stop, though one alone is asked to
    text = finish(started)[0]
    assert "resumed at step" in text
    step = int(re.search(r"stopped at step (\d+) of 60; the same command resumes it", text)[1])
    done = step // STEPS
    assert killed + 3 <= done < EPOCHS
    assert_same_logits(tmp_path, undisturbed, range(done), rtol=0)

    one_process.run(network, tmp_path)
    assert f"resumed at step {step}" in capsys.readouterr().out
    records, expected = map(read_records, (tmp_path, undisturbed))
    assert records[:done] == expected[:done]
    assert [record["step"] for record in records] == [record["step"] for record in expected]
    assert_same_logits(tmp_path, undisturbed, [done], atol=1e-3)  # after at most three steps by one process, not two


@pytest.mark.slow
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
    one, two = (dict(run_log.numbers(json.loads((tmp_path / n / "result.json").read_text()))) for n in "12")
    assert one.keys() == two.keys() and one["images"] == (360 if dataset == "digits" else imagenet_folder.VALIDATION)
    for name, expected in one.items():
        assert two[name] == pytest.approx(expected, rel=1e-3), name
    for record, expected in zip(*(run_log.read_records(tmp_path / n) for n in "21"), strict=True):
        assert record["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_search_a_seed_each_and_train_their_cells(tmp_path):
    fields = {"space": "s2", "channels": 2, "cells": 1, "num_examples": 48, "batch_size": 8, "epochs": 2, "seeds": 2}
    fields |= {"hessian": True, "logits.learning_rate": 0.1}
    fields |= {
        f"evaluation.{name}": value
        for name, value in {"epochs": 1, "channels": 2, "random_cells": 1, "batch_size": 8}.items()
    }
    for processes in (1, 2):
        finish(start_main(tmp_path / str(processes), processes, "configs/digits.py", fields))
    for seed in ("seed_0", "seed_1"):
        one, two = (architecture.read_logits(tmp_path / n / seed, 1) for n in "12")
        for cell_type, logits in one.items():
            np.testing.assert_allclose(two[cell_type], logits, rtol=1e-4)
        one, two = (run_log.read_records(tmp_path / n / seed)[-1] for n in "12")
        assert {name: two[name] for name in ("val_loss", "eigenvalue")} == pytest.approx(
            {name: one[name] for name in ("val_loss", "eigenvalue")}, rel=1e-3
        )
    assert (tmp_path / "2/population.md").exists()
    one, two = (json.loads((tmp_path / n / "comparison.json").read_text()) for n in "12")
    assert one.keys() == two.keys() == {"found_0", "found_1", "random_0", "all_skip"}
    for name, row in one.items():
        assert two[name]["accuracy"] == pytest.approx(row["accuracy"], abs=0.02)
    assert not (tmp_path / "2/evaluation/running").exists()
