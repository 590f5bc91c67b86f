"""Many runs as jobs of SLURM, or as processes of this machine: one for each combination of named config values.

    python experiments/launch_slurm.py --workdir=runs/sweep --config=configs/digits.py \\
        --grid method=darts,pr_darts --grid seed=0,1,2 --partition=gpu --gpus=1 --hours=4

Each job is the command line of the package in a folder of its own, runs/sweep/method=darts,seed=0; what comes after
`--` is passed to all. A job that is preempted, or out of time (at most a hundred times), is queued again and goes on
where it was; so does the whole command when it is given again. `--wait` waits for the jobs and writes sweep.md, the
last records side by side, and sweep.png, the epochs; runs that differ by their seeds alone are taken together there, as
are the seeds of one run. `--cluster=local` needs no SLURM, and starts all jobs at once.

The local executor is what has been tried; no job has been preempted on a cluster yet.
"""

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import family
import numpy as np
import submitit
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prdarts_jax.run import reporting

_MOST_TIMEOUTS = 100
PANELS = {
    "train_loss": "training loss (nats)",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "skip_share": "share of skip connections",
    "depth": "depth of the cells",
    "entropy": "entropy of the op weights (nats)",
}

Groups = dict[str, list[list[dict[str, Any]]]]
"""Name -> the records of each run."""


class Run:
    """The command of one run; submitit asks for it again where SLURM has ended the job too early."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __call__(self) -> None:
        # submitit's signals are for this process; the run is told to stop by `checkpoint`, and saves its state.
        self.process = subprocess.Popen(self.command, preexec_fn=_ignore_submitit)
        code = self._wait()
        if code == 128 + signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            signal.pause()  # SLURM has told the run before it tells this process, which is then asked to go on
        if code:
            raise subprocess.CalledProcessError(code, self.command)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What to do when preempted: the same again."""
        self.process.terminate()
        self._wait()
        return submitit.helpers.DelayedSubmission(Run(self.command))

    def _wait(self):
        # Popen.wait would block itself where a signal interrupts it and `checkpoint` waits too.
        while self.process.poll() is None:
            time.sleep(0.2)
        return self.process.returncode


def _ignore_submitit():
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def combinations(grid: list[str], config: str) -> list[dict[str, str]]:
    """Of ['method=a,b', 'seed=0,1']: {'method': 'a', 'seed': '0'}, ...

    Raises:
      ValueError: an entry has no values, or names no field of the config.
    """
    values = {}
    for entry in grid:
        field, _, given = entry.partition("=")
        if not given:
            raise ValueError(f"--grid {entry} must have the form FIELD=VALUE,VALUE")
        values[field] = given.split(",")
    family.check_fields(family.read_config(config), values, config)
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def command_of(config: str, workdir: Path, fields: dict[str, str], rest: list[str]) -> list[str]:
    """The command line of one run."""
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    return [sys.executable, "-m", "prdarts_jax.main", f"--config={config}", f"--workdir={workdir}", *given, *rest]


def read_groups(runs: dict[str, dict[str, str]], workdir: Path) -> Groups:
    """The records of runs that are alike but for their seeds."""
    groups: Groups = {}
    for name, fields in runs.items():
        alike = ",".join(f"{k}={v}" for k, v in fields.items() if k != "seed") or "all"
        seeds = sorted((workdir / name).glob("seed_*")) or [workdir / name]  # of a run with config.seeds above 1
        groups.setdefault(alike, []).extend(records for records in map(reporting.read_records, seeds) if records)
    return groups


def make_table(groups: Groups) -> str:
    """The numbers of the last records, side by side: of several runs mean ± standard deviation."""
    last = {name: [dict(reporting.numbers(records[-1])) for records in group] for name, group in groups.items()}
    columns = list(dict.fromkeys(field for group in last.values() for numbers in group for field in numbers))
    columns = [field for field in columns if field not in ("epoch", "step", "seconds")]
    lines = ["| runs | number | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, group in last.items():
        cells = [[numbers[field] for numbers in group if field in numbers] for field in columns]
        lines.append(f"| {name} | {len(group)} | " + " | ".join(map(_mean_and_spread, cells)) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values):
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def make_figure(groups: Groups) -> Figure | None:
    """The mean of each group in every epoch that all its runs have, above a faint line a run; a panel for each of
    `PANELS` that there is."""
    kept = [records for group in groups.values() for records in group]
    shown = [field for field in PANELS if kept and all(field in record for records in kept for record in records)]
    if not shown:
        return None
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.3 * len(groups) + 0.4), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(groups)))
    for axes, field in zip(panels, shown, strict=False):
        for (name, group), colour in zip(groups.items(), colours, strict=True):
            curves = [[_value(record[field]) for record in records] for records in group]
            for curve in curves if len(curves) > 1 else ():
                axes.plot(range(len(curve)), curve, color=colour, linewidth=0.8, alpha=0.4)
            mean = [statistics.mean(values) for values in zip(*curves, strict=False)]
            axes.plot(range(len(mean)), mean, color=colour, marker="o", markersize=3, label=name)
        axes.set(title=PANELS[field], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def _value(value):
    """A number, or the mean of those of the cell types."""
    return statistics.mean(value.values()) if isinstance(value, dict) else value


def main() -> None:
    """Submits the jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="as for the package")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs' folders")
    parser.add_argument("--grid", action="append", default=[], metavar="FIELD=VALUE,VALUE", help="may be repeated")
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="where jobs run")
    parser.add_argument("--partition", help="of SLURM")
    parser.add_argument("--gpus", type=int, default=0, help="of a job, by default none, which hides those there are")
    parser.add_argument("--cpus", type=int, default=4, help="of a job")
    parser.add_argument("--hours", type=float, default=24, help="of a job")
    parser.add_argument("--wait", action="store_true", help="until all jobs are done, and write sweep.md and .png")
    parser.add_argument("rest", nargs="*", help="further flags of the package, after --")
    arguments = parser.parse_args()

    if any(entry.startswith("seed=") for entry in arguments.grid) and any(
        "config.seeds" in flag for flag in arguments.rest
    ):
        sys.exit("error: --grid seed and --config.seeds exclude each other: a seed would be searched twice")
    try:
        runs = {
            ",".join(f"{k}={v}" for k, v in fields.items()): fields
            for fields in combinations(arguments.grid, arguments.config)
        }
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    executor = submitit.AutoExecutor(
        folder=arguments.workdir / "jobs", cluster=arguments.cluster, slurm_max_num_timeout=_MOST_TIMEOUTS
    )
    executor.update_parameters(
        name="prdarts_jax",
        cpus_per_task=arguments.cpus,
        gpus_per_node=arguments.gpus,
        timeout_min=round(60 * arguments.hours),
        slurm_partition=arguments.partition,
    )
    jobs = {}
    for name, fields in runs.items():
        command = command_of(arguments.config, arguments.workdir / name, fields, arguments.rest)
        jobs[name] = executor.submit(Run(command))
        print(f"job {jobs[name].job_id}: {name}", flush=True)
    if not arguments.wait:
        return
    failed = [name for name, job in jobs.items() if job.exception()]
    groups = read_groups({name: runs[name] for name in jobs if name not in failed}, arguments.workdir)
    text, figure = make_table(groups), make_figure(groups)
    (arguments.workdir / "sweep.md").write_text(text)
    print(text)
    if figure is not None:
        figure.savefig(arguments.workdir / "sweep.png")
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; see the logs in {arguments.workdir / 'jobs'}")


if __name__ == "__main__":
    main()
