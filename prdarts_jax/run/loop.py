"""The loop of a run: steps, a record an epoch, and checkpoints at ends of epochs.

The same command goes on where a run was stopped, or from the last checkpoint where it was killed, bit for bit. Several
runs may go on at once, as the seeds of a population do: their states are one pytree, and each has records of its own.
"""

import contextlib
import json
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from prdarts_jax import devices
from prdarts_jax.run import checkpoints, reporting

# After an epoch a checkpoint is due if that many times as long has passed as the last took to write.
_INTERVAL = 20

State = Any
Record = dict[str, Any]
Advance = Callable[[State, int, int], tuple[State, dict[str, Any]]]


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the same command goes on."""


class Diverged(ValueError):
    """A metric is no longer finite."""


class Plan(NamedTuple):
    """What a run does.

    Attributes:
      name: of what it does, for messages.
      total_steps: length of the run.
      steps_per_epoch: a divisor of it.
      steps_per_call: steps between two updates of the progress bar, and two looks for SIGTERM and Ctrl-C.
      folders: of the records of each run.
      shapes: of (state, metrics); metrics are f32[], or f32[runs].
      start: gives the state at step 0.
      place: puts a state where the compiled function has it.
      prepare: compiles; gives the function (state, step, steps) -> (state after `steps` steps, mean metrics) and what
        was compiled.
      end_epoch: (state, epoch, mean metrics of each run) -> (state, record of the epoch of each); the state to go on
        with. None stands for a run that has ended; it is computed on, but leaves nothing.
      summary: records of each -> what the progress bar shows.
      ended: whether a run ends before its last step, given the records of all its epochs so far.
    """

    name: str
    total_steps: int
    steps_per_epoch: int
    steps_per_call: int
    folders: Sequence[Path]
    shapes: tuple[Any, dict[str, Any]]
    start: Callable[[], State]
    place: Callable[[State], State]
    prepare: Callable[[State], tuple[Advance, jax.stages.Compiled]]
    end_epoch: Callable[[State, int, list[Record | None]], tuple[State, list[Record | None]]]
    summary: Callable[[list[Record]], str]
    ended: Callable[[list[Record]], bool] = lambda records: False


def run(plan: Plan, config: dict[str, Any], workdir: Path) -> State:
    """Runs a plan, or the rest of it, with its checkpoints and config.json in `workdir`.

    Call `checkpoints.check_config` before.

    Returns:
      The state after the last step, or after that at which it ended.

    Raises:
      ValueError, OSError: for checkpoints or metrics that cannot be used, or processes with different configs.
      Diverged: a mean metric of an epoch is not finite.
      Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    if len(devices.everywhere(zlib.crc32(json.dumps(config, sort_keys=True).encode()) % 2**31)) > 1:
        raise ValueError("the processes have different configs: start all with the same --config and fields")
    shapes, metric_shapes = plan.shapes
    total_steps, steps_per_epoch = plan.total_steps, plan.steps_per_epoch
    # Sums of the metrics over the epoch so far are part of a checkpoint, so that a stop in mid-epoch leaves no trace.
    zeros: dict[str, Any] = {name: np.zeros(shape.shape, np.float32) for name, shape in metric_shapes.items()}
    folder = workdir / "checkpoints"
    restored = checkpoints.restore_latest(folder, (shapes, zeros), reporting.say)
    if restored:
        (state, totals), step = restored
        totals = {name: np.asarray(total) for name, total in totals.items()}
        reporting.say(f"going on from step {step} of {total_steps}")
    else:
        state, totals, step = plan.start(), zeros, 0
    state = plan.place(state)
    reporting.write_json(workdir / "config.json", config)

    records = [[r for r in reporting.read_records(place) if r["step"] <= step] for place in plan.folders]
    done = step == total_steps or all(map(plan.ended, records))
    if not done:
        clock = time.perf_counter()
        advance, compiled = plan.prepare(state)
        reporting.say(f"compiled in {time.perf_counter() - clock:.0f} s, {devices.memory(compiled)}")
    seconds, saved, saving = 0.0, time.perf_counter(), 0.0
    with (
        stop_signals() as asked_to_stop,
        contextlib.ExitStack() as opened,
        tqdm(total=total_steps, initial=step, unit="step", disable=not devices.is_main()) as bar,
    ):
        logs = []
        for place in plan.folders if devices.is_main() else ():
            log = reporting.RunLog(place, step // steps_per_epoch)
            logs.append(opened.enter_context(contextlib.closing(log)))
        while not done:
            clock = time.perf_counter()
            steps = min(plan.steps_per_call, steps_per_epoch - step % steps_per_epoch)
            state, metrics = advance(state, step, steps)
            metrics = devices.fetch(metrics)
            totals = {name: totals[name] + np.float32(steps) * metrics[name] for name in metrics}
            step += steps
            seconds += time.perf_counter() - clock
            bar.update(steps)
            if step % steps_per_epoch == 0:
                epoch = step // steps_per_epoch - 1
                going = [not plan.ended(history) for history in records]
                means = _means(plan, totals, epoch, going)
                clock = time.perf_counter()
                state, found = plan.end_epoch(state, epoch, means)
                seconds += time.perf_counter() - clock
                for number, record in enumerate(found):
                    if record is not None:
                        records[number].append({"epoch": epoch, "step": step, **record, "seconds": seconds})
                        if logs:  # in one process
                            logs[number].append(records[number][-1])
                bar.set_postfix_str(plan.summary([record for record in found if record is not None]))
                done = step == total_steps or all(map(plan.ended, records))
                totals, seconds = zeros, 0.0
                clock = time.perf_counter()
                if done or devices.agree(clock - saved >= _INTERVAL * saving):
                    checkpoints.save(folder, step, (state, totals))
                    saved = time.perf_counter()
                    saving = saved - clock
            if devices.agree(asked_to_stop()):  # at the end too, since others may follow
                checkpoints.save(folder, step, (state, totals))
                raise Stopped(f"stopped at step {step} of {total_steps}; the same command goes on from there")
    return state


def _means(plan, totals, epoch, going):
    """The mean metrics of each run that is going on, else None."""
    means: list[Record | None] = []
    for number, (folder, on) in enumerate(zip(plan.folders, going, strict=True)):
        mean = {name: float(np.atleast_1d(total)[number] / plan.steps_per_epoch) for name, total in totals.items()}
        if on and (unknown := [name for name, value in mean.items() if not math.isfinite(value)]):
            where = f" of {folder.name}" if len(plan.folders) > 1 else ""
            raise Diverged(
                f"the {plan.name}{where} diverged in epoch {epoch}, where {', '.join(unknown)} is not finite; use "
                "another --workdir and a smaller config.weights.learning_rate"
            )
        means.append(mean if on else None)
    return means


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within it SIGTERM and Ctrl-C only make the function it gives answer True; a second Ctrl-C interrupts."""
    received: list[int] = []

    def receive(number, frame):
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
