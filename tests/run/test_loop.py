"""A run without a search or a training: what it computes is a sum, so nothing is compiled."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sys

import jax
import numpy as np
import pytest
from shared import read_records, refused

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, loop, run_log

STEPS = 4  # an epoch
SHAPES = ({"sum": jax.ShapeDtypeStruct((), np.int32)}, {"loss": jax.ShapeDtypeStruct((2,), np.float32)})


def run_of_two(workdir, ended=lambda records: False, config=None):
    folders = [workdir / "seed_0", workdir / "seed_1"]
    return loop.Run("search", workdir, config or {}, folders, 3 * STEPS, STEPS, 3, ended)


def loss(step):
    return np.array([step / 3, -step], np.float32)


def go(run, change=lambda step, metrics: metrics):
    """Adds up the steps, with a signal or another loss where `change` says so."""
    found = []
    with run:
        state = run.restore(*SHAPES) or {"sum": np.int32(0)}
        for steps in run.calls():
            first = run.step
            state = {"sum": state["sum"] + np.int32(sum(range(first, first + steps)))}
            run.add(steps, {"loss": change(first, loss(first))})
            if run.epoch_ended:
                found.append(run.means())
                run.record(found[-1], "")
            run.save_if_due(state)
    return state, found


def test_calls_end_with_epochs_and_metrics_are_means_over_their_steps(tmp_path):
    run = run_of_two(tmp_path)
    state, found = go(run)
    assert state == {"sum": sum(range(3 * STEPS))} and run.done
    for epoch, means in enumerate(found):
        expected = (3 * loss(STEPS * epoch) + loss(STEPS * epoch + 3)) / STEPS
        np.testing.assert_allclose([means[0]["loss"], means[1]["loss"]], expected, rtol=1e-6)
        for number in (0, 1):
            record = run.records[number][epoch]
            assert record.pop("seconds") > 0
            assert record == {"epoch": epoch, "step": STEPS * (epoch + 1), **means[number]}
    for number in (0, 1):
        assert read_records(tmp_path / f"seed_{number}") == run.records[number]


def test_metrics_of_several_calls_count_alike(tmp_path):
    with run_of_two(tmp_path) as run:
        run.restore(*SHAPES)
        assert next(run.calls()) == 3
        run.add(STEPS, *({"loss": loss(step)} for step in range(STEPS)))
        assert run.means() == {0: {"loss": 0.5}, 1: {"loss": -1.5}}


def test_a_stop_in_mid_epoch_leaves_no_trace(tmp_path, capsys):
    def stop(step, metrics):
        if step == STEPS:
            signal.raise_signal(signal.SIGTERM)
        return metrics

    undisturbed, expected = go(run_of_two(tmp_path / "undisturbed"))
    with pytest.raises(loop.Stopped, match="^stopped at step 7 of 12; the same command resumes it$"):
        go(run_of_two(tmp_path), stop)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run = run_of_two(tmp_path)
    state, found = go(run)
    assert "resumed at step 7 of 12\n" in capsys.readouterr().out
    assert (state, found) == (undisturbed, expected[1:])
    assert [record["epoch"] for record in run.records[0]] == [0, 1, 2]


def test_a_process_stops_when_another_is_asked_to(tmp_path, monkeypatch):
    other = iter([True])  # what another process has, the first time that one asks
    monkeypatch.setattr(devices, "any", lambda value: next(other, value))
    with pytest.raises(loop.Stopped, match="^stopped at step 3 of 12; the same command resumes it$"):
        go(run_of_two(tmp_path))
    assert (tmp_path / "checkpoints/3").is_dir()


def truncate(checkpoint):
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "_INTERVAL", 0)  # a checkpoint is due after each epoch
    undisturbed, expected = go(run_of_two(tmp_path))
    before, newest = (tmp_path / f"checkpoints/{epochs * STEPS}" for epochs in (2, 3))
    truncate(newest)
    run = run_of_two(tmp_path)
    assert go(run) == (undisturbed, expected[2:])
    out = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged" in out and f"the one before it, {before}, is used" in out
    assert f"resumed at step {2 * STEPS} of 12\n" in out
    assert [record["epoch"] for record in run_log.read_records(tmp_path / "seed_1")] == [0, 1, 2]
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        if checkpoint.name.isdigit():
            truncate(checkpoint)
    with pytest.raises(ValueError, match="^all checkpoints in .*/checkpoints are damaged: use another --workdir, or"):
        go(run_of_two(tmp_path))


def test_records_after_the_newest_checkpoint_are_written_again(tmp_path, monkeypatch):
    """As after a kill between the record of an epoch and its checkpoint."""
    undisturbed, expected = go(run_of_two(tmp_path / "undisturbed"))
    save = checkpoints.save

    def killed(folder, step, *of_run):
        if step == 2 * STEPS:
            raise KeyboardInterrupt
        save(folder, step, *of_run)

    monkeypatch.setattr(loop, "_INTERVAL", 0)  # a checkpoint is due after each epoch
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", killed)
        go(run_of_two(tmp_path))
    assert len(run_log.read_records(tmp_path / "seed_1")) == 2
    assert go(run_of_two(tmp_path)) == (undisturbed, expected[1:])
    assert [record["epoch"] for record in run_log.read_records(tmp_path / "seed_1")] == [0, 1, 2]


def test_a_run_that_ended_early_leaves_nothing_more_and_may_diverge(tmp_path):
    def ended(records):
        return bool(records) and records[0]["loss"] > 0

    def diverge(step, metrics):
        return metrics if step < STEPS else np.array([np.nan, metrics[1]], np.float32)

    run = run_of_two(tmp_path, ended)
    _, found = go(run, diverge)
    assert [list(means) for means in found] == [[0, 1], [1], [1]]
    assert [len(records) for records in run.records] == [1, 3] and run.going == [1]
    with pytest.raises(loop.Diverged, match="search of seed_0 diverged in epoch 1, where loss is not finite"):
        go(run_of_two(tmp_path / "other"), diverge)


@pytest.mark.parametrize("last", [1, 2])
def test_one_of_several_that_diverges_ends_alone_and_is_resumed_so(last, tmp_path):
    """By its metrics in an epoch before the last, or by its state after the last update."""
    shapes = {"w": np.zeros(2, np.float32)}, SHAPES[1]

    def run():
        with dataclasses.replace(run_of_two(tmp_path), may_diverge=True) as run:
            state = run.restore(*shapes) or shapes[0]
            for steps in run.calls():
                bad = run.step >= last * STEPS
                run.add(steps, {"loss": np.array([np.nan if bad and last == 1 else 1, 2], np.float32)})
                state = {"w": np.array([np.nan if bad else 1, 2], np.float32)}
                if run.epoch_ended:
                    run.record(run.means(), "")
                run.save_if_due(state)
        return run.records

    first = run()
    assert [len(records) for records in first] == [last + 1, 3]
    assert loop.diverged(first[0]) and not loop.diverged(first[1])
    assert run() == first  # nothing is left to do
    assert [read_records(tmp_path / f"seed_{n}")[-1].get("diverged") for n in (0, 1)] == [True, None]


def test_a_run_whose_last_has_ended_early_is_done(tmp_path):
    run = run_of_two(tmp_path, ended=lambda records: len(records) == 2)
    go(run)
    assert run.done and run.step == 2 * STEPS
    again = run_of_two(tmp_path, ended=lambda records: len(records) == 2)
    assert go(again)[1] == [] and again.done


def test_processes_with_different_configs_are_refused(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(devices, "all_gather", lambda value: seen.append(value) or {value, -1})
    for config in ({"seed": 0}, {"seed": 1}, {"seed": 0}):
        with pytest.raises(ValueError, match="the processes have different configs: start all with the same --config"):
            go(run_of_two(tmp_path, config=config))
    assert seen[0] == seen[2] != seen[1]


def damaged_records(path):
    """Of metrics.jsonl: gone, cut, a line missing or doubled, other keys, and what is no JSON."""
    lines = path.read_bytes().splitlines(keepends=True)
    other = lines[1].replace(b"epoch", b"epocg")
    for damage in ([], lines[:1], [lines[0], *lines[2:]], [*lines, lines[1]], [lines[0], other], [b"[" * 10**5]):
        path.write_bytes(b"".join(damage))
        yield
    path.unlink()
    yield


@pytest.mark.parametrize("epochs", [2, 3])
def test_records_come_back_with_the_checkpoint(epochs, tmp_path, monkeypatch):
    """Of a run that has ended, and of one that was stopped after two of three epochs."""

    def stop(step, metrics):
        if step == epochs * STEPS - 1:
            signal.raise_signal(signal.SIGTERM)
        return metrics

    monkeypatch.setattr(loop, "_INTERVAL", 0)  # a checkpoint is due after each epoch
    go(run_of_two(tmp_path / "whole"))
    with pytest.raises(loop.Stopped):
        go(run_of_two(tmp_path), stop)
    expected = read_records(tmp_path / "whole/seed_1")
    checkpoint = shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
    for _ in damaged_records(tmp_path / "seed_1/metrics.jsonl"):
        shutil.rmtree(tmp_path / "checkpoints")
        shutil.copytree(checkpoint, tmp_path / "checkpoints")
        run = run_of_two(tmp_path)
        go(run)
        assert read_records(tmp_path / "seed_1") == expected
        assert [record["epoch"] for record in run.records[1]] == [0, 1, 2]


def test_a_clock_that_is_set_back_gives_no_negative_times(tmp_path, monkeypatch, capsys):
    clock = iter(range(10**6, 0, -3600))
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = run_of_two(tmp_path)
    go(run)
    bars = re.findall(r"\[(\S+?)<(\S+?),", capsys.readouterr().err)
    assert len(bars) > 3 and not [times for times in bars if "-" in "".join(times)]
    assert all(record["seconds"] > 0 for record in run.records[0])


def test_in_a_file_the_bar_is_written_seldom(tmp_path, capsys):
    go(run_of_two(tmp_path))
    assert capsys.readouterr().err.count("step/s") == 2  # at the start and at the end


def test_checkpoints_that_have_gone_are_missed(tmp_path, capsys):
    go(run_of_two(tmp_path))
    shutil.rmtree(tmp_path / "checkpoints")
    for epochs in (3, 1):
        for number in (0, 1):
            path = tmp_path / f"seed_{number}/metrics.jsonl"
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:epochs]))
        with refused(
            f"{tmp_path} has records up to epoch {epochs - 1} but no checkpoint: put the checkpoints back, use another "
            "--workdir, or move that folder away to start anew"
        ):
            go(run_of_two(tmp_path))
    (tmp_path / "checkpoints").mkdir()  # as after a kill before the first checkpoint
    go(run_of_two(tmp_path))
    assert f"{tmp_path} has no checkpoint: the search begins again\n" in capsys.readouterr().out


def test_a_checkpoint_without_the_records_of_its_epochs_is_refused(tmp_path):
    go(run_of_two(tmp_path))
    state = tmp_path / f"checkpoints/{3 * STEPS}/state"
    saved = json.loads((state / "run.json").read_text())
    for records in ([saved["records"][0][:2], saved["records"][1]], saved["records"][:1]):
        (state / "run.json").write_text(json.dumps(saved | {"records": records}))
        (state / "SHA256SUMS").write_text(checkpoints._sums(state))
        with refused(
            f"the checkpoint of step {3 * STEPS} in {tmp_path}/checkpoints has been changed: it does not have the "
            "records of 3 epochs; use another --workdir"
        ):
            go(run_of_two(tmp_path))


def test_checkpoints_of_another_config_are_refused(tmp_path):
    for seed in (0, 1):
        go(run_of_two(tmp_path / str(seed), config={"seed": seed}))
    shutil.rmtree(tmp_path / "0/checkpoints")
    shutil.copytree(tmp_path / "1/checkpoints", tmp_path / "0/checkpoints")
    with pytest.raises(ValueError, match="belongs to another run: config.seed is 1 there and 0 here"):
        go(run_of_two(tmp_path / "0", config={"seed": 0}))


GOOD = {"arch": {"normal": np.array([[0, -np.inf]] * 2)}, "params": {"w": np.zeros((2, 3))}, "step": np.int32(3)}


@pytest.fixture
def one_left(tmp_path):
    """A run of two after two epochs, of which seed_0 has ended in the first. Logits of -inf are no candidates'."""
    run = run_of_two(tmp_path, ended=lambda records: bool(records) and records[0]["loss"] > 0)
    with pytest.raises(loop.Diverged), run:
        run.restore(GOOD, SHAPES[1])
        next(run.calls())
        for losses in ([2.0, -1.0], [np.nan, -1.0]):
            run.add(STEPS, {"loss": np.float32(losses)})
            run.record(run.means(), "")
            run.save_if_due(GOOD)
        run.add(1, {"loss": np.zeros(2, np.float32)})
        yield run
        assert len(read_records(tmp_path / "seed_1")) == 2 and not (tmp_path / f"checkpoints/{run.step}").exists()
        raise loop.Diverged


@pytest.mark.parametrize("place, value", [("params.w", np.nan), ("params.w", -np.inf), ("arch.normal", np.inf)])
def test_no_state_that_is_not_finite_is_saved(place, value, one_left, tmp_path):
    collection, name = place.split(".")
    bad = jax.tree.map(np.copy, GOOD)
    bad[collection][name][0] = np.nan
    one_left._check_state(bad)  # seed_0 has ended
    bad[collection][name][1, 0] = value
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    text = (
        f"the search of seed_1 diverged in epoch 2, where {place} is not finite; the last good checkpoint is {newest}; "
        f"use another --workdir and a smaller config.{'logits' if collection == 'arch' else 'weights'}.learning_rate"
    )
    signal.raise_signal(signal.SIGTERM)
    with refused(text, loop.Diverged):
        one_left.save_if_due(bad)


def test_no_record_that_is_not_finite_is_written(one_left):
    record = {"a": {"b": np.inf, "c": -np.inf}, "d": np.nan, "e": np.nan}
    with pytest.raises(loop.Diverged, match=r"in epoch 2, where a/b, a/c, d and 1 more are not finite"):
        one_left.record({1: record}, "")
