"""What is the same in every run: a record for each epoch, checkpoints at ends of epochs, stopping and resuming.

The same command resumes a run where it was stopped, or from the last checkpoint where it was killed, bit for bit.
"""

import contextlib
import dataclasses
import json
import signal
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from tqdm import tqdm

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, reporting, signals

# After an epoch a checkpoint is due if that many times as long has passed as the last took to write.
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
    """A progress bar that shows no negative times when the machine's clock is set back."""

    def __init__(self, **options: Any) -> None:
        self._began = time.perf_counter()
        super().__init__(**options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the text of the bar is made of."""
        return super().format_dict | {"elapsed": time.perf_counter() - self._began}


@dataclasses.dataclass
class Run:
    """A run of so many steps, with its checkpoints and config.json in `workdir`.

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

    Several runs, as the seeds of a population, may be done at once: their states are one pytree, their metrics are
    f32[runs], and each has a number, a folder, and records of its own. One that ends early is still computed, but
    leaves nothing.

    Attributes:
      name: of what it does, for messages.
      workdir: for checkpoints and config.json; call `checkpoints.check_config` before.
      config: what config.json holds.
      folders: for the records of each run.
      total_steps: a multiple of `steps_per_epoch`.
      steps_per_call: steps between two updates of the progress bar, and two looks for SIGTERM and Ctrl-C.
      ended: whether a run ends before its last step, given the records of all its epochs so far.
      free: fields of the config that may have been others in the part of the run that is done.
      may_diverge: whether a run whose numbers are no longer finite ends, with a record {'diverged': True}, while the
        others go on. Otherwise `Diverged` is raised, and nothing is saved.
      step: how many steps are done.
      records: of each run, of all its epochs so far.
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
        """The state of the newest checkpoint, or None where there is none and the run starts at step 0.

        Args:
          state_shapes: `jax.eval_shape` of the state.
          metric_shapes: the same of the metrics, each f32[] or f32[runs].

        Raises:
          ValueError, OSError: for checkpoints that cannot be used or have gone, or processes with different configs.
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
        """At step 0, unless there were checkpoints: a run that is killed before it has one has their folder, and at
        most one record."""
        self.records = [[] for _ in self.folders]
        if (self.workdir / "config.json").exists():
            epochs = max(len(reporting.read_records(folder)) for folder in self.folders)
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
        """The numbers of the runs that have not ended early, nor diverged."""
        return [n for n, records in enumerate(self.records) if not (diverged(records) or self.ended(records))]

    @property
    def done(self) -> bool:
        """Whether no steps are left to do."""
        return self.step == self.total_steps or not self.going

    def calls(self) -> Iterator[int]:
        """The number of steps of each call of the compiled function, from here to the end of the run.

        SIGTERM and Ctrl-C then wait for `save_if_due`; only the main thread may call this, as it receives them.
        """
        self._asked_to_stop = self._opened.enter_context(signals.stop_signals())
        self._logs = []
        for folder, records in zip(self.folders, self.records, strict=True) if devices.is_main() else ():
            log = reporting.RunLog(folder, records)
            self._logs.append(self._opened.enter_context(contextlib.closing(log)))
        if devices.is_main():
            self._checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoints.write_config(self.workdir, self.config)  # after the logs, which may hold records of another run
        bar = Bar(total=self.total_steps, initial=self.step, unit="step", disable=not devices.is_main())
        self._bar = self._opened.enter_context(bar)
        self._epoch_began = self._saved = time.perf_counter()
        self._saving = 0.0
        while not self.done:
            yield min(self.steps_per_call, self.steps_per_epoch - self.step % self.steps_per_epoch)

    def add(self, steps: int, *metrics: Mapping[str, jax.Array]) -> None:
        """Counts the steps of a call; `metrics` are means over equal shares of them, each f32[] or f32[runs]."""
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
        """The mean metrics over the epoch that has ended, by the number of each run that has not ended.

        Raises:
          Diverged: a mean is not finite, but must be.
        """
        means = {
            number: {name: float(np.atleast_1d(a)[number] / self.steps_per_epoch) for name, a in self._totals.items()}
            for number in self.going
        }
        return {number: mean for number, mean in means.items() if self._is_finite(number, mean)}

    def _check_state(self, state):
        leaves = checkpoints.leaves_by_name(state)
        for number in self.going:
            of_run = {n: a[number] for n, a in leaves.items() if a.shape} if self.folders[1:] else leaves
            self._is_finite(number, of_run)

    def _is_finite(self, number: int, values: Mapping[str, Any]) -> bool:
        """Whether the values of a run are finite. If not, the run ends; see `may_diverge`."""
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
            raise Diverged(f"{text}; use another --workdir and a smaller config.weights.learning_rate")
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
        """Writes the records of the epoch that has ended, by the number of the run, with epoch, step and seconds, and
        shows the summary in the progress bar.

        Raises:
          Diverged: a number is not finite.
        """
        finite = {n: record for n, record in records.items() if self._is_finite(n, reporting.numbers(record))}
        for number, record in finite.items():
            self._append(number, record)
        self._bar.set_postfix_str(summary)
        self._totals = {name: np.zeros_like(total) for name, total in self._totals.items()}

    def _append(self, number, record):
        seconds = time.perf_counter() - self._epoch_began
        self.records[number].append({"epoch": self.epoch, "step": self.step, **record, "seconds": seconds})
        if self._logs:  # in one process
            self._logs[number].append(self.records[number][-1])

    def save_if_due(self, state: State) -> None:
        """Saves a checkpoint if it is time, at the end of an epoch, or if the run was asked to stop, and then raises
        `Stopped`.

        Raises:
          Diverged: the state is not finite, but must be.
        """
        if self.epoch_ended:
            clock = time.perf_counter()
            if self.done or devices.any(clock - self._saved >= _INTERVAL * self._saving):
                self._save(state)
                self._saved = time.perf_counter()
                self._saving = self._saved - clock
            self._epoch_began = time.perf_counter()
        received = self._asked_to_stop()
        if devices.any(received != 0):  # at the end too, since others may follow
            self._save(state)
            text = f"stopped at step {self.step} of {self.total_steps}; the same command resumes it"
            raise Stopped(text, received or signal.SIGTERM)

    def _save(self, state):
        if not self.may_diverge or self.step == self.total_steps:  # else the next metrics will tell, saved or not
            self._check_state(state)
        checkpoints.save(self._checkpoints, self.step, (state, self._totals), self.config, self.records)


def diverged(records: Sequence[Record]) -> bool:
    """Whether the run of these records has diverged; see `Run.may_diverge`."""
    return bool(records) and "diverged" in records[-1]


def _is_finite(name: str, value: Any) -> bool:
    """Whether it is, but for the logits of ops that are no candidates."""
    finite = np.isfinite(value)
    return bool(np.all(finite | np.isneginf(value) if name.startswith("arch.") else finite))


def compiled(function: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a function of `jax.jit` for such arguments, or for their shapes, and prints what that takes."""
    clock = time.perf_counter()
    result: jax.stages.Compiled = function.lower(*arguments).compile()
    reporting.say(f"compiled in {time.perf_counter() - clock:.0f} s, {memory_in_words(result)}")
    return result


def memory_in_words(compiled: jax.stages.Compiled) -> str:
    """How much memory a compiled function needs on each device, and what to change where that is too much."""
    needed, available = devices.memory(compiled)
    if needed is None:
        return "needs as much memory as this backend does not tell"
    text = f"needs {needed / 1e9:.2f} GB of memory on each device"
    if needed > available:
        text += (
            f", which has {available / 1e9:.2f} GB: if it does not fit, set config.accumulate to take a batch in "
            "pieces, config.dtype=bfloat16, or a smaller config.batch_size or config.channels"
        )
    return text
