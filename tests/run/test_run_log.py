"""The records of a run: each epoch once after any kill, in metrics.jsonl and in TensorBoard."""

import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from shared import record
from tensorboardX.proto import event_pb2

from prdarts_jax import spaces
from prdarts_jax.run import run_log


def log_epochs(workdir, epochs, write=record):
    log = run_log.RunLog(workdir, [r for r in run_log.read_records(workdir) if r["epoch"] < epochs[0]])
    for epoch in epochs:
        log.append(write(epoch))
    log.close()


def age_events(workdir):
    """Renames the event file as if it came from long ago: its name has the second it was made."""
    (path,) = (workdir / "tensorboard").iterdir()
    return path.rename(path.with_name("events.out.tfevents.0000000001.host"))


def shown_scalars(workdir):
    """{name: [(step, value), ...]} that TensorBoard shows, parsed from its file format here.

    A record is u64 length, u32 checksum, bytes, u32 checksum; a session start at step s hides what
    came before it at steps >= s.
    """
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while len(data) > 8 and len(data) >= 16 + (length := struct.unpack_from("<Q", data)[0]):
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == event_pb2.SessionLog.START:
                for name in shown:
                    shown[name] = [point for point in shown[name] if point[0] < event.step]
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


def test_records_survive_a_line_cut_by_a_kill(tmp_path):
    assert run_log.read_records(tmp_path) == []
    log_epochs(tmp_path, range(4))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in (1, 20, 200):
        path.write_bytes(whole[:-cut])
        assert run_log.read_records(tmp_path) == [record(e) for e in range(3)]
    log_epochs(tmp_path, range(3, 5))
    assert run_log.read_records(tmp_path) == [record(e) for e in range(5)]


def test_resuming_earlier_drops_the_records_from_there(tmp_path):
    log_epochs(tmp_path, range(5))
    log_epochs(tmp_path, range(2, 4), lambda epoch: record(epoch) | {"train_loss": 7.0})
    records = run_log.read_records(tmp_path)
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    assert [r["train_loss"] == 7.0 for r in records] == [False, False, True, True]


def test_damage_elsewhere_is_reported_with_its_line(tmp_path):
    log_epochs(tmp_path, range(3))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:30], *lines[2:]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is damaged"):
        run_log.read_records(tmp_path)


def test_tensorboard_has_every_number_once_and_nothing_else(tmp_path):
    log_epochs(tmp_path, range(3))
    age_events(tmp_path)
    log_epochs(tmp_path, range(2, 4), lambda epoch: record(epoch) | {"train_loss": 7.0})
    shown = shown_scalars(tmp_path)
    groups = [f"activation/{c}/{g}" for c in spaces.CELL_TYPES for g in record(0)["activation"][c]]
    plain = ["step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert set(shown) == {*plain, *groups, "skip_share/normal", "skip_share/reduce"}
    assert all([step for step, _ in points] == [0, 1, 2, 3] for points in shown.values())
    np.testing.assert_allclose(shown["train_loss"], [(0, 2.3), (1, 2.3 * 0.97), (2, 7), (3, 7)], rtol=1e-6)
    np.testing.assert_allclose(shown["activation/normal/skip"][3][1], 0.97**3, rtol=1e-6)


def test_curves_that_tensorboard_lost_in_a_kill_come_back(tmp_path):
    log_epochs(tmp_path, range(3))
    path = age_events(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    log_epochs(tmp_path, [3])
    assert [step for step, _ in shown_scalars(tmp_path)["val_loss"]] == [0, 1, 2, 3]


def test_a_full_disk_is_an_error_of_whoever_appends(tmp_path):
    """TensorBoard's file is the larger one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = run_log.RunLog(tmp_path, [])
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
        with pytest.raises(OSError) as error:
            for epoch in range(1000):
                log.append({"epoch": epoch, "loss": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG and (tmp_path / "metrics.jsonl").stat().st_size < 4000
    log.close()


# A run in small, each time that this process is told to start it: a record, then the checkpoint, for as long as it
# lives. It says the number of the process that it is.
ENDLESS_RUNS = """
import sys, json, os, pathlib
from prdarts_jax.run import reporting, run_log
workdir = pathlib.Path(sys.argv[1])
checkpoint = workdir / "checkpoint.json"

def run():
    epoch = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    log = run_log.RunLog(workdir, [{"epoch": before} for before in range(epoch)])
    while True:
        log.append({"epoch": epoch, "loss": 0.5, "filler": "x" * 100_000})
        epoch += 1
        reporting.write_json(checkpoint, epoch)

for line in sys.stdin:
    process = os.fork()
    if not process:
        run()
    print(process, flush=True)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -9
"""


def test_killed_thrice_each_epoch_is_there_once(tmp_path):
    checkpoint = tmp_path / "checkpoint.json"
    command = [sys.executable, "-c", ENDLESS_RUNS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        for delay in (0.01, 0.04, 0.07):
            before = checkpoint.read_text() if checkpoint.exists() else ""
            print(file=starter.stdin, flush=True)
            process = int(starter.stdout.readline())
            while starter.poll() is None and (not checkpoint.exists() or checkpoint.read_text() == before):
                time.sleep(0.005)
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
        starter.stdin.close()
    assert starter.returncode == 0
    done = json.loads(checkpoint.read_text())
    log_epochs(tmp_path, [done])
    assert [r["epoch"] for r in run_log.read_records(tmp_path)] == list(range(done + 1))
