"""Training a genotype's network from scratch, and its test: a config in, a folder of results out.

Beside what every run leaves (config.json, metrics.jsonl, tensorboard/, checkpoints/) the folder holds result.json (the
test's accuracies, those of each class, the confusion matrix, the size of the network), genotype.json, curves.png,
confusion.png and classifier.stablehlo, the trained network for `jax.export.deserialize`.
"""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.run import checkpoints, loop, reporting, settings
from prdarts_jax.run.feeds import Feed, open_feed
from prdarts_jax.run.optimizers import in_pieces, weight_optimizer
from prdarts_jax.spaces import genotypes


def make_problem(
    config: ConfigDict,
    genotype: genotypes.Genotype,
    num_classes: int,
    steps_per_epoch: int,
    axis_name: str | None = None,
) -> training.TrainProblem:
    """The training that a valid config describes; for `axis_name` see `devices.py`.

    A step takes batch_size / accumulate images; what is left over of the steps by accumulate moves no weights.
    """
    total_steps = config.epochs * steps_per_epoch
    optimizer = weight_optimizer(
        config.weights,
        total_steps // config.accumulate,
        config.weights.schedule,
        config.weights.warmup_epochs * steps_per_epoch // config.accumulate,
    )
    return training.TrainProblem(
        network=discrete.network(
            genotype,
            form=config.form,
            channels=config.channels,
            cells=config.cells,
            num_classes=num_classes,
            auxiliary=config.auxiliary_weight > 0 and config.epochs > 0,
            dtype=jnp.dtype(config.dtype),
            axis_name=axis_name,
        ),
        optimizer=in_pieces(optimizer, config.accumulate),
        total_steps=total_steps,
        drop_path=config.drop_path,
        auxiliary_weight=config.auxiliary_weight,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
    )


class Training(NamedTuple):
    """A training that can be run.

    Attributes:
      genotype: what is trained.
      feed: its data.
      problem: see `make_problem`.
      shapes: of its state.
    """

    genotype: genotypes.Genotype
    feed: Feed
    problem: training.TrainProblem
    shapes: training.TrainState


def check(config: ConfigDict, section: str = "") -> Training:
    """Opens what a config needs and builds what it describes, without running anything.

    Args:
      config: of the training.
      section: of the user's config that it was made of, as 'evaluation.', for messages.

    Raises:
      ValueError, OSError: for what cannot be used, in one sentence.
    """
    settings.validate(config)
    genotype = genotypes.find(config.genotype)
    if not isinstance(genotype, genotypes.Genotype):
        raise ValueError(
            f"config.genotype={config.genotype!r} must have normal and reduction cells; the accuracies of "
            "NAS-Bench-201's cells are in its table"
        )
    mesh = devices.make_mesh()
    fields = f"config.{section}batch_size / config.{section}accumulate"
    devices.check_divides(config.batch_size // config.accumulate, mesh, fields)
    feed = open_feed(config, mesh)
    if config.torch_checkpoint and feed.image_shape[-1] != 3:
        raise ValueError(
            f"config.torch_checkpoint={config.torch_checkpoint!r} needs images of three channels, but those of "
            f"config.dataset={config.dataset!r} have {feed.image_shape[-1]}"
        )
    problem = make_problem(config, genotype, feed.num_classes, feed.steps_per_epoch, devices.axis_of(mesh))

    def start(key):
        return training.init_training(problem, key, discrete.init_variables(problem.network, key, feed.image_shape))

    try:
        shapes = jax.eval_shape(start, jax.random.key(0))
    except ValueError as error:
        raise ValueError(f"config.auxiliary_weight={config.auxiliary_weight} must be 0 here: {error}") from error
    return Training(genotype, feed, problem, shapes)


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains and tests a network, or does the rest of it, and writes everything into `workdir`.

    Returns:
      What result.json holds.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      ImportError: a checkpoint of PyTorch is given, and PyTorch is missing.
      loop.Diverged: a metric of the training is not finite.
      loop.Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    genotype, feed, problem, shapes = check(config)
    # The genotype's text, so that a run is not gone on with after the file it came from has changed.
    fields = config.to_dict() | {"genotype": genotypes.to_json(genotype)}
    checkpoints.check_config(workdir, fields)
    network = (config.form, config.channels, config.cells, feed.num_classes)
    size = discrete.describe(genotype, *network, image_shape=feed.image_shape[1:])
    reporting.say(
        f"{feed.name}, {config.epochs} epochs of {feed.steps_per_epoch} steps; "
        f"{size['params']:,} weights, {size['macs']:,} multiply-adds an image"
    )

    def start():
        key_params, key_training = jax.random.split(jax.random.key(config.seed))
        if config.torch_checkpoint:
            head = problem.network.auxiliary
            variables = torch_weights.load(config.torch_checkpoint, genotype, *network, auxiliary=head)
        else:
            variables = discrete.init_variables(problem.network, key_params, feed.image_shape)
        return training.init_training(problem, key_training, variables)

    def end_epoch(state, _, means):
        result = _test(problem, feed, state)
        return state, [{**means[0], "test_loss": result["loss"], "test_accuracy": result["top1"]}]

    state = loop.run(
        loop.Plan(
            name="training",
            total_steps=problem.total_steps,
            steps_per_epoch=feed.steps_per_epoch,
            steps_per_call=config.steps_per_call,
            folders=(workdir,),
            shapes=(shapes, dict.fromkeys(("train_loss", "train_accuracy"), jax.ShapeDtypeStruct((), jnp.float32))),
            start=start,
            place=feed.place,
            prepare=lambda state: feed.prepare(problem, state),
            end_epoch=end_epoch,
            summary=_summary,
        ),
        fields,
        workdir,
    )
    result = _test(problem, feed, state) | size
    reporting.write_json(workdir / "result.json", result)
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    reporting.write_training_pictures(workdir, reporting.read_records(workdir), result)
    exported = training.export_classifier(problem.network, feed.augmentation, state.variables, feed.image_shape[1:])
    reporting.write_bytes(workdir / "classifier.stablehlo", exported)
    return result


_test_step = jax.jit(training.test_step, static_argnums=(0, 1))


def _test(problem: training.TrainProblem, feed: Feed, state: training.TrainState) -> dict[str, Any]:
    counts = (
        devices.fetch(_test_step(problem.network, feed.augmentation, state.variables, batch))
        for batch in feed.test_batches()
    )
    return training.summarize(functools.reduce(functools.partial(jax.tree.map, operator.add), counts))


def _summary(records):
    (record,) = records
    return (
        f"loss {record['train_loss']:.3f}/{record['test_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:.1f}/{100 * record['test_accuracy']:.1f} %"
    )
