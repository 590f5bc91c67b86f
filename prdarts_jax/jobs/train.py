"""Training a genotype's network from scratch, and its test: a config in, a folder of results out.

Beside what every run leaves (config.json, metrics.jsonl, tensorboard/, checkpoints/) the folder holds result.json (the
test's accuracies, those of each class, the confusion matrix, the size of the network), genotype.json, curves.png,
confusion.png and classifier.stablehlo, the trained network for `jax.export.deserialize`.
"""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from prdarts_jax import checkpoints, genotypes, networks, reporting, settings, torch_weights, training
from prdarts_jax.jobs import loop
from prdarts_jax.jobs.feeds import Feed, open_feed
from prdarts_jax.jobs.optimizers import weight_optimizer


def make_problem(
    config: ConfigDict, genotype: genotypes.Genotype, num_classes: int, steps_per_epoch: int
) -> training.TrainProblem:
    """The training that a valid config describes; a step takes batch_size / accumulate images."""
    total_steps = config.epochs * steps_per_epoch
    optimizer = weight_optimizer(
        config.weights,
        total_steps // config.accumulate,
        config.weights.schedule,
        config.weights.warmup_epochs * steps_per_epoch // config.accumulate,
    )
    if config.accumulate > 1:
        optimizer = optax.MultiSteps(optimizer, config.accumulate).gradient_transformation()
    return training.TrainProblem(
        network=networks.network(
            genotype,
            form=config.form,
            channels=config.channels,
            cells=config.cells,
            num_classes=num_classes,
            auxiliary=config.auxiliary_weight > 0,
            dtype=jnp.dtype(config.dtype),
        ),
        optimizer=optimizer,
        total_steps=total_steps,
        drop_path=config.drop_path,
        auxiliary_weight=config.auxiliary_weight,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
    )


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains and tests a network, or does the rest of it, and writes everything into `workdir`.

    Returns:
      What result.json holds.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      loop.Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    settings.validate(config)
    genotype = genotypes.find(config.genotype)
    # Its text, so that a run is not gone on with after the file it came from has changed.
    fields = config.to_dict() | {"genotype": genotypes.to_json(genotype)}
    checkpoints.check_config(workdir, fields)
    feed = open_feed(config)
    steps_per_epoch = feed.images // (config.batch_size // config.accumulate)
    problem = make_problem(config, genotype, feed.num_classes, steps_per_epoch)
    image_shape = (config.batch_size // config.accumulate, *feed.image_shape)
    imported = _imported(config, problem.network, genotype)
    key_params, key_training = jax.random.split(jax.random.key(config.seed))
    size = networks.describe(genotype, config.form, config.channels, config.cells, feed.num_classes, feed.image_shape)
    print(
        f"{feed.images} images of {feed.name}, {config.epochs} epochs of {steps_per_epoch} steps; "
        f"{size['params']:,} weights, {size['macs']:,} multiply-adds an image"
    )

    def start():
        variables = imported or networks.init_variables(problem.network, key_params, image_shape)
        return training.init_training(problem, key_training, variables)

    def test(state):
        return _test(problem, feed, state)

    def end_epoch(state, epoch, means):
        result = test(state)
        return {**means, "test_loss": result["loss"], "test_accuracy": result["top1"]}

    shapes = jax.eval_shape(start)
    batch = {
        "image": jax.ShapeDtypeStruct(image_shape, jnp.float32),
        "label": jax.ShapeDtypeStruct(image_shape[:1], jnp.int32),
    }
    step = jax.jit(training.train_step, static_argnums=0)
    state = loop.run(
        loop.Plan(
            name="training",
            total_steps=problem.total_steps,
            steps_per_epoch=steps_per_epoch,
            steps_per_call=config.steps_per_call,
            shapes=step.eval_shape(problem, shapes, batch),
            start=start,
            prepare=lambda state: feed.prepare(problem, state),
            end_epoch=end_epoch,
            summary=_summary,
        ),
        fields,
        workdir,
    )
    result = test(state) | size
    _write(workdir, config, genotype, problem, feed, state, result)
    return result


def _imported(config, network, genotype):
    """The variables of config.torch_checkpoint, or None."""
    if not config.torch_checkpoint:
        return None
    shape = (config.form, config.channels, config.cells, network.num_classes)
    variables = torch_weights.load(config.torch_checkpoint, genotype, *shape)
    has_head, wants_head = "auxiliary_head" in variables["params"], network.auxiliary
    if wants_head and not has_head and config.epochs:
        raise ValueError(
            f"config.auxiliary_weight={config.auxiliary_weight} must be 0, since config.torch_checkpoint="
            f"{config.torch_checkpoint!r} has no auxiliary head"
        )
    if has_head and not wants_head:
        variables = {name: {k: v for k, v in tree.items() if k != "auxiliary_head"} for name, tree in variables.items()}
    return jax.tree.map(jnp.asarray, variables)


_test_step = jax.jit(training.test_step, static_argnums=(0, 1))


def _test(problem: training.TrainProblem, feed: Feed, state: training.TrainState) -> dict[str, Any]:
    counts = (
        jax.device_get(_test_step(problem.network, feed.augmentation, state.variables, batch))
        for batch in feed.test_batches()
    )
    return training.summarize(functools.reduce(functools.partial(jax.tree.map, operator.add), counts))


def _summary(record):
    return (
        f"loss {record['train_loss']:.3f}/{record['test_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:.1f}/{100 * record['test_accuracy']:.1f} %"
    )


def _write(workdir, config, genotype, problem, feed, state, result):
    reporting.write_json(workdir / "result.json", result)
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    reporting.write_training_pictures(workdir, reporting.read_records(workdir), result)
    exported = training.export_classifier(problem.network, feed.augmentation, state.variables, feed.image_shape)
    reporting.write_bytes(workdir / "classifier.stablehlo", exported)
