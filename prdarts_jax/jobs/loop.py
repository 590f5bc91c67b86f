"""The loop of a run: steps, a record an epoch, and checkpoints at ends of epochs.

The same command goes on where a run was stopped, or from the last checkpoint where it was killed, bit for bit.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from prdarts_jax import checkpoints, reporting

# After an epoch a checkpoint is due if that many times as long has passed as the last took to write.
_INTERVAL = 20

State = Any
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
      shapes: of (state, metrics).
      start: gives the state at step 0.
      prepare: compiles; gives the function (state, step, steps) -> (state after `steps` steps, mean metrics).
      end_epoch: (state, epoch, mean metrics) -> (state, record of the epoch); the state to go on with.
      summary: record -> what the progress bar shows.
      ended: whether the run ends before its last step, given the records of all epochs so far.
    """

    name: str
    total_steps: int
    steps_per_epoch: int
    steps_per_call: int
    shapes: tuple[Any, dict[str, Any]]
    start: Callable[[], State]
    prepare: Callable[[State], Advance]
    end_epoch: Callable[[State, int, dict[str, float]], tuple[State, dict[str, Any]]]
    summary: Callable[[dict[str, Any]], str]
    ended: Callable[[list[dict[str, Any]]], bool] = lambda records: False


def run(plan: Plan, config: dict[str, Any], workdir: Path) -> State:
    """Runs a plan, or the rest of it, with its checkpoints, metrics and config.json in `workdir`.

    Call `checkpoints.check_config` before.

    Returns:
      The state after the last step, or after that at which it ended.

    Raises:
      ValueError, OSError: for checkpoints or metrics that cannot be used.
      Diverged: a mean metric of an epoch is not finite.
      Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    shapes, metric_shapes = plan.shapes
    total_steps, steps_per_epoch = plan.total_steps, plan.steps_per_epoch
    # Sums of the metrics over the epoch so far are part of a checkpoint, so that a stop in mid-epoch leaves no trace.
    zeros: dict[str, Any] = {name: np.float32(0) for name in metric_shapes}
    folder = workdir / "checkpoints"
    restored = checkpoints.restore_latest(folder, (shapes, zeros), tqdm.write)
    if restored:
        (state, totals), step = restored
        totals = {name: np.asarray(total) for name, total in totals.items()}
        print(f"going on from step {step} of {total_steps}")
    else:
        state, totals, step = plan.start(), zeros, 0
    reporting.write_json(workdir / "config.json", config)

    records = [record for record in reporting.read_records(workdir) if record["step"] <= step]
    done = step == total_steps or plan.ended(records)
    if not done:
        clock = time.perf_counter()
        advance = plan.prepare(state)
        print(f"compiled in {time.perf_counter() - clock:.0f} s", flush=True)
    seconds, saved, saving = 0.0, time.perf_counter(), 0.0
    with (
        stop_signals() as asked_to_stop,
        contextlib.closing(reporting.RunLog(workdir, step // steps_per_epoch)) as log,
        tqdm(total=total_steps, initial=step, unit="step") as bar,
    ):
        while not done:
            clock = time.perf_counter()
            steps = min(plan.steps_per_call, steps_per_epoch - step % steps_per_epoch)
            state, metrics = advance(state, step, steps)
            totals = {name: totals[name] + np.float32(steps) * np.asarray(metrics[name]) for name in metrics}
            step += steps
            seconds += time.perf_counter() - clock
            bar.update(steps)
            if step % steps_per_epoch == 0:
                epoch = step // steps_per_epoch - 1
                means = {name: float(total / steps_per_epoch) for name, total in totals.items()}
                if unknown := [name for name, mean in means.items() if not math.isfinite(mean)]:
                    raise Diverged(
                        f"the {plan.name} diverged in epoch {epoch}, where {', '.join(unknown)} is not finite; use "
                        "another --workdir and a smaller config.weights.learning_rate"
                    )
                clock = time.perf_counter()
                state, record = plan.end_epoch(state, epoch, means)
                seconds += time.perf_counter() - clock
                records.append({"epoch": epoch, "step": step, **record, "seconds": seconds})
                log.append(records[-1])
                bar.set_postfix_str(plan.summary(record))
                done = step == total_steps or plan.ended(records)
                totals, seconds = zeros, 0.0
                clock = time.perf_counter()
                if done or clock - saved >= _INTERVAL * saving:
                    checkpoints.save(folder, step, (state, totals))
                    saved = time.perf_counter()
                    saving = saved - clock
            if asked_to_stop():  # at the end too, since others may follow
                checkpoints.save(folder, step, (state, totals))
                raise Stopped(f"stopped at step {step} of {total_steps}; the same command goes on from there")
    return state


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
