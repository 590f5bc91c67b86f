"""The command line: a config in, a search run, a folder of results out.

    python -m prdarts_jax.main --config=configs/digits.py --workdir=runs/digits --config.epochs=20

The same command goes on where a stopped or killed run was. The folder then holds config.json, metrics.jsonl (a line an
epoch), tensorboard/, architecture/ (logits and activation probabilities of every epoch), checkpoints/, genotype.json
and the pictures.
"""

import contextlib
import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from prdarts_jax import checkpoints, data, genotypes, methods, reporting, settings, spaces
from prdarts_jax.bilevel import SearchProblem, init_search, search_epoch
from prdarts_jax.supernet import Supernet


def make_method(config: ConfigDict) -> methods.Method:
    """The search method that `config.method` names, with the settings of its section."""
    build = {"pr_darts": methods.PRDarts, "darts": methods.Darts}[config.method]
    return build(**config[config.method])


def make_problem(config: ConfigDict, num_classes: int, total_steps: int) -> SearchProblem:
    """The search that a valid config describes."""
    weights, logits = config.weights, config.logits
    schedule = optax.cosine_decay_schedule(
        weights.learning_rate, total_steps, alpha=weights.end_learning_rate / weights.learning_rate
    )
    return SearchProblem(
        supernet=Supernet(
            space=spaces.darts(),
            channels=config.channels,
            cells=config.cells,
            num_classes=num_classes,
            dtype=jnp.dtype(config.dtype),
            remat=config.remat,
            pool_norm=config.pool_norm,
            head_norm=config.head_norm,
            running_statistics=config.running_statistics,
        ),
        method=make_method(config),
        # As in PyTorch, weight decay is part of the gradient that momentum and Adam see, and is not clipped.
        weight_optimizer=optax.chain(
            optax.clip_by_global_norm(weights.clip),
            optax.add_decayed_weights(weights.weight_decay),
            optax.sgd(schedule, momentum=weights.momentum, nesterov=weights.nesterov),
        ),
        arch_optimizer=optax.chain(
            optax.add_decayed_weights(logits.weight_decay),
            optax.adam(logits.learning_rate, b1=logits.b1, b2=logits.b2),
        ),
        total_steps=total_steps,
    )


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the same command goes on."""


def search(config: ConfigDict, workdir: Path) -> genotypes.Genotype:
    """Runs a search, or the rest of it, and writes everything into `workdir`.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    settings.validate(config)
    checkpoints.check_config(workdir, config.to_dict())
    dataset = data.load(
        config.dataset, config.data_dir or None, image_size=config.image_size, num_examples=config.num_examples
    )
    settings.validate_against_data(config, dataset)
    train_data, val_data = jax.device_put(data.split_halves(dataset, config.split_seed))
    augmentation = data.Augmentation(*data.statistics(dataset), **config.augmentation)
    steps_per_epoch = len(train_data["label"]) // config.batch_size
    total_steps = config.epochs * steps_per_epoch
    problem = make_problem(config, dataset.num_classes, total_steps)

    print(f"{len(dataset.labels)} images of {dataset.name}, {config.epochs} epochs of {steps_per_epoch} steps")

    key, images = jax.random.key(config.seed), jnp.zeros((config.batch_size, *dataset.images.shape[1:]))
    start = jax.jit(init_search, static_argnums=0)
    run = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    arguments = (train_data, val_data, augmentation, config.batch_size, jnp.int32(1))
    shapes, metric_shapes = run.eval_shape(problem, start.eval_shape(problem, key, images), *arguments)
    # Sums of the metrics over the epoch so far are part of a checkpoint, so that a stop in mid-epoch leaves no trace.
    zeros: dict[str, Any] = {name: np.float32(0) for name in metric_shapes}
    folder = workdir / "checkpoints"
    restored = checkpoints.restore_latest(folder, (shapes, zeros), tqdm.write)
    if restored:
        (state, totals), step = restored
        totals = jax.tree.map(np.asarray, totals)
        print(f"going on from step {step} of {total_steps}")
    else:
        state, totals, step = start(problem, key, images), zeros, 0
    reporting.write_json(workdir / "config.json", config.to_dict())

    if step < total_steps:
        clock = time.perf_counter()
        run_steps = run.lower(problem, state, *arguments).compile()
        print(f"compiled in {time.perf_counter() - clock:.0f} s", flush=True)
    seconds = 0.0
    with (
        _stop_signals() as asked_to_stop,
        contextlib.closing(reporting.RunLog(workdir, step // steps_per_epoch)) as log,
        tqdm(total=total_steps, initial=step, unit="step") as bar,
    ):
        while step < total_steps:
            clock = time.perf_counter()
            steps = min(config.steps_per_call, steps_per_epoch - step % steps_per_epoch)
            state, metrics = run_steps(state, train_data, val_data, jnp.int32(steps))
            totals = {name: totals[name] + np.float32(steps) * np.asarray(metrics[name]) for name in metrics}
            step += steps
            seconds += time.perf_counter() - clock
            bar.update(steps)
            if step % steps_per_epoch == 0:
                epoch = step // steps_per_epoch - 1
                means = {name: float(total / steps_per_epoch) for name, total in totals.items()}
                if unknown := [name for name, mean in means.items() if not math.isfinite(mean)]:
                    raise ValueError(
                        f"the search diverged in epoch {epoch}, where {', '.join(unknown)} is not finite; use another "
                        "--workdir and a smaller config.weights.learning_rate"
                    )
                record = _end_epoch(problem, state, workdir, epoch, means)
                log.append(record | {"seconds": seconds})
                bar.set_postfix_str(_summary(record))
                totals, seconds = zeros, 0.0
                checkpoints.save(folder, step, (state, totals))
            if asked_to_stop() and step < total_steps:
                checkpoints.save(folder, step, (state, totals))
                raise Stopped(f"stopped at step {step} of {total_steps}; the same command goes on from there")

    genotype = problem.method.derive(problem.supernet.space, jax.device_get(state.arch))
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    reporting.write_pictures(workdir, reporting.read_records(workdir), genotype)
    return genotype


def _end_epoch(problem, state, workdir, epoch, means):
    """Saves the logits of an epoch, and makes its record."""
    logits = jax.device_get(state.arch)
    progress = problem.progress(state.step - 1)
    probabilities = jax.device_get(problem.method.activation(state.arch, progress))
    reporting.save_architecture(workdir, epoch, logits, probabilities)
    space = problem.supernet.space
    genotype = problem.method.derive(space, logits)
    return {
        "epoch": epoch,
        "step": int(state.step),
        **means,
        "activation": reporting.activation_by_group(space, probabilities),
        "skip_share": genotypes.skip_share(genotype),
        "genotype": dataclasses.asdict(genotype),
    }


def _summary(record):
    skips = record["skip_share"]
    return (
        f"loss {record['train_loss']:.3f}/{record['val_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:.1f}/{100 * record['val_accuracy']:.1f} %, "
        f"skips {100 * (skips['normal'] + skips['reduce']) / 2:.0f} %"
    )


@contextlib.contextmanager
def _stop_signals():
    """Within it SIGTERM and Ctrl-C only make the function it gives answer True; a second Ctrl-C interrupts."""
    received = []

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


def use_compilation_cache(folder: str | None) -> None:
    """Lets JAX keep compiled functions in `folder`; '' keeps none. By default in the user's cache folder, or where
    the environment (JAX_COMPILATION_CACHE_DIR) says."""
    if folder is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "prdarts_jax") if os.path.isabs(home) else ""  # relative: there is no home
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(os.path.expanduser(folder)) if folder else None)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line, and ends the program with one sentence where a field or the config's file does not
    exist."""
    try:
        for argument in argv[1:]:
            name = argument.lstrip("-").partition("=")[0]
            if name.startswith("config."):
                settings.check_field(name.removeprefix("config."))
        rest = app.parse_flags_with_usage(list(argv))
        flags.FLAGS.config.to_dict()  # a file that could not be read is reported only here
    except ValueError as error:
        sys.exit(f"error: {error}")
    except (OSError, AttributeError, KeyError) as error:
        given = next((a for a in argv if a.lstrip("-").startswith("config=")), "--config")
        reason = str(error).splitlines()[0]
        sys.exit(f"error: {given} must be a Python file with get_config(), such as configs/digits.py ({reason})")
    return rest


def main(argv: Sequence[str]) -> None:
    """Runs what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; every argument has the form --name=value")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every save in a dozen lines
    workdir = Path(flags.FLAGS.workdir).expanduser()
    use_compilation_cache(flags.FLAGS.cache_dir)
    try:
        genotype = search(flags.FLAGS.config, workdir)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except Stopped as stopped:
        print(stopped)
        sys.exit(128 + signal.SIGTERM)
    print(f"genotype: {genotypes.to_json(genotype)}\nresults in {workdir}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", help_string="A file of configs/, or one like them.")
    flags.DEFINE_string("workdir", None, "Folder of the run: created, or gone on with.")
    flags.DEFINE_string(
        "cache_dir",
        None,
        "Folder of compiled functions, by default prdarts_jax in the user's cache folder; '' keeps none.",
    )
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
