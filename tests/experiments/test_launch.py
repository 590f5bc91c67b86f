"""Jobs of one machine, by submitit's local executor."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scripts

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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([CONFIG, "--grid", "seed=0,1", "--", "--config.seeds=2"], "--grid seed and --config.seeds exclude each other"),
        ([CONFIG, "--grid", "speed=1"], "config.speed is not a field of"),
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


def test_runs_that_differ_by_their_seeds_are_taken_together(tmp_path):
    runs = {}
    for method, losses in {"darts": (1.0, 2.0), "gdas": (4.0, 6.0)}.items():
        for seed, loss in enumerate(losses):
            name = f"method={method},seed={seed}"
            runs[name] = {"method": method, "seed": str(seed)}
            append(tmp_path / name, loss, 0.25)
    for seed in (0, 1, 2):  # one run of three seeds
        append(tmp_path / "method=pr_darts" / f"seed_{seed}", 3.0, 0.5)
    runs["method=pr_darts"] = {"method": "pr_darts"}
    groups = script.read_groups(runs, tmp_path)
    assert {name: len(group) for name, group in groups.items()} == {
        "method=darts": 2,
        "method=gdas": 2,
        "method=pr_darts": 3,
    }
    header, _, *rows = script.make_table(groups).splitlines()
    column = header.split(" | ").index("train_loss")
    assert [row.split(" | ")[column] for row in rows] == ["1.5 ± 0.71", "5 ± 1.4", "3 ± 0"]

    panels = {axes.get_title(): axes for axes in script.make_figure(groups).axes}
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
