"""Jobs of one machine, by submitit's local executor."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("submitit")
ROOT = Path(__file__).parents[2]
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


def test_seeds_of_both_kinds_are_refused(tmp_path, monkeypatch):
    arguments = ["--config=configs/digits.py", f"--workdir={tmp_path}", "--grid", "seed=0,1", "--", "--config.seeds=2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit, match="error: --grid seed and --config.seeds exclude each other"):
        runpy.run_path(str(SCRIPT))["main"]()


def test_jobs_run_the_command_and_a_failed_one_is_named(tmp_path):
    """The check of Theorem 3 as the job, since it is quick; one of the two names no claim."""
    arguments = ["--cluster=local", "--config=configs/theory.py", f"--workdir={tmp_path}", "--wait"]
    grid = ["--grid", "claim=theorem3_distribution,none"]
    done = subprocess.run([sys.executable, SCRIPT, *arguments, *grid], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: claim=none failed; see the logs in" in done.stderr
    assert (tmp_path / "claim=theorem3_distribution/claims/theorem3_distribution.json").exists()
    assert "claim=theorem3_distribution" in (tmp_path / "sweep.md").read_text()


def test_runs_that_differ_by_their_seeds_are_taken_together(tmp_path):
    script = runpy.run_path(str(SCRIPT))
    runs = {}
    for method, losses in {"darts": (1.0, 2.0), "gdas": (4.0, 6.0)}.items():
        for seed, loss in enumerate(losses):
            name = f"method={method},seed={seed}"
            runs[name] = {"method": method, "seed": str(seed)}
            append(tmp_path / name, loss, 0.25)
    for seed in (0, 1, 2):  # one run of three seeds
        append(tmp_path / "method=pr_darts" / f"seed_{seed}", 3.0, 0.5)
    runs["method=pr_darts"] = {"method": "pr_darts"}
    groups = script["read_groups"](runs, tmp_path)
    assert {name: len(group) for name, group in groups.items()} == {
        "method=darts": 2,
        "method=gdas": 2,
        "method=pr_darts": 3,
    }
    header, _, *rows = script["make_table"](groups).splitlines()
    column = header.split(" | ").index("train_loss")
    assert [row.split(" | ")[column] for row in rows] == ["1.5 ± 0.71", "5 ± 1.4", "3 ± 0"]

    panels = {axes.get_title(): axes for axes in script["make_figure"](groups).axes}
    assert panels.keys() == {"training loss (nats)", "share of skip connections"}
    lines = {line.get_label(): line for line in panels["training loss (nats)"].get_lines()}
    assert len(panels["training loss (nats)"].get_lines()) == 3 + 7
    np.testing.assert_allclose(lines["method=gdas"].get_ydata(), (6, 5))
    (skips, *_) = (
        line for line in panels["share of skip connections"].get_lines() if line.get_label() == "method=darts"
    )
    np.testing.assert_allclose(skips.get_ydata(), (0.125, 0.125))  # of both cell types


def append(workdir, loss, skips):
    """Records of two epochs, the loss falling by 1 to what is given."""
    workdir.mkdir(parents=True)
    records = [
        {"epoch": e, "step": e + 1, "train_loss": loss + 1 - e, "skip_share": {"normal": skips, "reduce": 0.0}}
        for e in range(2)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
