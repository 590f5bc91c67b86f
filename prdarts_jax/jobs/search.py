"""A search: a config in, a genotype and a folder of results out.

A method of several stages (P-DARTS) leaves those before the last in folders stage_1, stage_2, ... of its own.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from prdarts_jax import checkpoints, data, diagnostics, gates, genotypes, methods, reporting, settings, spaces, tabular
from prdarts_jax.bilevel import SearchProblem, SearchState, hessian_eigenvalue, init_search, search_epoch, select
from prdarts_jax.jobs import loop
from prdarts_jax.jobs.optimizers import weight_optimizer
from prdarts_jax.loops import Batch
from prdarts_jax.nas_bench_201 import Supernet201
from prdarts_jax.supernet import Supernet


def make_method(config: ConfigDict) -> methods.Method:
    """The search method that `config.method` names, with the settings of its section."""
    build = methods.NAMED[config.method]
    fields = config[config.method].to_dict()
    if "space" in {field.name for field in dataclasses.fields(build)}:
        fields["space"] = spaces.named(config.space)
    return build(**fields)


def make_supernet(config: ConfigDict, stage: methods.Stage, num_classes: int) -> nn.Module:
    """The supernet of the config's space, as a stage of the method needs it."""
    space = spaces.named(config.space)
    fields = {name: config[name] for name in ("channels", "remat", "running_statistics")}
    fields |= {
        "space": space,
        "cells": stage.cells or config.cells,
        "num_classes": num_classes,
        "dtype": jnp.dtype(config.dtype),
        "dropout": stage.method.dropout,
        "partial": stage.method.partial,
    }
    if space.inputs == 1:
        return Supernet201(**fields)
    return Supernet(**fields, pool_norm=config.pool_norm, head_norm=config.head_norm)


def make_problem(
    config: ConfigDict, num_classes: int, total_steps: int, stage: methods.Stage | None = None
) -> SearchProblem:
    """The search that a valid config describes, or one stage of it; by default the first."""
    stage, logits = stage or make_method(config).stages()[0], config.logits
    return SearchProblem(
        supernet=make_supernet(config, stage, num_classes),
        method=stage.method,
        weight_optimizer=weight_optimizer(config.weights, total_steps),
        arch_optimizer=optax.chain(
            optax.add_decayed_weights(logits.weight_decay),
            optax.adam(logits.learning_rate, b1=logits.b1, b2=logits.b2),
        ),
        total_steps=total_steps,
    )


class _Search(NamedTuple):
    """What all stages have in common, and where the results of this one go."""

    config: ConfigDict
    fields: dict[str, Any]
    workdir: Path
    num_classes: int
    train_data: Batch
    val_data: Batch
    augmentation: data.Augmentation
    table: tabular.Table | None


def run(config: ConfigDict, workdir: Path) -> genotypes.AnyGenotype:
    """Runs a search, or the rest of it, and writes everything into `workdir`.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      loop.Stopped: after SIGTERM or Ctrl-C; may be called from the main thread only, which receives them.
    """
    settings.validate(config)
    # What is trained afterwards has folders and configs of its own.
    fields = {name: value for name, value in config.to_dict().items() if name != "evaluation"}
    stages = make_method(config).stages()
    folders = [*(workdir / f"stage_{i}" for i in range(1, len(stages))), workdir]
    for folder in folders:
        checkpoints.check_config(folder, fields)
    table = tabular.load(config.table) if config.table else None
    dataset = data.load(
        config.dataset, config.data_dir or None, image_size=config.image_size, num_examples=config.num_examples
    )
    settings.validate_against_data(config, dataset)
    train_data, val_data = jax.device_put(data.split_halves(dataset, config.split_seed))
    augmentation = data.Augmentation(*data.statistics(dataset), **config.augmentation)
    print(f"{len(dataset.labels)} images of {dataset.name}")

    candidates = None
    for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        if len(stages) > 1:
            print(f"stage {number + 1} of {len(stages)}")
        key = jax.random.fold_in(jax.random.key(config.seed), number) if number else jax.random.key(config.seed)
        search = _Search(config, fields, folder, dataset.num_classes, train_data, val_data, augmentation, table)
        if candidates is not None:
            candidates = {t: gates.largest(logits, stage.ops) & np.isfinite(logits) for t, logits in candidates.items()}
        problem, logits = _run_stage(search, stage, key, candidates)
        candidates = {t: logits[t] for t in problem.supernet.space.cell_types}
    genotype = problem.method.derive(problem.supernet.space, logits)
    reporting.write_json(workdir / "genotype.json", dataclasses.asdict(genotype))
    reporting.write_pictures(workdir, reporting.read_records(workdir), genotype)
    return genotype


def _run_stage(search, stage, key, candidates):
    """(problem, logits at the end) of one stage."""
    config, workdir, train_data, val_data = search.config, search.workdir, search.train_data, search.val_data
    steps_per_epoch = len(train_data["label"]) // config.batch_size
    problem = make_problem(config, search.num_classes, config.epochs * steps_per_epoch, stage)
    print(f"{config.epochs} epochs of {steps_per_epoch} steps")

    images = jnp.zeros((config.batch_size, *train_data["image"].shape[1:]))
    start = jax.jit(init_search, static_argnums=0)
    steps = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    arguments = (train_data, val_data, search.augmentation, config.batch_size, jnp.int32(1))

    def prepare(state):
        compiled = steps.lower(problem, state, *arguments).compile()
        return lambda state, _, count: compiled(state, train_data, val_data, jnp.int32(count))

    def stop_epoch(records):
        return problem.method.stops([record.get("eigenvalue", np.nan) for record in records])

    state = loop.run(
        loop.Plan(
            name="search",
            total_steps=problem.total_steps,
            steps_per_epoch=steps_per_epoch,
            steps_per_call=config.steps_per_call,
            shapes=steps.eval_shape(problem, start.eval_shape(problem, key, images, candidates), *arguments),
            start=lambda: start(problem, key, images, candidates),
            prepare=prepare,
            end_epoch=_epoch_end(search, problem),
            summary=_summary,
            ended=lambda records: stop_epoch(records) is not None,
        ),
        search.fields,
        workdir,
    )
    epoch = stop_epoch(reporting.read_records(workdir))
    if epoch is None:
        return problem, jax.device_get(state.arch)
    print(f"stopped early: the logits of epoch {epoch} count")
    return problem, reporting.read_logits(workdir, epoch)


def _epoch_end(search, problem):
    """The function that takes the diagnostics of an epoch, saves its logits and makes its record."""
    method, space, val_data = problem.method, problem.supernet.space, search.val_data
    batch_size = search.config.batch_size
    plain = dataclasses.replace(search.augmentation, pad=0, flip=False, cutout=0)
    eigenvalue = jax.jit(functools.partial(hessian_eigenvalue, problem))
    choose = jax.jit(functools.partial(select, problem))

    def batches():
        """Four batches of validation images as they are, the same in each epoch: f32[4, batch_size, H, W, C]."""
        places = np.arange(4 * batch_size) % len(val_data["label"])
        image = data.augment(plain, jax.random.key(0), val_data["image"][places])
        shape = (4, batch_size)
        return {"image": image.reshape(*shape, *image.shape[1:]), "label": val_data["label"][places].reshape(shape)}

    def end_epoch(state: SearchState, epoch: int, means: dict[str, float]) -> tuple[SearchState, dict[str, Any]]:
        record: dict[str, Any] = dict(means)
        if search.config.hessian or method.tracks_eigenvalue:
            record["eigenvalue"] = float(eigenvalue(state, batches()))
        if method.samples:
            state = choose(state, batches())
        logits = jax.device_get(state.arch)
        probabilities = jax.device_get(method.activation(state.arch, problem.progress(state.step - 1)))
        reporting.save_architecture(search.workdir, epoch, logits, probabilities)
        genotype = method.derive(space, logits)
        record |= {
            "activation": reporting.activation_by_group(space, probabilities),
            "entropy": diagnostics.entropy(probabilities),
            "skip_share": genotypes.skip_share(genotype),
            "depth": genotypes.depth(genotype),
            "genotype": dataclasses.asdict(genotype),
        }
        if search.table:
            record["benchmark"] = {
                "accuracy": search.table.accuracy(genotype),
                "rank": search.table.rank(genotype),
                "percentile": search.table.percentile(genotype),
            }
        return state, record

    return end_epoch


def _summary(record):
    shares = list(record["skip_share"].values())
    text = (
        f"loss {record['train_loss']:.3f}/{record['val_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:.1f}/{100 * record['val_accuracy']:.1f} %, "
        f"skips {100 * sum(shares) / len(shares):.0f} %"
    )
    return text + (f", cell {record['benchmark']['accuracy']:.2f} %" if "benchmark" in record else "")
