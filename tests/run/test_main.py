"""The command line: what a run leaves behind, that stopping it leaves no trace, and what it says to bad input."""

import json
import math
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from tqdm import tqdm

from prdarts_jax import main
from prdarts_jax.run import loop, problems, search
from prdarts_jax.search.step import SearchState
from prdarts_jax.spaces import genotypes

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 15, 12  # 200 images: 100 train the weights, 12 batches of 8 an epoch
TINY = {
    "space": "s2",
    "channels": 2,
    "cells": 1,
    "num_examples": 200,
    "batch_size": 8,
    "epochs": EPOCHS,
    "steps_per_call": 5,
}
PICTURES = ("cell_normal", "cell_reduce", "activation", "skip_share", "curves")


def tiny_config():
    config = runpy.run_path(str(ROOT / "configs/digits.py"))["get_config"]()
    config.update(TINY)
    config.evaluation.epochs = 0
    return config


def command(*arguments):
    return [sys.executable, "-m", "prdarts_jax.main", *arguments]


def tiny_command(workdir):
    fields = [f"--config.{name}={value}" for name, value in (TINY | {"evaluation.epochs": 0}).items()]
    return command("--config=configs/digits.py", f"--workdir={workdir}", *fields)


def environment():
    """That of the tests, with their compilation cache."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs),
    }


def run(arguments):
    return subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)


def test_the_dtype_reaches_the_supernet():
    config = tiny_config()
    config.dtype = "bfloat16"
    supernet = problems.make_search_problem(config, 10, 5).supernet
    assert supernet.dtype == jax.numpy.bfloat16


@pytest.fixture
def no_cache(monkeypatch):
    """JAX as it is without a compilation cache, and afterwards as it was."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_functions_are_kept_in_the_users_cache_folder_or_where_asked(no_cache, tmp_path):
    def folder():
        return jax.config.jax_compilation_cache_dir

    no_cache.setenv("XDG_CACHE_HOME", str(tmp_path))
    main.use_compilation_cache(None)
    assert folder() == str(tmp_path / "prdarts_jax")
    main.use_compilation_cache("")
    assert folder() is None
    no_cache.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    main.use_compilation_cache(None)
    assert folder() is None  # JAX has read its variable before
    main.use_compilation_cache(str(tmp_path / "mine"))
    assert folder() == str(tmp_path / "mine")


def exit_code(config, workdir, monkeypatch):
    """What main.main ends with, without a process of its own, and without parsing flags."""
    parsed = types.SimpleNamespace(config=config, workdir=str(workdir), cache_dir=None, distributed=False)
    parsed.coordinator = parsed.processes = parsed.process = None
    monkeypatch.setattr(main, "flags", types.SimpleNamespace(FLAGS=parsed))
    monkeypatch.setattr(main, "use_compilation_cache", lambda folder: None)
    with pytest.raises(SystemExit) as ended:
        main.main(["prdarts_jax.main"])
    return ended.value.code


def kill_at_random(arguments, workdir):
    """Runs a command and kills it at some moment after two or three epochs."""
    metrics = workdir / "metrics.jsonl"

    def lines():
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    wanted, delay = random.randint(2, 3), random.uniform(0, 0.2)  # the first epoch's checkpoint is complete
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while lines() < wanted and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    _, err = process.communicate(timeout=120)
    assert lines() < EPOCHS, f"over before the signal, after epoch {wanted} and {delay:.2f} s: {err}"
    assert process.returncode == -signal.SIGKILL


def read_records(workdir):
    """metrics.jsonl without the only thing that may change when a run is repeated."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def read_architectures(workdir):
    return {path.name: dict(np.load(path)) for path in sorted((workdir / "architecture").iterdir())}


def assert_same_run(found, expected):
    """Logits, probabilities, genotype and metrics, bit for bit."""
    assert (found / "genotype.json").read_bytes() == (expected / "genotype.json").read_bytes()
    a, b = read_architectures(found), read_architectures(expected)
    assert a.keys() == b.keys()
    for epoch in a:
        assert a[epoch].keys() == b[epoch].keys()
        for name in a[epoch]:
            assert a[epoch][name].tobytes() == b[epoch][name].tobytes(), (epoch, name)
    assert read_records(found) == read_records(expected)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a whole run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    (found,) = search.run(tiny_config(), workdir)
    assert genotypes.from_json((workdir / "genotype.json").read_text()) == found
    return workdir


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


# What a run leaves behind


def test_workdir_holds_everything(undisturbed):
    fields = tiny_config().to_dict()
    del fields["evaluation"]  # of what is trained afterwards, elsewhere
    assert json.loads((undisturbed / "config.json").read_text()) == json.loads(json.dumps(fields))
    for name in PICTURES:
        assert (undisturbed / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    events = list((undisturbed / "tensorboard").glob("events.out.tfevents.*"))
    assert b"train_loss" in b"".join(path.read_bytes() for path in events)
    saved = sorted(int(path.name) for path in (undisturbed / "checkpoints").iterdir())
    assert saved[-1] == EPOCHS * STEPS and len(saved) > 1 and all(step % STEPS == 0 for step in saved)
    assert not list(undisturbed.rglob("*.tmp"))


def test_metrics_have_a_line_an_epoch(undisturbed):
    records = read_records(undisturbed)
    assert [record["epoch"] for record in records] == list(range(EPOCHS))
    assert [record["step"] for record in records] == [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
    for record in records:
        for name in ("train_loss", "val_loss", "l_skip", "l_nonskip", "l_pool", "l_path"):
            assert math.isfinite(record[name]) and record[name] >= 0
        assert 0 <= record["train_accuracy"] <= 1 and 0 <= record["val_accuracy"] <= 1
    # Linear in the step, so the mean over an epoch is the value in its middle.
    middle = [(STEPS * epoch + (STEPS - 1) / 2) / (EPOCHS * STEPS - 1) for epoch in range(EPOCHS)]
    np.testing.assert_allclose([record["temperature"] for record in records], 1 - 0.9 * np.array(middle), rtol=1e-4)
    assert records[-1]["genotype"] == json.loads((undisturbed / "genotype.json").read_text())
    assert records[0]["train_loss"] > records[-1]["train_loss"]


def test_architecture_of_every_epoch_is_saved(undisturbed):
    saved = read_architectures(undisturbed)
    assert list(saved) == [f"epoch_{epoch:04d}.npz" for epoch in range(EPOCHS)]
    for epoch, arrays in enumerate(saved.values()):
        temperature = 1 - 0.9 * (STEPS * (epoch + 1) - 1) / (EPOCHS * STEPS - 1)
        for t in ("normal", "reduce"):
            logits, probability = arrays[f"logits_{t}"], arrays[f"probability_{t}"]
            assert logits.shape == (14, 2)
            expected = 1 / (1 + np.exp(-(logits - temperature * np.log(0.1 / 1.1))))
            np.testing.assert_allclose(probability, expected, rtol=1e-5)
            mean = read_records(undisturbed)[epoch]["activation"][t]["all"]
            np.testing.assert_allclose(mean, probability.mean(), rtol=1e-5)
    first, last = saved["epoch_0000.npz"], saved[f"epoch_{EPOCHS - 1:04d}.npz"]
    assert all((first[f"logits_{t}"] != last[f"logits_{t}"]).any() for t in ("normal", "reduce"))


# Stopping and resuming


def test_finished_run_is_left_as_it_is(finished, undisturbed, capsys):
    def contents(workdir):
        files = (path for path in workdir.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
        return {str(path.relative_to(workdir)): path.read_bytes() for path in files}

    (found,) = search.run(tiny_config(), finished)
    assert found == genotypes.from_json((undisturbed / "genotype.json").read_text())
    assert contents(finished) == contents(undisturbed)
    assert "compiled" not in capsys.readouterr().out


def test_killed_run_is_resumed_to_the_same_end(undisturbed, tmp_path, capsys):
    kill_at_random(tiny_command(tmp_path), tmp_path)
    search.run(tiny_config(), tmp_path)
    assert re.search(rf"^resumed at step \d+ of {EPOCHS * STEPS}$", capsys.readouterr().out, re.MULTILINE)
    assert_same_run(tmp_path, undisturbed)


def test_stopped_run_is_resumed_to_the_same_end(undisturbed, tmp_path, monkeypatch, capsys):
    middle = STEPS + 5  # not the end of an epoch

    class StopInTheMiddle(tqdm):
        def update(self, n=1):
            super().update(n)
            if self.n == middle:
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with (
        monkeypatch.context() as patch,
        pytest.raises(loop.Stopped, match=f"^stopped at step {middle} of 180; the same"),
    ):
        patch.setattr(loop, "tqdm", StopInTheMiddle)
        search.run(tiny_config(), tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / str(middle)).is_dir()
    assert len(read_records(tmp_path)) == 1 and not (tmp_path / "genotype.json").exists()

    capsys.readouterr()
    middle = 5 * STEPS + 10
    with monkeypatch.context() as patch:
        patch.setattr(loop, "tqdm", StopInTheMiddle)
        assert exit_code(tiny_config(), tmp_path, patch) == 128 + signal.SIGTERM == 143
    out = capsys.readouterr().out
    assert f"resumed at step {STEPS + 5} of 180\n" in out
    step = re.search(r"^stopped at step (\d+) of 180; the same command resumes it$", out, re.MULTILINE)[1]
    assert step == str(middle) and (tmp_path / "checkpoints" / step).is_dir()

    search.run(tiny_config(), tmp_path)
    assert f"resumed at step {step} of 180\n" in capsys.readouterr().out
    assert_same_run(tmp_path, undisturbed)


def truncate(checkpoint):
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def test_truncated_newest_checkpoint_is_reported_and_the_one_before_used(finished, undisturbed, capsys):
    *_, before, newest = sorted((finished / "checkpoints").iterdir(), key=lambda path: int(path.name))
    truncate(newest)
    search.run(tiny_config(), finished)
    out = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged" in out and f"the one before it, {before}, is used" in out
    assert f"resumed at step {before.name} of 180\n" in out
    assert_same_run(finished, undisturbed)


def test_damage_of_all_checkpoints_is_an_error(finished, capsys):
    for checkpoint in (finished / "checkpoints").iterdir():
        truncate(checkpoint)
    with pytest.raises(ValueError) as error:
        search.run(tiny_config(), finished)
    assert str(error.value) == (
        f"all checkpoints in {finished}/checkpoints are damaged: use another --workdir, "
        "or move that folder away to start anew"
    )
    assert "compiled" not in capsys.readouterr().out


# Bad input: one sentence, exit status 1, before anything is compiled


def assert_refused(arguments, message):
    done = run(arguments)
    assert done.returncode == 1
    assert "compiled" not in done.stdout and "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[0]


def test_unknown_field_is_refused():
    with pytest.raises(SystemExit) as ended:
        main.parse_flags(["prdarts_jax.main", "--config=configs/digits.py", "--config.weights.speed=1"])
    message = "error: config.weights.speed is not a field of the config; the fields are accumulate, "
    assert ended.value.code.startswith(message)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "genotype=PRDARTS",
            "error: config.genotype is not a field of --config=configs/digits.py: each kind of job has fields",
        ),
        ("batch_size=abc", "flag --config.batch_size=abc: invalid literal for int() with base 10: 'abc'"),
    ],
)
def test_bad_field_is_refused(field, message, tmp_path):
    arguments = command("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", f"--config.{field}")
    assert_refused(arguments, message)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (
            "digits",
            {"evaluation.auxiliary_weight": 0.4},
            "error: config.auxiliary_weight=0.4 must be 0 here: the auxiliary head needs features of 8 to 10 pixels",
        ),
        ("digits", {"method": "nas"}, "error: config.method='nas' must be one of pr_darts, darts"),
        (
            "digits",
            {"channels": 3},
            "error: config.channels=3 must be even and at least 2, since a factorised reduction makes half",
        ),
        (
            "digits",
            {"batch_size": 719},
            "error: config.batch_size=719 must be at most 718, half of the 1437 images of digits in use: "
            "one half trains the weights, the other the logits",
        ),
        (
            "svhn",
            {"data_dir": "/nowhere"},
            "error: Data set svhn is not in data_dir /nowhere: expected the folder /nowhere/svhn_cropped/VERSION",
        ),
    ],
)
def test_bad_value_is_refused(config, fields, message, tmp_path, monkeypatch, capsys):
    given = runpy.run_path(str(ROOT / f"configs/{config}.py"))["get_config"]()
    given.update_from_flattened_dict(fields)
    assert str(exit_code(given, tmp_path, monkeypatch)).startswith(message)  # which Python prints, and exits with 1
    assert "compiled" not in capsys.readouterr().out and not any(tmp_path.iterdir())


def test_workdir_of_another_config_is_refused(undisturbed, monkeypatch, capsys):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    config = tiny_config()
    config.epochs, config.weights.clip = 7, 4.0
    assert exit_code(config, undisturbed, monkeypatch) == (
        f"error: {undisturbed} belongs to another run: config.epochs is {EPOCHS} there and 7 here, config.weights.clip "
        "is 5.0 there and 4.0 here; use another --workdir or the old values"
    )
    assert "compiled" not in capsys.readouterr().out
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


def test_missing_flags_are_refused(tmp_path):
    assert_refused(command("--config=configs/digits.py"), "Flag --workdir must have a value other than None.")
    assert_refused(command(f"--workdir={tmp_path}"), "Flag --config must have a value other than None.")


def test_missing_config_file_is_refused(tmp_path):
    assert_refused(
        command("--config=configs/nothere.py", f"--workdir={tmp_path}"),
        "error: --config=configs/nothere.py must be a Python file with get_config(), such as configs/digits.py",
    )


@pytest.mark.parametrize(
    "given, message",
    [
        ({"processes": 2}, "error: --coordinator, --processes and --process belong together: give all three or none"),
        (
            {"coordinator": "localhost:1", "processes": 2, "process": 2},
            "error: the processes could not be joined with --distributed=False, --coordinator=localhost:1,",
        ),
    ],
)
def test_processes_that_cannot_be_joined_are_refused(given, message, monkeypatch):
    names = ("distributed", "coordinator", "processes", "process")
    values = dict.fromkeys(names) | {"distributed": False} | given

    class Flags(types.SimpleNamespace):
        def __getitem__(self, name):
            return types.SimpleNamespace(value=values[name])

    def refuse(**given):
        raise ValueError("process_id must be less than num_processes")

    monkeypatch.setattr(main, "flags", types.SimpleNamespace(FLAGS=Flags(**values)))
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(SystemExit) as error:
        main.join_processes()
    assert str(error.value).startswith(message)


def test_the_command_says_its_flags_and_importing_it_defines_none():
    assert "workdir" not in flags.FLAGS
    done = run([sys.executable, "-c", "from prdarts_jax.main import cli; cli()", "--help"])
    assert all(f"--{name}:" in done.stdout for name in ("config", "workdir", "cache_dir", "coordinator"))


# The README


def test_readme_example_runs(compiled_quickly, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    example = next(block for block in blocks if "search_step" in block)
    scope = {}
    exec(example, scope)
    assert [int(value.step) > 0 for value in scope.values() if isinstance(value, SearchState)] == [True]
    assert "Genotype(normal=" in capsys.readouterr().out
