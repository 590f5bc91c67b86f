"""The command line: what a run leaves behind, that stopping it leaves no trace, and what it says to bad input."""

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import killed
import numpy as np
import pytest
from shared import (
    ROOT,
    assert_same_run,
    read_architectures,
    read_records,
    stop_at,
    tiny_arguments,
    tiny_config,
    without_pictures,
)

from prdarts_jax import command_line
from prdarts_jax.run import loop, problems, search
from prdarts_jax.spaces import genotypes

# Of ml_collections, where it reads a file of the flag.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

EPOCHS, STEPS, NODES = 15, 3, 3
DIGITS = f"--config={ROOT}/configs/digits.py:pr_darts_released"
PICTURES = ("cell_normal", "cell_reduce", "activation", "skip_share", "curves", "diagnostics")


def arguments_of(workdir):
    """Those of a search of 15 epochs of three steps."""
    return tiny_arguments(workdir, epochs=EPOCHS, nodes=NODES)


def assert_refused(ended, message):
    """With one sentence, which Python prints before it exits with 1, and before anything was compiled."""
    assert ended.code.startswith(f"error: {message}") and "\n" not in ended.code
    assert "compiled" not in ended.out and "Traceback" not in ended.err


def test_the_dtype_reaches_the_supernet():
    supernet = problems.make_search_problem(tiny_config(dtype="bfloat16"), 10, 5).supernet
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
    command_line.use_compilation_cache(None)
    assert folder() == str(tmp_path / "prdarts_jax")
    command_line.use_compilation_cache("")
    assert folder() is None
    no_cache.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    command_line.use_compilation_cache(None)
    assert folder() is None  # JAX has read its variable before
    command_line.use_compilation_cache(str(tmp_path / "mine"))
    assert folder() == str(tmp_path / "mine")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a whole run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    (found,) = search.run(tiny_config(epochs=EPOCHS, nodes=NODES), workdir).values()
    assert genotypes.from_json((workdir / "genotype.json").read_text()) == found
    return workdir


# What a run leaves behind


def test_workdir_holds_everything(undisturbed):
    fields = tiny_config(epochs=EPOCHS, nodes=NODES).to_dict()
    for name in ("evaluation", "discretization", "selection"):  # of what comes after the search, if anything does
        del fields[name]
    assert json.loads((undisturbed / "config.json").read_text()) == json.loads(json.dumps(fields))
    for name in PICTURES:
        assert (undisturbed / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (undisturbed / "report.html").read_text().endswith("</html>\n")
    events = list((undisturbed / "tensorboard").glob("events.out.tfevents.*"))
    assert b"train_loss" in b"".join(path.read_bytes() for path in events)
    saved = sorted(int(path.name) for path in (undisturbed / "checkpoints").iterdir())
    assert saved[-1] == EPOCHS * STEPS and len(saved) > 1 and all(step % STEPS == 0 for step in saved)
    assert not list(undisturbed.rglob("*.tmp"))
    # A supernet of one cell has no normal cell; with 24 images it learns little.
    assert json.loads((undisturbed / "doubts.json").read_text())[0].startswith(
        "no cell of the supernet is of the type normal"
    )


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
            assert logits.shape == (2, 2)
            expected = 1 / (1 + np.exp(-(logits - temperature * np.log(0.1 / 1.1))))
            np.testing.assert_allclose(probability, expected, rtol=1e-5)
            mean = read_records(undisturbed)[epoch]["activation"][t]["all"]
            np.testing.assert_allclose(mean, probability.mean(), rtol=1e-5)
    first, last = saved["epoch_0000.npz"], saved[f"epoch_{EPOCHS - 1:04d}.npz"]
    assert all((first[f"logits_{t}"] != last[f"logits_{t}"]).any() for t in ("normal", "reduce"))


# Stopping and resuming


def test_finished_run_is_left_as_it_is(undisturbed, tmp_path, capsys):
    def contents(workdir):
        files = (path for path in workdir.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
        return {str(path.relative_to(workdir)): path.read_bytes() for path in files}

    finished = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    with without_pictures():
        (found,) = search.run(tiny_config(epochs=EPOCHS, nodes=NODES), finished).values()
    assert found == genotypes.from_json((undisturbed / "genotype.json").read_text())
    assert contents(finished) == contents(undisturbed)
    assert "compiled" not in capsys.readouterr().out


def kill(arguments):
    """Runs the command in a process that is killed as it begins to write the metrics of the fourth epoch."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, killed.__file__, r"^open \S+/metrics.jsonl a", "4", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_killed_and_stopped_run_is_resumed_to_the_same_end(undisturbed, tmp_path, command, monkeypatch):
    """By the same command: killed, then stopped in the middle of an epoch. (`make kills` kills at any moment.)"""
    end, middle = EPOCHS * STEPS, (EPOCHS - 2) * STEPS + 2
    arguments = arguments_of(tmp_path)
    kill(arguments)
    assert len(read_records(tmp_path)) == 3
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, without_pictures():
        stop_at(patch, middle)
        ended = command(*arguments)
    assert re.search(rf"^resumed at step \d+ of {end}$", ended.out, re.MULTILINE)
    assert ended.out.endswith(f"\nstopped at step {middle} of {end}; the same command resumes it\n")
    assert ended.code == 128 + signal.SIGTERM == 143 and signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / str(middle)).is_dir()
    assert len(read_records(tmp_path)) == EPOCHS - 2 and not (tmp_path / "genotype.json").exists()

    with without_pictures():
        ended = command(*arguments)
    assert ended.code == 0 and f"resumed at step {middle} of {end}\n" in ended.out
    assert_same_run(tmp_path, undisturbed)


# How a run ends


@pytest.mark.parametrize(
    "error, code, err",
    [
        (loop.Diverged("the search diverged"), 3, "error: the search diverged\n"),
        (loop.Stopped("stopped", signal.SIGINT), 130, ""),
        (loop.Stopped("stopped"), 143, ""),
        (
            OSError(errno.ENOSPC, "x"),
            "error: no space left in {}: the same command resumes the run once there is some",
            "",
        ),
        (FileNotFoundError(2, "No such file"), "error: [Errno 2] No such file", ""),
        (PermissionError(13, "Permission denied", "/runs/a/lock"), "error: /runs/a/lock: Permission denied", ""),
    ],
    ids=["diverged", "ctrl-c", "sigterm", "full", "refused", "unwritable"],
)
def test_the_exit_code_says_how_a_run_ended(error, code, err, command, tmp_path, monkeypatch):
    def end(config, workdir, data):
        raise error

    monkeypatch.setattr(search, "run", end)
    ended = command(DIGITS, f"--workdir={tmp_path}", "--config.evaluation.epochs=0")
    assert ended.code == (
        code.format(tmp_path) if isinstance(code, str) else code
    )  # Python prints a str, and exits with 1
    assert ended.err == err and not list(tmp_path.iterdir())


HOLD = """
import fcntl, sys
fcntl.lockf(sys.stdout, fcntl.LOCK_EX)
print("process 7 on elsewhere", end="", flush=True)
sys.stdin.read()
"""


def test_a_workdir_in_use_is_refused(command, tmp_path):
    with (tmp_path / "lock").open("w") as file:
        with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=file) as other:
            while not (tmp_path / "lock").read_text():
                assert other.poll() is None
            ended = command(DIGITS, f"--workdir={tmp_path}")
    assert_refused(ended, f"{tmp_path} is in use by process 7 on elsewhere: wait until that has ended")


# Bad input: one sentence, exit status 1, before anything is compiled


@pytest.mark.parametrize(
    "argument, message",
    [
        ("config.genotype=PRDARTS", f"config.genotype is not a field of {DIGITS}; the fields are accumulate, augm"),
        ("config.weights.speed=1", f"config.weights.speed is not a field of {DIGITS}; the fields are accumulate, "),
        ("config.methd=darts", f"config.methd is not a field of {DIGITS}; the fields are accumulate, augmentation."),
        ("noconfig.hessia", f"config.hessia is not a field of {DIGITS}; the fields are accumulate, augmentation.cu"),
        ("config.batch_size=abc", "flag --config.batch_size=abc: invalid literal for int() with base 10: 'abc'"),
        ("config.method=nas", "config.method='nas' must be one of pr_darts, pr_darts_released, pr_darts_gates, pr"),
        (
            "config.evaluation.auxiliary_weight=0.4",
            "config.evaluation.auxiliary_weight=0.4 must be 0 in the space nas_bench_201, whose network has no aux",
        ),
        (
            "config.channels=1",
            "config.channels=1 must be from 2 to 4096",
        ),
        (
            "config.batch_size=451",
            "config.batch_size=451 must be at most 450, half of the 900 images of digits in use: "
            "one half trains the weights, the other the logits",
        ),
    ],
)
def test_bad_field_is_refused(argument, message, command, tmp_path):
    assert_refused(command(DIGITS, f"--workdir={tmp_path / 'run'}", f"--{argument}"), message)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((DIGITS,), "--workdir is missing; an example is --workdir=runs/digits"),
        (("--workdir=run",), "--config is missing; an example is --config=configs/digits.py"),
        (
            (DIGITS, "--workdir=run", "seed=3"),
            "unexpected argument 'seed=3': a command, predict or draw, comes first, and all other arguments have the "
            "form --name=value, without -- before them",
        ),
        (
            ("pedict", "run"),
            "unexpected argument 'pedict': a command, predict or draw, comes first, and all other arguments have the "
            "form --name=value, without -- before them; did you mean 'predict'?",
        ),
        (
            ("--config=configs/nothere.py", "--workdir=run"),
            "--config=configs/nothere.py must be a Python file with get_config(), such as configs/digits.py (OSError: "
            "[Errno 2] No such file or directory: 'configs/nothere.py')",
        ),
        (
            (DIGITS.replace("pr_darts_released", "nas"), "--workdir=run"),
            f"flag {DIGITS.replace('pr_darts_released', 'nas')}: Error whilst parsing config file: ValueError: method=",
        ),
        (
            (DIGITS.replace("digits", "svhn"), "--workdir=run", "--config.data_dir=/nowhere"),
            "Data set svhn is not in data_dir /nowhere: expected the folder /nowhere/svhn_cropped/VERSION",
        ),
        (
            (DIGITS, "--workdir=run", "--processes=2"),
            "--coordinator, --processes and --process belong together: give all three or none of them",
        ),
        (
            (DIGITS, "--workdir=run", "--coordinator=localhost:1", "--processes=2", "--process=2"),
            "the processes could not be joined with --distributed=False, --coordinator=localhost:1, --processes=2, ",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message, command, tmp_path, monkeypatch):
    def refuse(*given):
        raise ValueError("process_id must be less than num_processes")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*arguments), message)
    assert not any(tmp_path.iterdir())


def test_workdir_of_another_config_is_refused(undisturbed, command):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    assert_refused(
        command(*arguments_of(undisturbed), "--config.epochs=7", "--config.weights.clip=4"),
        f"{undisturbed} belongs to another run: config.epochs is {EPOCHS} there and 7 here, config.weights.clip "
        "is 5.0 there and 4.0 here; use another --workdir or the old values",
    )
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


def test_the_command_says_its_flags_and_importing_it_defines_none_and_loads_only_what_it_needs():
    program = (
        "import sys; from absl import flags; from prdarts_jax import command_line, main; "
        "print('workdir' in flags.FLAGS, *sys.modules); main.cli()"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], cwd=ROOT, capture_output=True, text=True)
    first, _, help_text = done.stdout.partition("\n")
    defined, *loaded = first.split()
    assert defined == "False" and "prdarts_jax.run.reporting" in loaded
    assert not {"tensorboardX", "matplotlib"} & set(loaded)
    assert all(f"--{name}:" in help_text for name in ("config", "workdir", "cache_dir", "coordinator"))
