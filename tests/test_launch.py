"""Jobs of one machine, by submitit's local executor."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit")
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments/launch_slurm.py"


def test_a_grid_has_all_combinations():
    combinations = runpy.run_path(str(SCRIPT))["combinations"]
    assert combinations(["method=darts,pr_darts", "seed=0,1"]) == [
        {"method": "darts", "seed": "0"},
        {"method": "darts", "seed": "1"},
        {"method": "pr_darts", "seed": "0"},
        {"method": "pr_darts", "seed": "1"},
    ]
    assert combinations([]) == [{}]
    with pytest.raises(ValueError, match="--grid method must have the form FIELD=VALUE,VALUE"):
        combinations(["method"])
    with pytest.raises(ValueError, match="config.speed is not a field of the config"):
        combinations(["speed=1"])


def test_jobs_run_the_command_and_a_failed_one_is_named(tmp_path):
    """The check of Theorem 3 as the job, since it is quick; one of the two names no claim."""
    arguments = ["--cluster=local", "--config=configs/theory.py", f"--workdir={tmp_path}", "--wait"]
    grid = ["--grid", "claim=theorem3_distribution,none"]
    done = subprocess.run([sys.executable, SCRIPT, *arguments, *grid], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: claim=none failed; see the logs in" in done.stderr
    assert (tmp_path / "claim=theorem3_distribution/claims/theorem3_distribution.json").exists()
    assert "claim=theorem3_distribution" in (tmp_path / "sweep.md").read_text()
