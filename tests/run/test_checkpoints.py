"""Checkpoints come back bit for bit, or another one does and says so."""

import errno
import json
import math
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import refused
from trees import assert_identical

from prdarts_jax.run import checkpoints

CONFIG = {"seed": 0, "method": {"beta": (0.5, 1)}}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    arch: Any
    batch_stats: Any
    opt_state: Any
    key: jax.Array
    old_key: jax.Array


def make_state(step: int) -> State:
    rng = np.random.default_rng(step)
    params = {
        "stem": {"kernel": jnp.asarray(rng.normal(size=(64, 999)), jnp.float32)},
        "head": jnp.asarray([0.0, -0.0, jnp.nan, jnp.inf, 1e-42], jnp.bfloat16),
    }
    arch = {"normal": jnp.asarray(rng.normal(size=(14, 8)), jnp.float32)}
    variables = {"params": params, "arch": arch}
    optimizer = optax.partition(
        {"weights": optax.sgd(0.1, momentum=0.9), "logits": optax.adam(1e-3)},
        {"params": "weights", "arch": "logits"},
    )
    _, opt_state = optimizer.update(variables, optimizer.init(variables), variables)
    return State(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        arch=arch,
        batch_stats={"mean": jnp.full(3, step / 3)},
        opt_state=opt_state,
        key=jax.random.key(step, impl="rbg"),
        old_key=jax.random.PRNGKey(step),
    )


def records(step: int) -> checkpoints.Records:
    return [[{"epoch": epoch} for epoch in range(step)]]


@pytest.fixture(scope="module")
def template() -> State:
    return jax.eval_shape(lambda: make_state(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    for step in (1, 2, 3, 10):
        checkpoints.save(folder, step, make_state(step), CONFIG, records(step))
    return folder


@pytest.fixture
def folder(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restore(folder: pathlib.Path, template: State) -> tuple[State, int, list[str]]:
    reports: list[str] = []
    restored = checkpoints.restore_latest(folder, template, CONFIG, reports.append)
    assert restored is not None
    assert restored.records in (records(restored.step), [])
    return restored.state, restored.step, reports


def test_the_newest_comes_back_bit_for_bit(saved: pathlib.Path, template: State) -> None:
    state, step, reports = restore(saved, template)
    assert (step, reports) == (10, [])
    assert_identical(state, make_state(10))
    assert state.key.dtype == make_state(10).key.dtype


def test_three_are_kept_and_a_step_is_written_once(
    folder: pathlib.Path, template: State, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(folder, 10, make_state(4), CONFIG, [])
    assert sorted(path.name for path in folder.iterdir()) == ["10", "2", "3"]
    assert_identical(restore(folder, template)[0], make_state(10))
    checkpoints.save(folder, 11, make_state(11), CONFIG, [])
    assert sorted(path.name for path in folder.iterdir()) == ["10", "11", "3"]
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_no_checkpoint_is_none(tmp_path: pathlib.Path, template: State) -> None:
    assert checkpoints.restore_latest(tmp_path / "none", template, CONFIG, pytest.fail) is None


def truncate(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def add_a_byte(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def add_a_file(file: pathlib.Path) -> None:
    file.with_name(file.name + ".again").write_bytes(file.read_bytes())


# Orbax writes these itself when it names a checkpoint, and they hold nothing of the state.
BOOKKEEPING = ("10/_CHECKPOINT_METADATA", "10/commit_success.txt", "10/state/commit_success.txt")


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, truncate, flip_a_bit, add_a_byte, add_a_file])
def test_damage_of_any_file_is_reported_and_the_one_before_used(
    saved: pathlib.Path, tmp_path: pathlib.Path, template: State, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    files = [file.relative_to(saved) for file in (saved / "10").rglob("*") if file.is_file()]
    assert len(files) > 8 and {*BOOKKEEPING} < {*map(str, files)}
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        damage(folder / file)
        state, step, reports = restore(folder, template)
        if str(file) in BOOKKEEPING and not reports:
            assert step == 10
            assert_identical(state, make_state(10))
            continue
        assert step == 3, file
        assert_identical(state, make_state(3))
        [report] = reports
        assert f"{folder / '10'} is damaged" in report and f"{folder / '3'}, is used" in report
        [aside] = folder.glob("damaged-10-*")
        left = sum(path.is_file() for path in aside.rglob("*"))
        assert left == len(files) + {pathlib.Path.unlink: -1, add_a_file: 1}.get(damage, 0)
    assert not caplog.records


def test_a_damaged_step_can_be_saved_again(folder: pathlib.Path, template: State) -> None:
    shutil.rmtree(folder / "10" / "state" / "d")
    flip_a_bit(folder / "3" / "state" / "SHA256SUMS")
    _, step, reports = restore(folder, template)
    assert step == 2 and len(reports) == 2
    for again in (3, 10):
        checkpoints.save(folder, again, make_state(again), CONFIG, [])
    state, step, reports = restore(folder, template)
    assert (step, reports) == (10, [])
    assert_identical(state, make_state(10))


def test_all_damaged_is_an_error_that_moves_nothing(folder: pathlib.Path, template: State) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path / "state" / "d")
    with pytest.raises(ValueError) as error:
        checkpoints.restore_latest(folder, template, CONFIG, pytest.fail)
    assert str(error.value) == (
        f"all checkpoints in {folder} are damaged: use another --workdir, or move that folder away to start anew"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["10", "2", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"arch": {"normal": jnp.zeros((5, 8))}},
            r"float32\[14, 8\] there and float32\[5, 8\] here",
        ),
        ({"step": jnp.zeros((), jnp.float32)}, r"step is int32\[\] there and float32\[\] here"),
        ({"batch_stats": {}}, r"batch_stats.mean is float32\[3\] there and missing here"),
    ],
)
def test_another_template_is_refused(
    saved: pathlib.Path, template: State, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoints.restore_latest(saved, template.replace(**change), CONFIG, pytest.fail)


def test_another_config_is_refused_and_moves_nothing(folder: pathlib.Path, template: State) -> None:
    shutil.rmtree(folder / "10" / "state" / "d")
    with refused(
        f'checkpoint {folder / "3"} belongs to another run: config.method.beta is [0.5, 1] there and "inf" here, '
        "config.seed is 0 there and 1 here; use another --workdir"
    ):
        other = {"seed": 1, "method": {"beta": math.inf}}
        checkpoints.restore_latest(folder, template, other, pytest.fail)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "2", "3"]


def test_one_without_config_and_records_is_refused(folder: pathlib.Path, template: State) -> None:
    state = folder / "10" / "state"
    (state / "run.json").unlink()
    (state / "SHA256SUMS").write_text(checkpoints._sums(state))
    with refused(f"checkpoint {folder / '10'} was saved by an older version: use that, or another --workdir"):
        checkpoints.restore_latest(folder, template, CONFIG, pytest.fail)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: {**run, "step": 9},
        lambda run: {**run, "config": None},
        lambda run: {**run, "records": [run["records"][0][1:]]},
        lambda run: {**run, "records": [[None]]},
        lambda run: {**run, "records": [{}]},
        lambda run: {**run, "records": {"": []}},
        lambda run: {"step": 10},
        lambda run: [],
    ],
)
def test_one_that_has_been_changed_is_refused(folder: pathlib.Path, template: State, change: Any) -> None:
    state = folder / "10" / "state"
    run = json.loads((state / "run.json").read_bytes())
    (state / "run.json").write_text(json.dumps(change(run)))
    (state / "SHA256SUMS").write_text(checkpoints._sums(state))
    with refused(
        f"checkpoint {folder / '10'} has been changed: its run.json is not that of step 10; use another --workdir"
    ):
        checkpoints.restore_latest(folder, template, CONFIG, pytest.fail)


def test_one_without_arrays_but_with_sums_is_refused(folder: pathlib.Path, template: State) -> None:
    state = folder / "10" / "state"
    shutil.rmtree(state / "d")
    (state / "SHA256SUMS").write_text(checkpoints._sums(state))
    with refused(f"checkpoint {folder / '10'} has been changed: its arrays cannot be read; use another --workdir"):
        checkpoints.restore_latest(folder, template, CONFIG, pytest.fail)


def test_files_where_folders_are_expected_are_moved_or_left(folder: pathlib.Path, template: State) -> None:
    shutil.rmtree(folder / "10")
    for name in ("10", "unfinished-3", "11.orbax-checkpoint-tmp", "²"):
        (folder / name).write_text("x")
    _, step, reports = restore(folder, template)
    assert step == 3 and len(reports) == 1 and f"{folder / '10'} is damaged" in reports[0]
    for again in (10, 11):
        checkpoints.save(folder, again, make_state(again), CONFIG, [])
    assert restore(folder, template)[1:] == (11, [])


# In a folder each: threads of a save that has failed may still write there.
@pytest.mark.parametrize("most", [300, 10_000])
def test_what_cannot_be_written_is_one_os_error_with_the_folder(
    most: int,
    folder: pathlib.Path,
    template: State,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a full disk: TensorStore may write no file of more than so many bytes, which it does in many threads."""
    of_threads: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", of_threads.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = {str(number): jnp.full(40, number / 3) for number in range(400)}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        with pytest.raises(OSError) as error:
            checkpoints.save(folder, 11, [make_state(11), many], CONFIG, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno in (errno.EFBIG, errno.EIO) and error.value.filename == str(folder)
    time.sleep(0.1)
    assert not of_threads
    assert not caplog.records and capfd.readouterr() == ("", "")
    assert restore(folder, template)[1:] == (10, [])


SAVE_FOREVER = """
import itertools, pathlib, sys
import numpy as np
from prdarts_jax.run import checkpoints
for step in itertools.count(1):
    state = {"w": np.full((300, 300), step, np.float32)}
    checkpoints.save(pathlib.Path(sys.argv[1]), step, state, {}, [])
    print(step, flush=True)
"""


def test_sigkill_while_saving_leaves_the_finished_ones(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(4):
            done = int(process.stdout.readline())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        done = max([done, *map(int, process.stdout.read().split())])
    template = {"w": np.zeros((300, 300), np.float32)}
    restored = checkpoints.restore_latest(tmp_path, template, {}, pytest.fail)
    assert restored is not None
    state, step, _ = restored
    assert step in (done, done + 1)
    np.testing.assert_array_equal(state["w"], step)
    checkpoints.save(tmp_path, step + 1, state, {}, [])
    names = {str(number) for number in (step - 1, step, step + 1)}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_config_of_the_same_run(tmp_path: pathlib.Path) -> None:
    config = {"batch_size": 32, "sizes": (1, 2), "method": {"name": "darts", "extra": {}}}
    checkpoints.check_config(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(config | {"workers": 4, "data_dir": "before"}))
    checkpoints.check_config(tmp_path, config | {"workers": 2, "data_dir": "moved"})


def test_settings_of_other_methods_may_differ(tmp_path: pathlib.Path) -> None:
    config = {"method": "darts", "darts": {"second_order": False}, "pr_darts": {"lambda_path": 0.1}}
    checkpoints.write_config(tmp_path, config)
    checkpoints.check_config(tmp_path, config | {"pr_darts": {"lambda_path": 0.2}, "gdas": {}})
    with pytest.raises(ValueError, match="config.darts.second_order is false there and true here"):
        checkpoints.check_config(tmp_path, config | {"darts": {"second_order": True}})


def test_config_of_another_run_names_the_fields(tmp_path: pathlib.Path) -> None:
    there = {"batch_size": 64, "seed": 1, "old": None, "method": {"name": "darts", "beta": 0.5}}
    here = {"batch_size": 32, "seed": 1, "new": True, "method": {"name": "pr_darts", "beta": 0.5}}
    (tmp_path / "config.json").write_text(json.dumps(there))
    with pytest.raises(ValueError) as error:
        checkpoints.check_config(tmp_path, here)
    assert str(error.value) == (
        f"{tmp_path} belongs to another run: config.batch_size is 64 there and 32 here, "
        'config.method.name is "darts" there and "pr_darts" here, '
        "config.new is missing there and true here, config.old is null there and missing here; "
        "use another --workdir or the old values"
    )


def test_a_number_that_is_not_finite_is_read_as_it_was(tmp_path: pathlib.Path) -> None:
    config = {"weights": {"clip": math.inf, "rate": -math.inf}, "pair": [1, 0.5], "name": "infinite", "nothing": None}
    checkpoints.write_config(tmp_path, config)
    assert checkpoints.read_config(tmp_path) == config


@pytest.mark.parametrize("content", [b"", b'{"seed": 1', b"[1]", b"\xff\xfe\x00"])
def test_a_damaged_config_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        checkpoints.check_config(tmp_path, {"seed": 1})


def test_checkpoints_without_their_config_are_refused(tmp_path):
    checkpoints.save(tmp_path / "checkpoints", 3, {"a": jnp.zeros(2)}, {}, [])
    with pytest.raises(ValueError, match="has checkpoints but no config.json"):
        checkpoints.check_config(tmp_path, {"seed": 1})
