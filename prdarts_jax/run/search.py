"""A search, or one of each of several seeds: a config in, a genotype and a folder of results out.

A method of several stages (P-DARTS) leaves those before the last in folders stage_1, stage_2, ... of its own. Several
seeds are searched at once and have folders seed_0, seed_1, ... of their own.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from prdarts_jax import devices, spaces
from prdarts_jax.data import sources
from prdarts_jax.data.epochs import Batch
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.run import checkpoints, loop, reporting, settings
from prdarts_jax.run.optimizers import in_pieces, weight_optimizer
from prdarts_jax.search import diagnostics, gates, methods
from prdarts_jax.search.step import SearchProblem, SearchState, hessian_eigenvalue, init_search, search_epoch, select
from prdarts_jax.spaces import genotypes, tabular


def make_method(config: ConfigDict) -> methods.Method:
    """The search method that `config.method` names, with the settings of its section."""
    build = methods.NAMED[config.method]
    fields = config[config.method].to_dict()
    if "space" in {field.name for field in dataclasses.fields(build)}:
        fields["space"] = spaces.named(config.space)
    return build(**fields)


def make_supernet(
    config: ConfigDict, stage: methods.Stage, num_classes: int, axis_name: str | None = None
) -> nn.Module:
    """The supernet of the config's space, as a stage of the method needs it; for `axis_name` see `devices.py`."""
    space = spaces.named(config.space)
    fields = {name: config[name] for name in ("channels", "remat", "running_statistics")}
    fields |= {
        "space": space,
        "cells": stage.cells or config.cells,
        "num_classes": num_classes,
        "dtype": jnp.dtype(config.dtype),
        "dropout": stage.method.dropout,
        "partial": stage.method.partial,
        "axis_name": axis_name,
    }
    if space.inputs == 1:
        return Supernet201(**fields)
    return Supernet(**fields, pool_norm=config.pool_norm, head_norm=config.head_norm)


def make_problem(
    config: ConfigDict,
    num_classes: int,
    total_steps: int,
    stage: methods.Stage | None = None,
    axis_name: str | None = None,
) -> SearchProblem:
    """The search that a valid config describes, or one stage of it, by default the first; for `axis_name` see
    `devices.py`.

    A step takes batch_size / accumulate images of each half, and draws gates of its own.
    """
    stage, logits, pieces = stage or make_method(config).stages()[0], config.logits, config.accumulate
    arch_optimizer = optax.chain(
        optax.add_decayed_weights(logits.weight_decay),
        optax.adam(logits.learning_rate, b1=logits.b1, b2=logits.b2),
    )
    return SearchProblem(
        supernet=make_supernet(config, stage, num_classes, axis_name),
        method=stage.method,
        weight_optimizer=in_pieces(weight_optimizer(config.weights, total_steps // pieces), pieces),
        arch_optimizer=in_pieces(arch_optimizer, pieces),
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
    augmentation: sources.Augmentation
    table: tabular.Table | None
    mesh: Mesh

    @property
    def folders(self) -> list[Path]:
        """Of each seed."""
        return seed_folders(self.config, self.workdir)


def seed_folders(config: ConfigDict, workdir: Path) -> list[Path]:
    """Where the results of each seed go: `workdir` itself if there is one seed."""
    if config.seeds == 1:
        return [workdir]
    return [workdir / f"seed_{seed}" for seed in range(config.seed, config.seed + config.seeds)]


def run(config: ConfigDict, workdir: Path) -> list[genotypes.AnyGenotype]:
    """Runs a search of each seed, or the rest of it, and writes everything into `workdir`.

    Returns:
      The genotype that each seed has found.

    Raises:
      ValueError, OSError: for a config, a workdir or data that cannot be used, in one sentence.
      loop.Diverged: a metric of a search is not finite.
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
    dataset = sources.load(
        config.dataset, config.data_dir or None, image_size=config.image_size, num_examples=config.num_examples
    )
    settings.validate_against_data(config, dataset)
    mesh = devices.make_mesh(config.seeds)
    devices.check_divides(config.batch_size // config.accumulate, mesh, "config.batch_size / config.accumulate")
    train_data, val_data = devices.put(sources.split_halves(dataset, config.split_seed), mesh)
    augmentation = sources.Augmentation(*sources.statistics(dataset), **config.augmentation)
    reporting.say(f"{len(dataset.labels)} images of {dataset.name}")

    keys = jnp.stack([jax.random.key(config.seed + number) for number in range(config.seeds)])
    at_end: dict[str, jax.Array] = {}  # logits of the stage before, f32[seeds, edges, ops]
    for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        if len(stages) > 1:
            reporting.say(f"stage {number + 1} of {len(stages)}")
        stage_keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys) if number else keys
        search = _Search(config, fields, folder, dataset.num_classes, train_data, val_data, augmentation, table, mesh)
        candidates = {t: gates.largest(logits, stage.ops) & np.isfinite(logits) for t, logits in at_end.items()}
        problem, found = _run_stage(search, stage, stage_keys, candidates or None)
        at_end = {t: jnp.stack([logits[t] for logits in found]) for t in problem.supernet.space.cell_types}
    derived = [problem.method.derive(problem.supernet.space, logits) for logits in found]
    for folder, genotype in zip(seed_folders(config, workdir), derived, strict=True):
        reporting.write_json(folder / "genotype.json", dataclasses.asdict(genotype))
        reporting.write_pictures(folder, reporting.read_records(folder), genotype)
    return derived


def _run_stage(search, stage, keys, candidates):
    """(problem, logits at the end of each seed) of one stage."""
    config, workdir, train_data, val_data = search.config, search.workdir, search.train_data, search.val_data
    batch_size = config.batch_size // config.accumulate
    steps_per_epoch = len(train_data["label"]) // batch_size
    axis_name = devices.axis_of(search.mesh)
    problem = make_problem(config, search.num_classes, config.epochs * steps_per_epoch, stage, axis_name)
    reporting.say(f"{config.epochs} epochs of {steps_per_epoch} steps")
    images = jnp.zeros((batch_size, *train_data["image"].shape[1:]))

    # Seeds on one device come one after another: side by side (vmap) all ops would be executed, gates or not.
    @jax.jit
    def start(keys, candidates):
        return jax.lax.map(lambda of_seed: init_search(problem, of_seed[0], images, of_seed[1]), (keys, candidates))

    def epochs(states, train_data, val_data, steps):
        def of_seed(state):
            return search_epoch(problem, state, train_data, val_data, search.augmentation, batch_size, steps)

        return jax.lax.map(of_seed, states)

    specs = (devices.SEEDS, devices.REPLICATED, devices.REPLICATED, devices.REPLICATED)
    epoch = jax.jit(devices.over(search.mesh, epochs, specs, devices.SEEDS), donate_argnums=0)
    arguments = (train_data, val_data, jnp.int32(1))

    def prepare(states):
        compiled = epoch.lower(states, *arguments).compile()
        return lambda states, _, steps: compiled(states, train_data, val_data, jnp.int32(steps)), compiled

    def last_epoch(records):
        """The epoch whose logits count, if the search has ended early."""
        return problem.method.stops([record.get("eigenvalue", np.nan) for record in records])

    states = loop.run(
        loop.Plan(
            name="search",
            total_steps=problem.total_steps,
            steps_per_epoch=steps_per_epoch,
            steps_per_call=config.steps_per_call,
            folders=search.folders,
            shapes=epoch.eval_shape(start.eval_shape(keys, candidates), *arguments),
            start=lambda: start(keys, candidates),
            place=lambda states: devices.put(states, search.mesh, devices.SEEDS),
            prepare=prepare,
            end_epoch=_epoch_end(search, problem),
            summary=_summary,
            ended=lambda records: last_epoch(records) is not None,
        ),
        search.fields,
        workdir,
    )
    at_end = devices.fetch(states.arch)
    found = []
    for number, folder in enumerate(search.folders):
        early = last_epoch(reporting.read_records(folder))
        if early is None:
            found.append({t: logits[number] for t, logits in at_end.items()})
        else:
            of_seed = f"{folder.name} " if len(search.folders) > 1 else ""
            reporting.say(f"{of_seed}stopped early: the logits of epoch {early} count")
            found.append(reporting.read_logits(folder, early))
    return problem, found


def _epoch_end(search, problem):
    """The function that takes the diagnostics of an epoch, saves the logits and makes the record of each seed."""
    method, space, val_data = problem.method, problem.supernet.space, search.val_data
    batch_size = search.config.batch_size // search.config.accumulate
    plain = dataclasses.replace(search.augmentation, pad=0, flip=False, cutout=0)

    def of_each_seed(function):
        def mapped(states, batches):
            return jax.lax.map(lambda state: function(problem, state, batches), states)

        specs = (devices.SEEDS, PartitionSpec(None, devices.DATA))
        return jax.jit(devices.over(search.mesh, mapped, specs, devices.SEEDS))

    eigenvalue, choose = of_each_seed(hessian_eigenvalue), of_each_seed(select)

    def batches():
        """Four batches of validation images as they are, the same in each epoch: f32[4, batch_size, H, W, C]."""
        places = np.arange(4 * batch_size) % len(val_data["label"])
        image = sources.augment(plain, jax.random.key(0), val_data["image"][places])
        shape = (4, batch_size)
        return {"image": image.reshape(*shape, *image.shape[1:]), "label": val_data["label"][places].reshape(shape)}

    def record_of(folder, epoch, logits, probabilities):
        reporting.save_architecture(folder, epoch, logits, probabilities)
        genotype = method.derive(space, logits)
        record: dict[str, Any] = {
            "activation": diagnostics.activation_by_group(space, probabilities),
            **diagnostics.measure_all(space, probabilities, genotype),
            "genotype": dataclasses.asdict(genotype),
        }
        if search.table:
            record["benchmark"] = {
                "accuracy": search.table.accuracy(genotype),
                "rank": search.table.rank(genotype),
                "percentile": search.table.percentile(genotype),
            }
        return record

    def end_epoch(
        states: SearchState, epoch: int, means: list[loop.Record | None]
    ) -> tuple[SearchState, list[loop.Record | None]]:
        eigenvalues = None
        if search.config.hessian or method.tracks_eigenvalue:
            eigenvalues = devices.fetch(eigenvalue(states, batches()))
        if method.samples:
            states = choose(states, batches())
        logits, step = devices.fetch((states.arch, states.step))
        records: list[loop.Record | None] = []
        for number, (mean, folder) in enumerate(zip(means, search.folders, strict=True)):
            if mean is None:
                records.append(None)
                continue
            own = {t: array[number] for t, array in logits.items()}
            probabilities = jax.device_get(method.activation(own, problem.progress(step[number] - 1)))
            extra = {} if eigenvalues is None else {"eigenvalue": float(eigenvalues[number])}
            records.append({**mean, **extra, **record_of(folder, epoch, own, probabilities)})
        return states, records

    return end_epoch


def _summary(records):
    def mean(field):
        return sum(record[field] for record in records) / len(records)

    shares = [share for record in records for share in record["skip_share"].values()]
    text = (
        f"loss {mean('train_loss'):.3f}/{mean('val_loss'):.3f}, "
        f"accuracy {100 * mean('train_accuracy'):.1f}/{100 * mean('val_accuracy'):.1f} %, "
        f"skips {100 * sum(shares) / len(shares):.0f} %"
    )
    if "benchmark" not in records[0]:
        return text
    return text + f", cell {sum(record['benchmark']['accuracy'] for record in records) / len(records):.2f} %"
