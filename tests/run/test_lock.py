"""One process at a time in a workdir, whatever becomes of the others."""

import fcntl
import os
import subprocess
import sys

import pytest
from shared import refused

from prdarts_jax import devices
from prdarts_jax.run import lock

# Another process, without the package, which takes long to import.
OTHER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("refused", flush=True)
else:
    file.write("process 7 on elsewhere")
    file.flush()
    print("locked", flush=True)
    sys.stdin.read()
"""


def other(path):
    command = [sys.executable, "-c", OTHER, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@lock.alone
def run(action, workdir, **more):
    return action(), more


def test_a_second_process_is_refused_until_the_first_ends_however_it_does(tmp_path):
    with other(tmp_path / "lock") as process:
        assert process.stdout.readline() == "locked\n"
        text = f"{tmp_path} is in use by process 7 on elsewhere: wait until that has ended, or use another --workdir"
        with refused(text):
            run(pytest.fail, tmp_path)
        process.kill()
    assert run(lambda: 3, tmp_path, a=1) == (3, {"a": 1})
    assert not list(tmp_path.iterdir())


def test_it_is_held_until_the_end_and_names_its_process(tmp_path):
    def try_again():
        run(lambda: 3, tmp_path / "below")  # a job of its own
        with other(tmp_path / "lock") as process:
            return process.communicate()[0], (tmp_path / "lock").read_text()

    said, text = run(try_again, tmp_path)[0]
    assert said == "refused\n" and text.startswith(f"process {os.getpid()} on ")


def test_a_folder_may_be_given_as_text_with_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lock.alone(lambda what, workdir: workdir)(None, "~/runs") == tmp_path / "runs"


def test_what_fails_leaves_no_folder_behind_and_can_be_tried_again(tmp_path):
    def fail():
        assert (tmp_path / "a/b/lock").exists()
        raise ValueError("failed")

    for _ in range(2):
        with refused("failed"):
            run(fail, tmp_path / "a/b")
        assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("failed")

    def unlink(path, missing_ok=False):
        raise PermissionError

    monkeypatch.setattr(type(tmp_path), "unlink", unlink)
    with refused("failed"):
        run(fail, tmp_path)


def test_all_processes_of_a_job_are_refused_where_the_first_is(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "is_main", lambda: False)
    with refused(f"{tmp_path} is not the same for all processes: --workdir must be a folder that they share"):
        run(pytest.fail, tmp_path)
    (tmp_path / "lock").touch()  # of the first, for all
    assert run(lambda: 3, tmp_path) == (3, {}) and (tmp_path / "lock").exists()
    monkeypatch.setattr(devices, "any", lambda value: True)
    with refused(f"the first process cannot use {tmp_path}"):
        run(pytest.fail, tmp_path)


def test_a_file_system_without_locks_is_used_with_a_word(tmp_path, monkeypatch, capsys):
    def lockf(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert run(lambda: 3, tmp_path) == (3, {})
    said = capsys.readouterr().out
    assert said == f"careful: {tmp_path} cannot be locked (No locks available): let no other process run in it\n"
