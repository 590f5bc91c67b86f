"""Many runs as jobs of SLURM, or as processes of this machine: one for each combination of named config values.

    python experiments/launch_slurm.py --workdir=runs/sweep --config=configs/digits.py \\
        --grid method=darts,pr_darts --grid seed=0,1,2 --partition=gpu --gpus=1 --hours=4 \\
        -- --config.seeds=1

Each job is the command line of the package in a folder of its own, runs/sweep/method=darts,seed=0; what comes after
`--` is passed to all. A job that is preempted, or out of time (at most a hundred times), is queued again and resumed;
so is the whole command when it is given again. `--wait` waits for the jobs and writes sweep.md, the last records side
by side, sweep.png, the epochs, and report.html, a page with both; see `sweep.py`. `--cluster=local` needs no SLURM, and
starts all jobs at once.

The local executor is what has been tried; no job has been preempted on a cluster yet.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import family
import submitit
import sweep
from flax.traverse_util import flatten_dict

from prdarts_jax import command_line
from prdarts_jax.fields import check_names
from prdarts_jax.run import validation

_MOST_TIMEOUTS = 100


class Run:
    """The command of one run; submitit asks for it again where SLURM has ended the job too early."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __call__(self) -> None:
        # submitit's signals are for this process; the run is told to stop by `checkpoint`, and saves its state.
        self.process = subprocess.Popen(self.command, preexec_fn=_ignore_submitit)
        code = self._wait()
        if code == 128 + signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            signal.pause()  # SLURM has told the run before it tells this process, which then queues the job again
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
    check_names(values, flatten_dict(family.read_config(config).to_dict(), sep="."), config)
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def folder_of(fields: dict[str, str]) -> str:
    """The name of a run's folder: 'method=darts,seed=0'. A slash, as in the path of a file, becomes %2F."""
    return ",".join(f"{k}={v}" for k, v in fields.items()).replace("/", "%2F") or "all"


def check_seeds(runs: list[dict[str, str]], config: str, rest: list[str]) -> None:
    """Refuses to search seeds one by one in runs that search several each.

    Raises:
      ValueError: saying what to add.
    """
    if unfit := [flag for flag in rest if "=" not in flag]:
        raise ValueError(f"{unfit[0]!r} after -- must have the form --config.FIELD=VALUE")
    flags = dict(flag.removeprefix("--config.").partition("=")[::2] for flag in rest)
    of_config = {"seeds": str(family.read_config(config).get("seeds", 1))}
    for run in runs:
        seeds = (of_config | run | flags)["seeds"]
        if "seed" in run and seeds != "1":
            raise ValueError(f"--grid seed needs -- --config.seeds=1 at the end: with {seeds} a seed is searched twice")


def command_of(config: str, workdir: Path, fields: dict[str, str], rest: list[str]) -> list[str]:
    """The command line of one run."""
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    return [sys.executable, "-m", "prdarts_jax.main", f"--config={config}", f"--workdir={workdir}", *given, *rest]


def main() -> None:
    """Submits the jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="as for the package")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs' folders")
    parser.add_argument("--grid", action="append", default=[], metavar="FIELD=VALUE,VALUE", help="may be repeated")
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="where jobs run")
    parser.add_argument("--partition", help="of SLURM")
    parser.add_argument(
        "--gpus", type=int, default=0, help="of a job; by default none, and those of the machine are hidden"
    )
    parser.add_argument("--cpus", type=int, default=4, help="of a job")
    parser.add_argument("--hours", type=float, default=24, help="of a job")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until all jobs are done, then write sweep.md, sweep.png and report.html",
    )
    parser.add_argument("rest", nargs="*", help="further flags of the package, after --")
    arguments = parser.parse_args()

    with family.exit_if_refused():
        runs = {folder_of(fields): fields for fields in combinations(arguments.grid, arguments.config)}
        check_seeds(list(runs.values()), arguments.config, arguments.rest)
        for fields in runs.values():
            config = command_line.config_of(command_of(arguments.config, arguments.workdir, fields, arguments.rest))
            if config.get("job") != "theory":
                validation.validate(config)
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
    failed = {name: f"jobs/{job.paths.stderr.name}" for name, job in jobs.items() if job.exception()}
    again = ["--workdir=runs/again", f"--config={arguments.config}", *(f"--grid={entry}" for entry in arguments.grid)]
    for name in ("cluster", "partition", "gpus", "cpus", "hours"):
        value = getattr(arguments, name)
        again += [f"--{name}={value}"] if value != parser.get_default(name) else []
    command = ["python", "experiments/launch_slurm.py", *again, "--wait", "--", *arguments.rest]
    asked = sweep.Asked(arguments.config, runs, arguments.rest, command)
    print(sweep.write(asked, failed, arguments.workdir))
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; see the logs in {arguments.workdir / 'jobs'}")


if __name__ == "__main__":
    main()
