"""A search: a config in, a genotype and a folder of results out."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from prdarts_jax import checkpoints, data, genotypes, methods, reporting, settings, spaces
from prdarts_jax.bilevel import SearchProblem, SearchState, init_search, search_epoch
from prdarts_jax.jobs import loop
from prdarts_jax.jobs.optimizers import weight_optimizer
from prdarts_jax.supernet import Supernet


def make_method(config: ConfigDict) -> methods.Method:
    """The search method that `config.method` names, with the settings of its section."""
    build = {"pr_darts": methods.PRDarts, "darts": methods.Darts}[config.method]
    return build(**config[config.method])


def make_problem(config: ConfigDict, num_classes: int, total_steps: int) -> SearchProblem:
    """The search that a valid config describes."""
    logits = config.logits
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
        weight_optimizer=weight_optimizer(config.weights, total_steps),
        arch_optimizer=optax.chain(
            optax.add_decayed_weights(logits.weight_decay),
            optax.adam(logits.learning_rate, b1=logits.b1, b2=logits.b2),
        ),
        total_steps=total_steps,
    )


def run(config: ConfigDict, workdir: Path) -> genotypes.Genotype:
    """Runs a search, or the rest of it, and writes everything into `workdir`.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      loop.Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    settings.validate(config)
    # What is trained afterwards has folders and configs of its own.
    fields = {name: value for name, value in config.to_dict().items() if name != "evaluation"}
    checkpoints.check_config(workdir, fields)
    dataset = data.load(
        config.dataset, config.data_dir or None, image_size=config.image_size, num_examples=config.num_examples
    )
    settings.validate_against_data(config, dataset)
    train_data, val_data = jax.device_put(data.split_halves(dataset, config.split_seed))
    augmentation = data.Augmentation(*data.statistics(dataset), **config.augmentation)
    steps_per_epoch = len(train_data["label"]) // config.batch_size
    problem = make_problem(config, dataset.num_classes, config.epochs * steps_per_epoch)
    print(f"{len(dataset.labels)} images of {dataset.name}, {config.epochs} epochs of {steps_per_epoch} steps")

    key, images = jax.random.key(config.seed), jnp.zeros((config.batch_size, *dataset.images.shape[1:]))
    start = jax.jit(init_search, static_argnums=0)
    steps = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    arguments = (train_data, val_data, augmentation, config.batch_size, jnp.int32(1))

    def prepare(state):
        compiled = steps.lower(problem, state, *arguments).compile()
        return lambda state, _, count: compiled(state, train_data, val_data, jnp.int32(count))

    state = loop.run(
        loop.Plan(
            name="search",
            total_steps=problem.total_steps,
            steps_per_epoch=steps_per_epoch,
            steps_per_call=config.steps_per_call,
            shapes=steps.eval_shape(problem, start.eval_shape(problem, key, images), *arguments),
            start=lambda: start(problem, key, images),
            prepare=prepare,
            end_epoch=lambda state, epoch, means: _end_epoch(problem, state, workdir, epoch, means),
            summary=_summary,
        ),
        fields,
        workdir,
    )
    genotype = problem.method.derive(problem.supernet.space, jax.device_get(state.arch))
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    reporting.write_pictures(workdir, reporting.read_records(workdir), genotype)
    return genotype


def _end_epoch(
    problem: SearchProblem, state: SearchState, workdir: Path, epoch: int, means: dict[str, float]
) -> dict[str, Any]:
    """Saves the logits of an epoch, and makes its record."""
    logits = jax.device_get(state.arch)
    probabilities = jax.device_get(problem.method.activation(state.arch, problem.progress(state.step - 1)))
    reporting.save_architecture(workdir, epoch, logits, probabilities)
    space = problem.supernet.space
    genotype = problem.method.derive(space, logits)
    return {
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
