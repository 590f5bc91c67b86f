"""The parts that all runs share: a record per epoch, checkpoints at ends of epochs, stopping and resuming.

The same command resumes a run, bit for bit: from where it was stopped, or from the last checkpoint if it was killed.
"""

import contextlib
import dataclasses
import json
import signal
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from tqdm import tqdm

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, reporting, run_log, signals

# After an epoch a checkpoint is due if this many times the duration of the last save have passed since.
_INTERVAL = 20

State = Any
Record = dict[str, Any]


class Stopped(Exception):
    """The run was asked to stop, by this signal, and has saved its state; the same command resumes it."""

    def __init__(self, message: str, signal: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.signal = signal


class Diverged(ValueError):
    """A metric or the state is no longer finite."""


class Bar(tqdm):
    """A progress bar that shows no negative times when the machine's clock is set back, and keeps log files short."""

    def __init__(self, **options: Any) -> None:
        self._began = time.perf_counter()
        super().__init__(**options, mininterval=0.1 if sys.stderr.isatty() else 10)  # seconds

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values that the text of the bar shows."""
        return super().format_dict | {"elapsed": time.perf_counter() - self._began}


@dataclasses.dataclass
class Run:
    """A run of `total_steps` steps, with its checkpoints and config.json in `workdir`.

        with Run(...) as run:
            state = run.restore(state_shapes, metric_shapes) or start()
            if not run.done:
                compiled = compile_step(...)
            for steps in run.calls():
                state, metrics = compiled(state, steps)
                run.add(steps, metrics)
                if run.epoch_ended:
                    run.record(run.means(), "what the progress bar shows")
                run.save_if_due(state)

    Several runs, such as the seeds of a population, may be done at once: their states are one pytree, their metrics are
    f32[runs], and each has a number (from 0), a folder, and records of its own. A run that ends early is still
    computed, but nothing of it is written.

    Attributes:
      name: what is done, for messages, for instance 'search'.
      workdir: for checkpoints and config.json; call `checkpoints.check_config` before.
      config: the content of config.json.
      folders: for the records of each run.
      total_steps: number of steps, a multiple of `steps_per_epoch`.
      steps_per_epoch: number of steps of an epoch.
      steps_per_call: steps between two updates of the progress bar, and two checks for SIGTERM and Ctrl-C.
      ended: whether a run ends before its last step, given the records of all its epochs so far.
      free: fields of the config that may have other values than when the run began.
      may_diverge: if True, a run whose numbers are not finite ends, with a record {'diverged': True}, while the others
        continue. If False, `Diverged` is raised and nothing is saved.
      step: number of steps done.
      records: for each run, those of all its epochs so far.
    """

    name: str
    workdir: Path
    config: dict[str, Any]
    folders: Sequence[Path]
    total_steps: int
    steps_per_epoch: int
    steps_per_call: int
    ended: Callable[[Sequence[Record]], bool] = lambda records: False
    free: Collection[str] = ()
    may_diverge: bool = False
    step: int = dataclasses.field(init=False, default=0)
    records: list[list[Record]] = dataclasses.field(init=False, default_factory=list)

    def __enter__(self) -> Self:
        self._opened = contextlib.ExitStack()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def restore(self, state_shapes: State, metric_shapes: Mapping[str, Any]) -> State | None:
        """The state of the newest checkpoint, or None if there is no checkpoint and the run starts at step 0.

        Args:
          state_shapes: `jax.eval_shape` of the state.
          metric_shapes: `jax.eval_shape` of the metrics, each f32[] or f32[runs].

        Raises:
          ValueError, OSError: checkpoints cannot be used or have disappeared, or processes have different configs.
        """
        config = json.dumps(self.config, sort_keys=True).encode()
        if len(devices.all_gather(zlib.crc32(config) % 2**31)) > 1:
            raise ValueError("the processes have different configs: start all with the same --config and fields")
        # Sums over the epoch so far are part of a checkpoint, so that a stop in mid-epoch leaves no trace.
        self._totals = {name: np.zeros(shape.shape, np.float32) for name, shape in metric_shapes.items()}
        template = state_shapes, self._totals
        restored = checkpoints.restore_latest(self._checkpoints, template, self.config, reporting.say, self.free)
        if restored is None:
            self._begin_anew()
            return None
        (state, totals), self.step, self.records = restored
        epochs = self.step // self.steps_per_epoch
        if len(self.records) != len(self.folders) or any(len(self.records[run]) != epochs for run in self.going):
            raise ValueError(
                f"the checkpoint of step {self.step} in {self._checkpoints} has been changed: it does not have the "
                f"records of {epochs} epochs; use another --workdir"
            )
        if self.step > self.total_steps:
            done = f"{self.step // self.steps_per_epoch} epochs of the {self.name} in {self.workdir} are done"
            raise ValueError(f"{done}: config.epochs={self.total_steps // self.steps_per_epoch} must not be less")
        self._totals = {name: np.asarray(total) for name, total in totals.items()}
        reporting.say(f"resumed at step {self.step} of {self.total_steps}")
        return state

    def _begin_anew(self):
        """Starts at step 0; refuses this if there were checkpoints before. A run that is killed before its first one
        has their folder and at most one record."""
        self.records = [[] for _ in self.folders]
        if (self.workdir / "config.json").exists():
            epochs = max(len(run_log.read_records(folder)) for folder in self.folders)
            if epochs > self._checkpoints.exists():
                raise ValueError(
                    f"{self.workdir} has records up to epoch {epochs - 1} but no checkpoint: put the checkpoints back, "
                    "use another --workdir, or move that folder away to start anew"
                )
            if epochs:
                reporting.say(f"{self.workdir} has no checkpoint: the {self.name} begins again")

    @property
    def _checkpoints(self):
        return self.workdir / "checkpoints"

    @property
    def going(self) -> list[int]:
        """The numbers of the runs that have neither ended early nor diverged."""
        return [n for n, records in enumerate(self.records) if not (diverged(records) or self.ended(records))]

    @property
    def done(self) -> bool:
        """Whether no steps remain."""
        return self.step == self.total_steps or not self.going

    def calls(self) -> Iterator[int]:
        """Yields the number of steps of each call of the compiled function, until the run ends.

        Meanwhile SIGTERM and Ctrl-C take effect in `save_if_due`. Only the main thread may call this, since it receives
        these signals.
        """
        self._asked_to_stop = self._opened.enter_context(signals.stop_signals())
        self._logs = []
        for folder, records in zip(self.folders, self.records, strict=True) if devices.is_main() else ():
            log = run_log.RunLog(folder, records)
            self._logs.append(self._opened.enter_context(contextlib.closing(log)))
        if devices.is_main():
            self._checkpoints.mkdir(parents=True, exist_ok=True)
        # After the logs, which replace the records that another run may have left.
        checkpoints.write_config(self.workdir, self.config)
        bar = Bar(total=self.total_steps, initial=self.step, unit="step", disable=not devices.is_main())
        self._bar = self._opened.enter_context(bar)
        self._epoch_began = self._saved = time.perf_counter()
        self._saving = 0.0
        while not self.done:
            yield min(self.steps_per_call, self.steps_per_epoch - self.step % self.steps_per_epoch)

    def add(self, steps: int, *metrics: Mapping[str, jax.Array]) -> None:
        """Counts the steps of a call; `metrics` are means over equal shares of these steps, each f32[] or f32[runs]."""
        fetched = devices.device_get(metrics)
        for name, total in self._totals.items():
            mean = sum(share[name] for share in fetched) / len(fetched)
            self._totals[name] = total + np.float32(steps) * mean
        self.step += steps
        self._bar.update(steps)

    @property
    def epoch(self) -> int:
        """The epoch of the last step, counted from 0."""
        return (self.step - 1) // self.steps_per_epoch

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.step % self.steps_per_epoch == 0

    def means(self) -> dict[int, Record]:
        """{number of a run: mean metrics over the epoch that has ended}, for the runs that have not ended.

        Raises:
          Diverged: a mean is not finite, and `may_diverge` is False.
        """
        means = {
            number: {name: float(np.atleast_1d(a)[number] / self.steps_per_epoch) for name, a in self._totals.items()}
            for number in self.going
        }
        return {number: mean for number, mean in means.items() if self.is_finite(number, mean)}

    def _check_state(self, state):
        leaves = checkpoints.leaves_by_name(state)
        for number in self.going:
            of_run = {n: a[number] for n, a in leaves.items() if a.shape} if self.folders[1:] else leaves
            self.is_finite(number, of_run)

    def is_finite(self, number: int, values: Mapping[str, Any]) -> bool:
        """Whether the values of a run are finite; those called arch. may be -inf. If not, the run ends.

        Raises:
          Diverged: a value is not finite, and `may_diverge` is False.
        """
        unknown = [name for name, value in values.items() if not _is_finite(name, value)]
        if not unknown:
            return True
        where = f" of {self.folders[number].name}" if len(self.folders) > 1 else ""
        what = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        text = f"the {self.name}{where} diverged in epoch {self.epoch}, where {what} "
        text += f"{'is' if len(unknown) == 1 else 'are'} not finite"
        if not self.may_diverge:
            good = checkpoints.newest(self._checkpoints)
            text += f"; the last good checkpoint is {good}" if good else "; there is no checkpoint from before"
            section = "logits" if unknown[0].startswith("arch.") else "weights"
            raise Diverged(f"{text}; use another --workdir and a smaller config.{section}.learning_rate")
        reporting.say(f"careful: {text}, and ends")
        records = self.records[number]
        if records and records[-1]["epoch"] == self.epoch:  # its metrics were finite, what they led to is not
            records[-1] = records[-1] | {"diverged": True}
            if self._logs:
                self._logs[number].write(records)
        else:
            self._append(number, {"diverged": True})
        return False

    def record(self, records: Mapping[int, Record], summary: str) -> None:
        """Writes the records {number of a run: record} of the epoch that has ended, with epoch, step and seconds, and
        shows the summary in the progress bar.

        Raises:
          Diverged: a number is not finite.
        """
        finite = {n: record for n, record in records.items() if self.is_finite(n, run_log.numbers(record))}
        for number, record in finite.items():
            self._append(number, record)
        self._bar.set_postfix_str(summary, refresh=sys.stderr.isatty())
        self._totals = {name: np.zeros_like(total) for name, total in self._totals.items()}

    def _append(self, number, record):
        seconds = time.perf_counter() - self._epoch_began
        self.records[number].append({"epoch": self.epoch, "step": self.step, **record, "seconds": seconds})
        if self._logs:  # only in the first process
            self._logs[number].append(self.records[number][-1])

    def save_if_due(self, state: State) -> None:
        """Saves a checkpoint if one is due, which is only at ends of epochs, or if the run was asked to stop.

        Raises:
          Stopped: the run was asked to stop.
          Diverged: the state is not finite, and `may_diverge` is False.
        """
        if self.epoch_ended:
            clock = time.perf_counter()
            if self.done or devices.any(clock - self._saved >= _INTERVAL * self._saving):
                self._save(state)
                self._saved = time.perf_counter()
                self._saving = self._saved - clock
            self._epoch_began = time.perf_counter()
        received = self._asked_to_stop()
        if devices.any(received != 0):  # at the end of the run too, since other runs may follow
            self._save(state)
            text = f"stopped at step {self.step} of {self.total_steps}; the same command resumes it"
            raise Stopped(text, received or signal.SIGTERM)

    def _save(self, state):
        # Otherwise the next metrics show whether the state is finite, whether it was saved or not.
        if not self.may_diverge or self.step == self.total_steps:
            self._check_state(state)
        checkpoints.save(self._checkpoints, self.step, (state, self._totals), self.config, self.records)


def diverged(records: Sequence[Record]) -> bool:
    """Whether the run of these records has diverged; see `Run.may_diverge`."""
    return bool(records) and "diverged" in records[-1]


def _is_finite(name: str, value: Any) -> bool:
    """Whether a value is finite; logits may be -inf, for ops that are no candidates."""
    finite = np.isfinite(value)
    return bool(np.all(finite | np.isneginf(value) if name.startswith("arch.") else finite))


def compiled(function: Any, *arguments: Any, section: str = "") -> jax.stages.Compiled:
    """Compiles a `jax.jit` function for these arguments, or for their shapes, and prints its time and memory; `section`
    is put before field names: 'evaluation.' if the function trains what this section of a config describes."""
    reporting.say("compiling, which may take a minute or more")
    clock = time.perf_counter()
    result: jax.stages.Compiled = function.lower(*arguments).compile()
    reporting.say(f"compiled in {time.perf_counter() - clock:.0f} s, {memory_in_words(result, section)}")
    return result


def memory_in_words(compiled: jax.stages.Compiled, section: str = "") -> str:
    """How much memory a compiled function needs on each device, and what to change if that is too much."""
    needed, available = devices.memory(compiled)
    if needed is None:
        return "needs an amount of memory that this backend does not report"
    text = f"needs {needed / 1e9:.2f} GB of memory on each device"
    if needed > available:
        text += (
            f", which has {available / 1e9:.2f} GB: if it does not fit, set config.{section}accumulate to take a batch "
            f"in pieces, config.{section}dtype=bfloat16, or a smaller config.{section}batch_size or "
            f"config.{section}channels"
        )
    return text
