"""Jobs of one machine, by submitit's local executor."""

import subprocess
import sys

import pytest
import scripts
from pages import Page

pytest.importorskip("submitit")
script = scripts.load("launch_slurm")
CONFIG = str(scripts.ROOT / "configs/digits.py")


def test_a_grid_has_all_combinations():
    assert script.combinations(["method=darts,pr_darts", "seed=0,1"], f"{CONFIG}:darts") == [
        {"method": "darts", "seed": "0"},
        {"method": "darts", "seed": "1"},
        {"method": "pr_darts", "seed": "0"},
        {"method": "pr_darts", "seed": "1"},
    ]
    assert script.combinations([], CONFIG) == [{}]
    with pytest.raises(ValueError, match="--grid method must have the form FIELD=VALUE,VALUE"):
        script.combinations(["method"], CONFIG)
    with pytest.raises(ValueError, match="config.speed is not a field of .*digits.py; the fields are "):
        script.combinations(["speed=1"], CONFIG)
    with pytest.raises(ValueError, match="config.epochs is not a field of .*theory.py; the fields are "):
        script.combinations(["epochs=1"], CONFIG.replace("digits", "theory"))


def test_a_run_has_one_folder_whatever_its_values():
    assert script.folder_of({"method": "darts", "seed": "0"}) == "method=darts,seed=0"
    assert script.folder_of({"method": "../mine.py:mine"}) == "method=..%2Fmine.py:mine"
    assert script.folder_of({}) == "all"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([CONFIG, "--grid", "seed=0,1"], "--grid seed needs -- --config.seeds=1 at the end: with 12 a seed is"),
        ([CONFIG, "--grid", "seed=0,1", "--", "--config.seeds=2"], "--grid seed needs .*: with 2 a seed is searched"),
        ([CONFIG, "--grid", "seed=0,1", "--grid", "seeds=1,3"], "--grid seed needs .*: with 3 a seed is searched"),
        ([CONFIG, "--grid", "speed=1"], "config.speed is not a field of"),
        ([CONFIG, "--grid", "epochs=-1,2"], "config.epochs=-1 must be from 1 to 1000000"),
        ([CONFIG, "--grid", "method=darts,dart"], "config.method='dart' must be one of "),
        ([CONFIG, "--grid", "logits.learning_rate=fast"], "flag --config.logits.learning_rate=fast: "),
        ([CONFIG, "--grid", "epochs=1", "--", "--config.sed=3"], "config.sed is not a field of .*did you mean 'seed'"),
        (
            [CONFIG, "--grid", "method=darts", "--", "--config.pc_darts.partial=2"],
            "config.pc_darts.partial has no effect",
        ),
        ([CONFIG, "--grid", "epochs=1", "--", "--config.batch_size=0"], "config.batch_size=0 must be "),
        (["nowhere.py", "--grid", "seed=1"], ".*No such file or directory: .*nowhere.py"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, error, tmp_path):
    with pytest.raises(SystemExit, match=f"error: {error}"):
        scripts.run("launch_slurm", f"--workdir={tmp_path}", "--config", *arguments)
    assert not list(tmp_path.iterdir())


def test_jobs_run_the_command_and_a_failed_one_is_named(tmp_path):
    """The check of Theorem 3 as the job, since it is quick; one of the two names no claim."""
    arguments = ["--cluster=local", "--config=configs/theory.py", f"--workdir={tmp_path}", "--wait"]
    grid = ["--grid", "claim=theorem3_distribution,none"]
    command = [sys.executable, script.__file__, *arguments, *grid]
    done = subprocess.run(command, cwd=scripts.ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: claim=none failed; see the logs in" in done.stderr
    assert (tmp_path / "claim=theorem3_distribution/claims/theorem3_distribution.json").exists()
    assert "claim=theorem3_distribution" in (tmp_path / "sweep.md").read_text()
    (failed,) = (text for text in Page((tmp_path / "report.html").read_text()).texts if "has failed" in text)
    log = failed.removeprefix("claim=none has failed; its log is ")
    assert "CalledProcessError" in (tmp_path / log).read_text()
