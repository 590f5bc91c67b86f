"""A run that is killed, at any moment, is resumed by the same command and ends with the same files bit for bit.

`make kills` draws KILLS moments at random, for all jobs together; `--slow` alone draws a few.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import killed
import numpy as np
import orbax.checkpoint as ocp
import pytest
from scripts import SCRIPT_PATH
from shared import ROOT, tiny_arguments

from prdarts_jax.run import checkpoints

pytestmark = pytest.mark.slow

IMPORTS = 1.5  # seconds, in which nothing is touched
EPOCHS = 16


def training(workdir):
    fields = {"dataset": "digits", "num_examples": 64, "channels": 2, "cells": 1, "auxiliary_weight": 0.0}
    fields |= {"batch_size": 16, "epochs": EPOCHS, "augmentation.cutout": 2}
    arguments = [f"--config={ROOT}/configs/cifar10_eval.py", f"--workdir={workdir}"]
    return arguments + [f"--config.{name}={value}" for name, value in fields.items()]


def comparison(workdir):
    fields = {"epochs": EPOCHS, "channels": 2, "cells": 1, "batch_size": 16, "random_cells": 1}
    return tiny_arguments(workdir, **{f"evaluation.{name}": value for name, value in fields.items()})


JOBS = {
    "search": lambda workdir: tiny_arguments(workdir, epochs=EPOCHS),
    "population": lambda workdir: tiny_arguments(workdir, epochs=EPOCHS, seeds=2),
    "comparison": comparison,
    "training": training,
}

# (event, the number of the match that kills), in the order in which a run comes by.
NAMING = r"^os.rename \S+/checkpoints/\d+\.orbax-checkpoint-tmp "  # a checkpoint is whole, but has no name
MOMENTS = {
    "search": [
        (r"^os.rename \S+/metrics.jsonl.tmp ", 1),  # at the start of the loop
        (r"^os.rename \S+/config.json.tmp ", 1),
        (r"^open \S+/metrics.jsonl a", 1),
        (r"^os.mkdir \S+/checkpoints/\d+\.orbax", 1),  # between the record of an epoch and its checkpoint
        (r"^open \S+/run.json w", 1),  # the arrays are written
        (NAMING, 1),
        (r"^open \S+/metrics.jsonl a", 3),
        (NAMING, 2),
        (r"^os.rename \S+/architecture/\S+.tmp ", 2),
        (r"^os.rename \S+/genotype.json.tmp ", 1),
        (r"^open \S+/curves.png.tmp ", 1),
        (r"^os.rename \S+/diagnostics.png.tmp ", 1),
        (r"^os.rename \S+/report.html.tmp ", 1),
    ],
    "population": [
        (r"^open \S+/seed_1/metrics.jsonl a", 4),  # one seed has the record of an epoch, the other not
        (NAMING, 2),
        (r"^os.rename \S+/seed_1/genotype.json.tmp ", 1),
        (r"^os.rename \S+/population.json.tmp ", 1),
        (r"^open \S+/population.png.tmp ", 1),
        (r"^os.rename \S+/report.html.tmp ", 1),
    ],
    "comparison": [
        (r"^os.rename \S+/evaluation/config.json.tmp ", 1),
        (r"^open \S+/evaluation/found/seed_0/metrics.jsonl a", 1),
        (NAMING.replace("checkpoints", "running/checkpoints"), 2),
        (r"^os.rename \S+/evaluation/\S+/result.json.tmp ", 2),  # one cell has its result
        (r"^os.rename \S+/running/config.json.tmp ", 1),  # of others, of which one has records from before
        (r"^shutil.rmtree \S+/running", 1),
        (r"^os.rename \S+/results.json.tmp ", 1),
        (r"^os.rename \S+/comparison.json.tmp ", 1),
        (r"^os.rename \S+/report.html.tmp ", 2),
    ],
    "training": [
        (r"^open \S+/metrics.jsonl a", 2),
        (NAMING, 2),
        (r"^os.rename \S+/result.json.tmp ", 1),
        (r"^open \S+/confusion.png.tmp ", 1),
        (r"^os.rename \S+/classifier.stablehlo.tmp ", 1),
        (r"^open \S+/report.html.tmp ", 1),
    ],
}


class Whole(NamedTuple):
    """A run that was not killed."""

    folder: Path
    cache: Path  # of what it has compiled
    seconds: float  # of processors, with the compiler
    seconds_of_next: float  # with the cache


@pytest.fixture(scope="module", params=JOBS)
def job(request):
    return request.param


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    folder, seconds = tmp_path_factory.mktemp(f"whole_{job}"), []
    for name in ("first", "second"):
        before = computed_by_children()
        assert ended(start(job, folder / name, folder / "cache")) == 0
        seconds.append(computed_by_children() - before)
    assert_same(folder / "second", folder / "first")
    return Whole(folder / "first", folder / "cache", *seconds)


def start(job, workdir, cache, event="never", number=1):
    command = [sys.executable, killed.__file__, event, str(number), *JOBS[job](workdir), f"--cache_dir={cache}"]
    settings = {"JAX_PLATFORMS": "cpu"}
    with open(f"{workdir}.txt", "a") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | SCRIPT_PATH | settings)


def computed_by_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kill_after(process, seconds):
    """Kills it once it has computed for so long, which depends less than time does on what else the machine does."""
    while process.poll() is None:
        user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        if (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") > seconds:
            process.kill()
        time.sleep(0.01)


def ended(process):
    """The exit code of a process that may take minutes."""
    return process.wait(timeout=600)


def said(workdir):
    return Path(f"{workdir}.txt").read_text()


def assert_same(workdir, expected):
    """All files are the same, but for times, and for how many checkpoints there are before the last."""
    found, there = contents(workdir), contents(expected)
    assert found.keys() == there.keys()
    assert not [name for name in there if found[name] != there[name]]


def contents(workdir):
    """What stands in each file, without times; in each folder of checkpoints in the newest."""
    result = {}
    for path in sorted(workdir.rglob("*")):
        name = str(path.relative_to(workdir))
        if path.name == "checkpoints":
            newest = checkpoints.newest(path)
            result[f"{name}/{newest.name}"] = of_checkpoint(newest / "state")
        elif path.name == "metrics.jsonl":
            result[name] = without_seconds([json.loads(line) for line in path.read_text().splitlines()])
        elif path.is_file() and not {"checkpoints", "tensorboard"} & set(path.relative_to(workdir).parts):
            result[name] = path.read_bytes()
    return result


def of_checkpoint(folder):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore(folder)
    arrays = {name: (array.dtype, array.shape, np.asarray(array).tobytes()) for name, array in leaves.items()}
    run = json.loads((folder / "run.json").read_text())
    return arrays, run["config"], [without_seconds(records) for records in run["records"]]


def without_seconds(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_killed_at_named_moments(job, whole, tmp_path):
    workdir = tmp_path / "run"
    for event, number in MOMENTS[job]:
        assert ended(start(job, workdir, whole.cache, event, number)) == -signal.SIGKILL, (event, said(workdir)[-3000:])
    assert ended(start(job, workdir, whole.cache)) == 0, said(workdir)[-3000:]
    assert_same(workdir, whole.folder)
    print(f"\n{job}: killed at {len(MOMENTS[job])} named moments, resumed, identical")


def test_killed_at_random_moments(job, whole, tmp_path, request):
    """Each run is killed, and started again, until it ends before the next moment."""
    share = -(-request.config.getoption("kills") // len(JOBS))
    kills = resumed = runs = 0
    while kills < share:
        # Each fourth has an empty compilation cache at first.
        cache, seconds = (whole.cache, whole.seconds_of_next) if runs % 4 else (tmp_path / str(runs), whole.seconds)
        workdir = tmp_path / f"run_{runs}"
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            process = start(job, workdir, cache)
            if kills < share:
                kill_after(process, random.uniform(IMPORTS, seconds))
            code = ended(process)
            kills += code == -signal.SIGKILL
        assert code == 0, said(workdir)[-3000:]
        assert_same(workdir, whole.folder)
        resumed += said(workdir).count("resumed at step")
        runs += 1
    print(
        f"\n{job}: {kills} kills at random moments, {resumed} times resumed from a checkpoint, otherwise begun anew; "
    )
    print(f"all {runs} runs ended with the same files")


def test_of_two_processes_in_a_workdir_one_is_killed(job, whole, tmp_path):
    """The other is refused, or takes the lock later and goes on from there."""
    workdir, codes = tmp_path / "run", []
    while not {0, -signal.SIGKILL} <= {*codes}:
        both = [start(job, workdir, whole.cache) for _ in range(2)]
        kill_after(random.choice(both), random.uniform(IMPORTS, whole.seconds_of_next))
        codes += map(ended, both)
    codes.append(ended(start(job, workdir, whole.cache)))  # the last of them may have been killed
    assert codes[-1] == 0
    assert {*codes} <= {0, 1, -signal.SIGKILL}, said(workdir)[-3000:]
    assert said(workdir).count(" is in use by ") == codes.count(1)
    assert_same(workdir, whole.folder)
    print(f"\n{job}: {len(codes)} processes in pairs, {codes.count(-signal.SIGKILL)} killed, {codes.count(1)} refused")
