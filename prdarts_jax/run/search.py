"""The job of a search: it reads a config, searches with one or several seeds, and writes genotypes and other results.

If a method has several stages (P-DARTS), all but the last have folders stage_1, stage_2, ... in the workdir. Several
seeds are searched at once and have folders seed_0, seed_1, ... in the workdir and in the folder of each stage.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from prdarts_jax import devices, refusals
from prdarts_jax.data.source import DataSet
from prdarts_jax.run import (
    architecture,
    checkpoints,
    cost_target,
    discretize,
    feeds,
    lock,
    loop,
    own_code,
    pictures,
    population,
    problems,
    report,
    reporting,
    run_log,
    settings,
    validation,
)
from prdarts_jax.run.halves import Halves, InMemory, open_halves
from prdarts_jax.search import diagnostics, gates, trust
from prdarts_jax.search.curvature import hessian_eigenvalue
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, SearchState, init_search
from prdarts_jax.spaces import genotypes, tabular

Logits = dict[str, Any]  # for each cell type f32[edges, ops]


@lock.alone
def run(config: ConfigDict, workdir: Path, data: DataSet | None = None) -> dict[int, genotypes.AnyGenotype]:
    """Runs or resumes a search for each seed, writes everything into `workdir`, and returns the genotypes found.

    Call it from the main thread, which receives SIGTERM and Ctrl-C.

    Args:
      config: of the search.
      workdir: created or resumed.
      data: your own images, for instance from `data.from_arrays`; by default those that the config names.

    Returns:
      {seed: genotype}, without the seeds that have diverged.

    Raises:
      ValueError, OSError: the config, the workdir or the data cannot be used; the message is one sentence.
      loop.Diverged: the searches of all seeds have diverged: a metric or the state is not finite.
      loop.Stopped: the run has received SIGTERM or Ctrl-C and saved its state.
    """
    validation.validate(config, "search")
    stages = problems.stages_of(problems.make_method(config))
    workdirs = [*(workdir / f"stage_{i}" for i in range(1, len(stages))), workdir]
    data = feeds.find_data(config, data)
    table = tabular.load(config.table, data.name) if config.table else None
    fields = _fields(config, data)
    if table:
        fields["accuracies"] = checkpoints.fingerprint(table.accuracies)
    space = settings.space_of(config)
    fields |= own_code.field(space.ops, method=config.method, space=config.space)
    for folder in workdirs:
        checkpoints.check_config(folder, fields)
    halves = open_halves(config, data)
    if any(stage.method.after_search for stage in stages) and not isinstance(halves, InMemory):
        if config.discretization != "own":
            must = f"config.discretization={config.discretization!r} must be 'own'"
        else:
            must = f"config.method={refusals.shown(config.method)} must choose its cell by the logits"
        raise ValueError(f"{must} for images that are streamed from disk")
    reporting.say(halves.description)

    of_ops = None
    if config.cost.target:
        of_ops = cost_target.costs_of(config, workdir, halves.num_classes, halves.image_shape[1:])
    keys = jnp.stack([jax.random.key(config.seed + number) for number in range(config.seeds)])
    axis_name, total_steps = devices.axis_of(halves.mesh), config.epochs * halves.steps_per_epoch
    searches = []  # made before the first one runs, so that a stage that does not fit is refused now
    for stage in stages:
        method = cost_target.with_target(config, stage.method, of_ops) if of_ops else stage.method
        searches.append(problems.make_search_problem(config, halves.num_classes, total_steps, method, axis_name))
    found: list[Logits] = []
    for number, (stage, problem, folder) in enumerate(zip(stages, searches, workdirs, strict=True)):
        if len(stages) > 1:
            reporting.say(f"stage {number + 1} of {len(stages)}")
        reporting.say(f"{config.epochs} epochs of {halves.steps_per_epoch} steps")
        stage_keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys) if number else keys
        before = {t: jnp.stack([logits[t] for logits in found]) for t in space.cell_types if found}
        candidates = {t: gates.largest(logits, stage.ops) & jnp.isfinite(logits) for t, logits in before.items()}
        diverged = [seed for seed, logits in enumerate(found) if _has_diverged(logits)]
        states, found = search_stage(config, folder, fields, problem, halves, table, stage_keys, candidates or None)
        for seed in diverged:  # in an earlier stage
            found[seed] = {t: np.full_like(logits, np.nan) for t, logits in found[seed].items()}
    cells = _choose(config, workdir, problem, states, found, halves)
    return _write(config, workdir, problem, halves, cells)


def _has_diverged(logits):
    return any(np.isnan(array).any() for array in logits.values())


def _choose(config, workdir, problem, states, found, halves):
    """The cells that the method chooses, {number of the seed: genotype}, without those of seeds that diverged."""
    folders, space = settings.seed_folders(config, workdir), problem.supernet.space
    cells = {
        number: problem.method.derive(space, logits) for number, logits in enumerate(found) if not _has_diverged(logits)
    }
    if not cells:
        raise loop.Diverged(f"the searches of all seeds diverged: {workdir} gets no result")
    if problem.method.after_search and isinstance(halves, InMemory):
        most = min(config.selection.val_batches * config.accumulate, halves.steps_per_epoch)
        logits = jax.tree.map(lambda *of_seeds: np.stack(of_seeds), *found)
        states = states.replace(arch=devices.device_put(logits, halves.mesh, devices.SEEDS))
        images = halves.train, halves.plain_batches(most), halves.augmentation
        cells = discretize.run(problem, states, cells, *images, halves.mesh, folders)
    else:
        for folder in folders:
            (folder / "discretization.json").unlink(missing_ok=True)  # of an earlier choice in another way
    return cells


def _write(config, workdir, problem, halves, cells):
    """Writes the result of each seed and what compares them; returns {seed: genotype}."""
    folders = settings.seed_folders(config, workdir)
    doubted: dict[str, list[str]] = {}
    for number, genotype in cells.items():
        folder = folders[number]
        path, content = folder / "genotype.json", reporting.json_bytes(dataclasses.asdict(genotype), indent=2)
        if path.exists() and path.read_bytes() != content:  # chosen in another way
            for kind in ("json", "md", "png"):
                (workdir / f"comparison.{kind}").unlink(missing_ok=True)
        reporting.write_bytes(path, content)
        records = run_log.read_records(folder)
        early = _last_epoch(problem.method, records)
        records_of_cell = records if early is None else records[: early + 1]  # the cell is of this epoch
        activation = architecture.read_probabilities(folder, len(records_of_cell))
        doubts = trust.doubts(problem.supernet.layers, halves.num_classes, records_of_cell, activation, genotype)
        for doubt in doubts:
            reason = doubt if config.seeds == 1 else doubt.partition(":")[0]  # without numbers that differ by seed
            doubted.setdefault(reason, []).append(folder.name)
        reporting.write_json(folder / "doubts.json", doubts)
        pictures.write_search(folder, records, genotype)
    result = {config.seed + number: genotype for number, genotype in cells.items()}
    if len(result) > 1:
        reporting.say(population.write(config, workdir, result))
    report.write(config, workdir)
    for doubt, names in doubted.items():
        whose = f" ({', '.join(names)})" if config.seeds > 1 else ""
        reporting.say(f"careful: {doubt}{whose}")
    return result


def search_stage(
    config: ConfigDict,
    workdir: Path,
    fields: dict[str, Any],
    problem: SearchProblem,
    halves: Halves,
    table: tabular.Table | None,
    keys: jax.Array,
    candidates: dict[str, jax.Array] | None,
) -> tuple[SearchState, list[Logits]]:
    """Runs or resumes one stage of the searches of all seeds.

    Args:
      config: of the search.
      workdir: of the stage.
      fields: the content of config.json, by which a resumed run is checked.
      problem: of the stage.
      halves: the images that train the weights and those that train the logits.
      table: if given, each epoch's record has the accuracy of the derived cell.
      keys: key[seeds].
      candidates: for each cell type bool[seeds, edges, ops], the ops to search among; by default all.

    Returns:
      (states, logits): the states of all seeds at the end of the run, stacked, and for each seed the logits from which
      its cell is derived. The logits of a seed that has ended early are of an earlier epoch than its state; those of a
      seed that has diverged are NaN.

    Raises:
      ValueError, OSError, loop.Diverged, loop.Stopped: as `run`; ValueError also if a term reports a metric under a
        name that records already use.
    """
    folders, images = settings.seed_folders(config, workdir), jnp.zeros(halves.image_shape)
    method, space = problem.method, problem.supernet.space
    needs_eigenvalue = config.hessian or method.early_stopping is not None

    @jax.jit
    def start(keys, candidates):
        return jax.lax.map(lambda of_seed: init_search(problem, of_seed[0], images, of_seed[1]), (keys, candidates))

    function, spread = halves.function(problem), PartitionSpec(None, devices.DATA)
    eigenvalue = devices.for_each_seed(functools.partial(hessian_eigenvalue, problem), halves.mesh, spread)
    plain_batches = functools.cache(functools.partial(halves.plain_batches, 4 * config.accumulate))  # always the same
    if method.after_epoch:
        after_epoch = devices.for_each_seed(functools.partial(method.after_epoch, problem), halves.mesh, spread)

    with loop.Run(
        "search",
        workdir,
        fields,
        folders=folders,
        total_steps=problem.total_steps,
        steps_per_epoch=halves.steps_per_epoch,
        steps_per_call=config.steps_per_call,
        ended=lambda records: _last_epoch(method, records) is not None,
        may_diverge=config.seeds > 1,
    ) as run:
        shapes = function.eval_shape(start.eval_shape(keys, candidates), *halves.example())
        if taken := shapes[1].keys() & diagnostics.RECORD_FIELDS:
            raise ValueError(f"a term must report its metrics under other names than {', '.join(sorted(taken))}")
        method.derive(space, {t: jnp.zeros(logits.shape[1:]) for t, logits in shapes[0].arch.items()})  # refused now
        states = run.restore(*shapes) or start(keys, candidates)
        states = devices.device_put(states, halves.mesh, devices.SEEDS)
        if not run.done:
            compiled = loop.compiled(function, states, *halves.example())
        for steps, calls in halves.calls(run):
            found_metrics = []
            for arguments in calls:
                states, metrics = compiled(states, *arguments)
                found_metrics.append(metrics)
            run.add(steps, *found_metrics)
            if run.epoch_ended:
                records = run.means()
                if needs_eigenvalue:
                    eigenvalues = devices.device_get(eigenvalue(states, plain_batches()))
                    records = {n: record | {"eigenvalue": float(eigenvalues[n])} for n, record in records.items()}
                if method.after_epoch:
                    states = after_epoch(states, plain_batches())
                logits = devices.device_get(states.arch)
                for number in list(records):
                    of_seed = {t: array[number] for t, array in logits.items()}
                    if not run.is_finite(number, {f"arch.{t}": array for t, array in of_seed.items()}):
                        del records[number]
                        continue
                    probabilities = jax.device_get(
                        method.activation(space, of_seed, problem.progress(jnp.int32(run.step - 1)))
                    )
                    architecture.save(folders[number], run.epoch, of_seed, probabilities)
                    records[number] |= _describe(space, method.derive(space, of_seed), probabilities, table)
                run.record(records, _summary(list(records.values())))
            run.save_if_due(states)

    logits, found = devices.device_get(states.arch), []
    for number, folder in enumerate(folders):
        early = _last_epoch(method, run.records[number])
        if loop.diverged(run.records[number]):
            found.append({t: np.full_like(array[number], np.nan) for t, array in logits.items()})
        elif early is None:
            found.append({t: array[number] for t, array in logits.items()})
        else:
            whose = f"{folder.name} " if len(folders) > 1 else ""
            reporting.say(f"{whose}stopped early: the logits of epoch {early} are used")
            found.append(architecture.read_logits(folder, early))
    return states, found


def _last_epoch(method: Method, records: Sequence[loop.Record]) -> int | None:
    """The epoch whose logits are used if the search has ended early, else None."""
    if method.early_stopping is None:
        return None
    return method.early_stopping.stops([record.get("eigenvalue", np.nan) for record in records])


def _fields(config: ConfigDict, data: DataSet) -> dict[str, Any]:
    """The content of config.json: the config without the sections for what follows the search, since a cell may be
    chosen again in another way, and trainings have folders and configs of their own."""
    after = ("discretization", "selection", "evaluation")
    fields = {name: value for name, value in config.to_dict().items() if name not in after} | feeds.identity(data)
    if config.cost.target:  # it limits the cost of these networks
        fields["evaluation"] = {name: config.evaluation[name] for name in ("channels", "cells")}
    return fields


def _describe(space, genotype, probabilities, table):
    """The part of an epoch's record that describes the derived cell."""
    record: loop.Record = {
        "activation": diagnostics.activation_by_group(space, probabilities),
        **diagnostics.measure_all(space, probabilities, genotype),
        "genotype": dataclasses.asdict(genotype),
    }
    if table:
        record["benchmark"] = {
            "accuracy": table.accuracy(genotype),
            "rank": table.rank(genotype),
            "percentile": table.percentile(genotype),
        }
    return record


def _summary(records: Sequence[loop.Record]) -> str:
    if not records:
        return "diverged"

    def mean(field):
        return sum(record[field] for record in records) / len(records)

    shares = [share for record in records for share in record["skip_share"].values()]
    text = (
        f"loss {mean('train_loss'):.3f}/{mean('val_loss'):.3f}, "
        f"accuracy {100 * mean('train_accuracy'):.1f}/{100 * mean('val_accuracy'):.1f} %, "
        f"skips {100 * sum(shares) / len(shares):.0f} %"
    )
    if "benchmark" in records[0]:
        text += f", cell {sum(record['benchmark']['accuracy'] for record in records) / len(records):.2f} %"
    return text
