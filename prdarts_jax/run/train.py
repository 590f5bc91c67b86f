"""The job of a training: it reads a config, trains a genotype's network from scratch, tests it, and writes the results.

The folder has the files of every run (config.json, metrics.jsonl, tensorboard/, checkpoints/), result.json (test
accuracies, also of each class, the confusion matrix, the size of the network), genotype.json, curves.png,
confusion.png, report.html, and the files that `finished.py` writes so that the network can be used.
"""

import dataclasses
import functools
import math
import operator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from prdarts_jax import devices, refusals
from prdarts_jax.data.source import DataSet
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, sizes, torch_weights
from prdarts_jax.run import (
    checkpoints,
    finished,
    lock,
    loop,
    own_code,
    pictures,
    problems,
    report,
    reporting,
    run_log,
    validation,
)
from prdarts_jax.run.feeds import Feed, find_data, identity, is_streamed, open_feed
from prdarts_jax.spaces import genotypes


class Training(NamedTuple):
    """A training whose config has been checked; see `check`.

    Attributes:
      genotype: of the network.
      feed: the images.
      problem: see `problems.make_train_problem`.
      shapes: `jax.eval_shape` of the training state.
      weights: variables to start from, of a PyTorch checkpoint or of a finished training, as nested dicts; variables
        that they lack are initialised at random.
      identity: fields of config.json beside the config: `feeds.identity`, `own_code.field`, and a fingerprint of
        `weights` if there are any.
    """

    genotype: genotypes.AnyGenotype
    feed: Feed
    problem: training.TrainProblem
    shapes: training.TrainState
    weights: dict[str, Any]
    identity: dict[str, Any]


def check(config: ConfigDict, data: DataSet | None = None) -> Training:
    """Opens the data and builds everything that a training's config describes, without running anything.

    Args:
      config: of the training.
      data: the images; by default those that the config names.

    Raises:
      ValueError, OSError: the config, the data or a checkpoint cannot be used; the message is one sentence.
      ImportError: a PyTorch checkpoint is given, and PyTorch is missing.
    """
    validation.validate(config, "train")
    genotype = genotypes.find(config.genotype)
    mesh = devices.make_mesh()
    devices.check_divides(config.batch_size // config.accumulate, mesh, "config.batch_size / config.accumulate")
    data = find_data(config, data)
    weights = _imported_weights(config, genotype, data) if config.torch_checkpoint else {}
    before = _finished(config.init_from) if config.init_from else None
    feed = open_feed(config, mesh, data)
    axis_name = devices.axis_of(mesh)
    network = problems.make_network(config, genotype, feed.num_classes, axis_name)
    problem = problems.make_train_problem(config, network, feed.steps_per_epoch)
    if before:
        weights = _fitting_weights(f"config.init_from={refusals.shown(config.init_from)}", before, network, feed)

    def start(key):
        return training.init_training(problem, key, discrete.init_variables(problem.network, key, feed.image_shape))

    try:
        shapes = jax.eval_shape(start, jax.random.key(0))
    except ValueError as error:
        raise ValueError(f"config.auxiliary_weight={config.auxiliary_weight} must be 0 here: {error}") from error
    starting = {"starting_weights": checkpoints.fingerprint(weights)} if weights else {}
    used = [op for entries in genotypes.cells(genotype).values() for op, _, _ in entries]
    return Training(genotype, feed, problem, shapes, weights, identity(data) | starting | own_code.field(used))


def _imported_weights(config: ConfigDict, genotype: genotypes.AnyGenotype, data: DataSet) -> dict[str, Any]:
    """The weights of the PyTorch checkpoint, which is read before the images, since reading these may take minutes."""
    source = data.open("train")
    network = problems.make_network(config, genotype, source.num_classes)
    return torch_weights.load(config.torch_checkpoint, network, 3 if is_streamed(config, data) else source.shape[-1])


def _finished(workdir: str) -> finished.Trained:
    before = finished.load(workdir)
    if not isinstance(before, finished.Trained):
        raise ValueError(
            f"config.init_from={refusals.shown(workdir)} must be the folder of a training, but is that of a search, "
            "whose genotype.json config.genotype may name"
        )
    return before


def _fitting_weights(field: str, before: finished.Trained, network: Any, feed: Feed) -> dict[str, Any]:
    """The weights of a finished training that a network starts from: all but those of the classifiers if it has another
    number of classes, and those of an auxiliary head that it lacks.

    Raises:
      ValueError: the networks differ in something else; `field` names the finished training in the message.
    """
    there: Any = before.network
    own = ("num_classes", "auxiliary", "dtype", "axis_name", "parent", "name")
    for name in (f.name for f in dataclasses.fields(network) if f.name not in own):
        here, expected = getattr(network, name), getattr(there, name, None)
        if here != expected:
            raise ValueError(
                f"config.{name} must be {refusals.shown(expected)}, as in {field}, but is {refusals.shown(here)}"
            )
    if before.image_shape[-1] != feed.image_shape[-1]:
        channels = f"{before.image_shape[-1]} channels"
        raise ValueError(f"{field} was trained on images of {channels}, but those of {feed.name} have others")
    auxiliary = getattr(network, "auxiliary", False)
    if auxiliary and not there.auxiliary:
        raise ValueError(f"config.auxiliary_weight must be 0 with {field}, whose network has no auxiliary head")
    weights = flatten_dict(before.variables)
    if not auxiliary:
        weights = {path: array for path, array in weights.items() if "auxiliary_head" not in path}
    if network.num_classes != there.num_classes:
        weights = {path: array for path, array in weights.items() if "classifier" not in path}
    return unflatten_dict(weights)


def _free(config: ConfigDict) -> tuple[str, ...]:
    """The fields that may change when a training is resumed: the number of epochs, if no step depends on it."""
    constant = config.weights.end_learning_rate == config.weights.learning_rate and not config.drop_path
    return ("epochs",) if constant else ()


@lock.alone
def run(config: ConfigDict, workdir: Path, data: DataSet | None = None) -> dict[str, Any]:
    """Trains and tests a network, or resumes this, and writes everything into `workdir`.

    Call it from the main thread, which receives SIGTERM and Ctrl-C.

    Args:
      config: of the training.
      workdir: created or resumed.
      data: your own images, for instance from `data.from_arrays`; by default those that the config names.

    Returns:
      The content of result.json: that of `training.summarize` and of `sizes.describe`.

    Raises:
      ValueError, OSError: the config, the workdir or the data cannot be used; the message is one sentence.
      ImportError: a PyTorch checkpoint is given, and PyTorch is missing.
      loop.Diverged: a metric, the state or the test loss is not finite.
      loop.Stopped: the run has received SIGTERM or Ctrl-C and saved its state.
    """
    genotype, feed, problem, shapes, weights, of_images = check(config, data=data)
    # The genotype as text, so that a run is not resumed after the file of its genotype has changed.
    fields = config.to_dict() | {"genotype": genotypes.to_json(genotype)} | of_images
    longer = f"; a longer training is another, with --config.init_from={workdir} once this one has ended"
    checkpoints.check_config(workdir, fields, _free(config), longer)
    before = (checkpoints.read_config(workdir) or fields).get("epochs")
    network = (config.form, config.channels, config.cells, feed.num_classes)
    size = sizes.describe(genotype, *network, image_shape=feed.image_shape[1:])
    reporting.say(feed.description)
    reporting.say(
        f"{feed.name}, {config.epochs} epochs of {feed.steps_per_epoch} steps; "
        f"{size['params']:,} weights, {size['macs']:,} multiply-adds per image"
    )

    metric_shapes = dict.fromkeys(("train_loss", "train_accuracy"), jax.ShapeDtypeStruct((), jnp.float32))
    with loop.Run(
        "training",
        workdir,
        fields,
        folders=[workdir],
        total_steps=problem.total_steps,
        steps_per_epoch=feed.steps_per_epoch,
        steps_per_call=config.steps_per_call,
        free=_free(config),
    ) as run:
        state = run.restore(shapes, metric_shapes) or _start(config, feed, problem, weights)
        state = devices.device_put(state, feed.mesh)
        if before != config.epochs:
            constant = "no step depends on their number, since learning rate and drop-path stay the same"
            reporting.say(f"the training of {before} epochs now has {config.epochs}: {constant}")
        if not run.done:
            if devices.is_main():  # a training that is resumed is not a finished one
                (workdir / "result.json").unlink(missing_ok=True)
            compiled = loop.compiled(feed.function(problem), state, *feed.example())
        for steps, calls in feed.calls(run):
            found = []
            for arguments in calls:
                state, metrics = compiled(state, *arguments)
                found.append(metrics)
            run.add(steps, *found)
            if run.epoch_ended:
                (means,) = run.means().values()
                test = _test(problem, feed, state)
                record = {**means, "test_loss": test["loss"], "test_accuracy": test["top1"]}
                run.record({0: record}, _summary(record))
            run.save_if_due(state)
        if not problem.total_steps:
            run.save_if_due(state)
    if not problem.total_steps:
        reporting.say("testing the weights as they are")
    result = _test(problem, feed, state) | size
    if not math.isfinite(result["loss"]):
        raise loop.Diverged(f"the test loss of the weights is not finite, so {workdir} gets no result")
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    pictures.write_training(workdir, run_log.read_records(workdir), result)
    classes = feed.classes or tuple(map(str, range(feed.num_classes)))
    variables = devices.device_get(state.variables)
    finished.write(workdir, problem.network, variables, feed.augmentation, feed.image_shape[1:], feed.cropped, classes)
    reporting.write_json(workdir / "result.json", result)
    report.write(config, workdir)
    return result


def _start(
    config: ConfigDict, feed: Feed, problem: training.TrainProblem, weights: dict[str, Any]
) -> training.TrainState:
    """The state at step 0."""
    key_params, key_training = jax.random.split(jax.random.key(config.seed))
    drawn = discrete.init_variables(problem.network, key_params, feed.image_shape)
    if config.init_from:
        new = "epochs, learning rate and momentum"
        if "classifier" not in weights["params"]:
            new += f", and a classifier of {feed.num_classes} classes"
        reporting.say(f"starts from the weights of {config.init_from}, but with new {new}")
    variables = unflatten_dict(flatten_dict(drawn) | flatten_dict(weights))
    return training.init_training(problem, key_training, variables)


_test_step = jax.jit(training.test_step, static_argnums=(0, 1))


def _test(problem: training.TrainProblem, feed: Feed, state: training.TrainState) -> dict[str, Any]:
    counts = (
        devices.device_get(_test_step(problem.network, feed.augmentation, state.variables, batch))
        for batch in feed.test_batches()
    )
    return training.summarize(functools.reduce(functools.partial(jax.tree.map, operator.add), counts))


def _summary(record: loop.Record) -> str:
    return (
        f"loss {record['train_loss']:.3f}/{record['test_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:.1f}/{100 * record['test_accuracy']:.1f} %"
    )
