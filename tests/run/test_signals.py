"""SIGTERM and Ctrl-C: asked for in a loop, elsewhere the end, at once and in one line."""

import os
import signal
import subprocess
import sys
import time

import pytest
from shared import ROOT

from prdarts_jax.run import signals

# The file alone, since the package takes long to import.
BEGIN = """
import hashlib, runpy, sys
signals = runpy.run_path(sys.argv[1])
with signals["ending_at_signals"]():
    with signals["stop_signals"]() as asked_to_stop:
        print("loop", flush=True)
        while not asked_to_stop():
            pass
        print(asked_to_stop(), flush=True)
"""
WAIT = "        input()\n"
CALCULATE = """
    print("calculates", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # Python cannot interrupt it
"""
SIGNALS = pytest.mark.parametrize("number, name", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])


def ended(program, *signals):
    """(lines it prints, what it says at its end, exit code) of a program that gets a signal after each line."""
    return ended_command([sys.executable, "-c", program, str(ROOT / "prdarts_jax/run/signals.py")], *signals)


def ended_command(command, *signals, **options):
    """The same of a command."""
    lines = []
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, **options) as process:
        for number in signals:
            lines.append(process.stdout.readline())
            time.sleep(0.05)
            process.send_signal(number)
        err = process.stderr.read()
    return lines, err, process.returncode


@SIGNALS
def test_outside_of_a_loop_a_signal_ends_even_what_python_cannot_interrupt(number, name):
    program = BEGIN.partition("    with")[0] + CALCULATE
    assert ended(program, number) == (
        ["calculates\n"],
        f"\nended by {name}; the same command resumes a run that has begun\n",
        128 + number,
    )


@SIGNALS
def test_a_signal_is_answered_while_the_package_is_imported(number, name, tmp_path):
    slow = tmp_path / "jax.py"  # instead of JAX
    slow.write_text("print('imports', flush=True); import time; time.sleep(60)")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-m", "prdarts_jax.main", "--config=configs/digits.py", "--workdir=runs/digits"]
    assert ended_command(command, number, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}) == (
        ["imports\n"],
        f"\nended by {name}; the same command resumes a run that has begun\n",
        128 + number,
    )


@SIGNALS
def test_in_a_loop_it_is_asked_for_and_not_forgotten_after_the_last_look(number, name):
    lines, err, code = ended(BEGIN + "    input()\n", number)
    assert (lines, code) == (["loop\n"], 128 + number) and f"ended by {name}" in err


def test_a_second_ctrl_c_in_a_loop_ends_it():
    lines, err, code = ended(BEGIN + WAIT, signal.SIGINT, signal.SIGINT)
    assert (lines, code) == (["loop\n", "2\n"], 130) and err.count("\n") == 2 and "ended by Ctrl-C" in err


def test_the_error_that_a_loop_ends_with_is_not_followed_by_the_signal():
    with pytest.raises(ValueError), signals.stop_signals() as asked_to_stop:
        signal.raise_signal(signal.SIGINT)
        assert asked_to_stop() == signal.SIGINT
        raise ValueError  # as `loop.Stopped`
