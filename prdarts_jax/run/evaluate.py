"""The accuracy of many cells: one compiled function trains all of them from scratch, one cell per device at a time.

The network that is trained gets its cell as an input (`nets/encoded.py`), so one compilation is enough for all cells.
In the workdir each cell has a folder, and in it seed_0, seed_1, ... with metrics.jsonl, genotype.json and result.json;
results.json has a row for each cell of the last call.
"""

import dataclasses
import functools
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import devices, refusals
from prdarts_jax.data.source import DataSet
from prdarts_jax.evaluation import training
from prdarts_jax.nets import encoded, sizes
from prdarts_jax.run import checkpoints, feeds, lock, loop, own_code, problems, reporting, validation
from prdarts_jax.spaces import SearchSpace, genotypes
from prdarts_jax.spaces.genotypes import AnyGenotype

Row = dict[str, Any]
_RUNNING = "running"  # the folder of the trainings that are under way


class _Job(NamedTuple):
    """One training: the name of its cell, and its seed."""

    name: str
    seed: int


class Evaluation(NamedTuple):
    """Trainings that have been checked: `prepare` returns it, and `run` takes it."""

    config: ConfigDict
    space: SearchSpace
    cells: Mapping[str, AnyGenotype]
    codes: Mapping[str, dict[str, np.ndarray]]
    feed: feeds.InMemory
    problem: training.TrainProblem
    trainings: int
    section: str
    identity: dict[str, str]


def prepare(
    cells: Mapping[str, AnyGenotype | str],
    config: ConfigDict,
    space: SearchSpace | None = None,
    trainings: int = 1,
    section: str = "",
    data: DataSet | None = None,
) -> Evaluation:
    """Checks everything and opens the data, without running anything; see `evaluate`.

    Args:
      cells: name -> genotype.
      config: of the training.
      space: a search space that has all of the cells; by default the smallest one.
      trainings: number of trainings of each cell.
      section: what messages put before field names: 'evaluation.' if `config` was made from this section of another.
      data: the images; by default those that the config names.

    Raises:
      ValueError, OSError: something cannot be used; the message is one sentence.
    """
    validation.validate(config, "train")
    if type(trainings) is not int or trainings < 1 or config.seed + trainings > 2**32:
        named = f"config.{section}trainings" if section else "trainings"
        raise ValueError(
            f"{named}={refusals.shown(trainings)} must be an integer from 1 to {2**32 - config.seed}, the number of "
            "seeds from config.seed on"
        )
    for field, allowed in (("form", "cifar"), ("torch_checkpoint", ""), ("init_from", "")):
        if config[field] != allowed:
            raise ValueError(f"config.{section}{field}={config[field]!r} must be {allowed!r} if many cells are trained")
    data = feeds.find_data(config, data)
    if feeds.is_streamed(config, data):
        raise ValueError(
            f"config.dataset={refusals.shown(data.name)} must fit into memory if many cells are trained: no more "
            f"than config.memory={config.memory} GB, and not ImageNet"
        )
    if not isinstance(cells, Mapping) or not cells:
        raise ValueError(f"cells={refusals.shown(cells)} must map the name of one cell or more to a genotype")
    found: dict[str, Any] = {
        name: genotypes.find(cell) if isinstance(cell, str) else cell for name, cell in cells.items()
    }
    for name, cell in found.items():
        if not isinstance(cell, AnyGenotype):
            of_seeds = "; take the cell of one seed" if isinstance(cell, Mapping) else ""
            raise ValueError(f"cells[{name!r}]={refusals.shown(cell)} must be a genotype or the name of one{of_seeds}")
    taken = ("", ".", "..", _RUNNING, lock.NAME, "config.json", "results.json")
    if unfit := [name for name in cells if not isinstance(name, str) or name in taken or Path(name).name != name]:
        others = ", ".join(taken[3:])
        raise ValueError(f"the name {unfit[0]!r} of a cell must be one that a folder may have, and none of {others}")
    space = space or encoded.space_of(list(found.values()))
    codes = {name: space.encode(genotype) for name, genotype in found.items()}
    used = jax.devices()
    if jax.process_count() == 1:
        used = used[: len(cells) * trainings]
    feed = feeds.InMemory(config, devices.make_mesh(len(used), devices=used), data, section)
    network = encoded.network(
        space,
        drop_path=config.drop_path > 0,
        channels=config.channels,
        cells=config.cells,
        num_classes=feed.num_classes,
        auxiliary=config.auxiliary_weight > 0,
        dtype=jnp.dtype(config.dtype),
    )
    problem = problems.make_train_problem(config, network, feed.steps_per_epoch)
    if config.auxiliary_weight:
        field = f"config.{section}auxiliary_weight={config.auxiliary_weight}"
        if not hasattr(network.supernet, "auxiliary"):
            raise ValueError(f"{field} must be 0 in the space {space.name}, whose network has no auxiliary head")
        try:
            jax.eval_shape(lambda key: encoded.init_variables(network, key, feed.image_shape), jax.random.key(0))
        except ValueError as error:
            raise ValueError(f"{field} must be 0 here: {error}") from error
    return Evaluation(config, space, found, codes, feed, problem, trainings, section, feeds.identity(data))


def evaluate(
    cells: Mapping[str, AnyGenotype | str],
    config: ConfigDict,
    workdir: str | Path,
    *,
    space: SearchSpace | None = None,
    trainings: int = 1,
    data: DataSet | None = None,
) -> dict[str, Row]:
    """Trains and tests cells from scratch, and writes the results into `workdir`.

    After a stop or a kill the same call trains the remaining cells. Cells that are trained with the same seed start
    from the same weights wherever they have the same op on the same edge. A cell whose training diverges has no
    accuracy. Call it from the main thread, which receives SIGTERM and Ctrl-C.

    Args:
      cells: name -> genotype, or what `genotypes.find` takes. All must be of the same class and concatenate the same
        last nodes, and none may have an op twice on an edge.
      config: of the training, such as `settings.training()`; its genotype is ignored.
      workdir: created or resumed.
      space: a search space that has all of the cells; by default the smallest one. The initial weights depend on the
        space, so give one if cells with other ops may be added later.
      trainings: number of trainings of each cell, with the seeds config.seed, config.seed + 1, ...
      data: your own images, for instance from `data.from_arrays`; by default those that the config names.

    Returns:
      For each cell, the best first:
        accuracy: the mean test accuracy of the trainings, a fraction; None if one diverged.
        standard_error: of the accuracy; None if there is none. It is sqrt(accuracy (1 - accuracy) / n + s^2 / t) for n
          test images and t trainings, whose accuracies have the variance s^2 (0 if t is 1).
        rank: 1 is best; None if a training diverged.
        accuracies: of each training.
        params, macs: number of weights, and multiply-adds per image.

    Raises:
      ValueError, OSError: something cannot be used; the message is one sentence.
      loop.Stopped: the run has received SIGTERM or Ctrl-C and saved its state.
    """
    return run(prepare(cells, config, space, trainings, data=data), workdir)


@lock.alone
def run(evaluation: Evaluation, workdir: Path) -> dict[str, Row]:
    """Runs the trainings that `prepare` has checked; the result is that of `evaluate`."""
    config, _, cells, _, feed, _, trainings, section, of_images = evaluation
    fields = {name: value for name, value in config.to_dict().items() if name != "genotype"}
    fields |= {"space": list(evaluation.space.ops)} | of_images | own_code.field(evaluation.space.ops)
    checkpoints.check_config(workdir, fields, section=section)
    _check_folders(cells, workdir)
    checkpoints.write_config(workdir, fields)

    jobs = [_Job(name, config.seed + number) for number in range(trainings) for name in cells]
    folders = {job: workdir / job.name / f"seed_{job.seed}" for job in jobs}
    left = [job for job in jobs if not (folders[job] / "result.json").exists()]
    reporting.say(f"{len(cells)} cells, {len(left)} of {len(jobs)} trainings left, {feed.mesh.size} at once")

    if left:
        trainer = _Trainer(evaluation, fields, workdir / _RUNNING)
        for first in range(0, len(left), feed.mesh.size):
            group = left[first : first + feed.mesh.size]
            for job, result in zip(group, trainer.train(group, [folders[job] for job in group]), strict=True):
                reporting.write_json(folders[job] / "genotype.json", dataclasses.asdict(cells[job.name]))
                reporting.write_json(folders[job] / "result.json", result)
            _remove(trainer.workdir)
    _remove(workdir / _RUNNING)  # of a process that was killed when its last results were written

    results = {job: reporting.read_json(folder / "result.json") for job, folder in folders.items()}
    for job, result in results.items():
        trained = isinstance(result.get("top1"), float) and isinstance(result.get("images"), int)
        if not trained and result.get("top1", "missing") is not None:
            raise ValueError(f"{folders[job] / 'result.json'} is damaged: remove it, and the cell is trained again")
    rows = {name: _row([results[job] for job in jobs if job.name == name]) for name in cells}
    network = (config.channels, config.cells, feed.num_classes, feed.image_shape[1:])
    accuracies = [row["accuracy"] for row in rows.values() if row["accuracy"] is not None]
    for name, genotype in cells.items():
        if rows[name]["accuracy"] is not None:
            rows[name]["rank"] = 1 + sum(other > rows[name]["accuracy"] for other in accuracies)
        size = sizes.describe(genotype, "cifar", *network)
        rows[name] |= {field: size[field] for field in ("params", "macs")}
    rows = dict(sorted(rows.items(), key=lambda item: item[1]["rank"] or math.inf))
    reporting.write_json(workdir / "results.json", rows)
    return rows


def _remove(folder):
    """Removes a folder after all processes have written to it and before any of them continues."""
    devices.barrier("all written")
    if devices.is_main():
        shutil.rmtree(folder, ignore_errors=True)
    devices.barrier("removed")


def _row(results: Sequence[Mapping[str, Any]]) -> Row:
    """The row of one cell, without its rank; see `evaluate`."""
    row: Row = {"accuracy": None, "standard_error": None, "rank": None, "accuracies": [r["top1"] for r in results]}
    if None not in row["accuracies"]:
        mean = float(np.mean(row["accuracies"]))
        variance = float(np.var(row["accuracies"], ddof=1)) / len(results) if len(results) > 1 else 0.0
        error = math.sqrt(mean * (1 - mean) / results[0]["images"] + variance)
        row |= {"accuracy": mean, "standard_error": error}
    return row


class _Trainer:
    """Trains and tests groups of cells, one cell per device, with functions that are compiled once."""

    def __init__(self, evaluation: Evaluation, fields: dict[str, Any], workdir: Path) -> None:
        self.config, _, self.cells, self.codes, feed, problem, *_ = evaluation
        self.feed, self.problem, self.fields, self.workdir = feed, problem, fields, workdir

        def start(key_and_code):
            key, code = key_and_code
            key_params, key_training = jax.random.split(key)
            network: Any = problem.network
            variables = encoded.init_variables(network, key_params, feed.image_shape)
            return training.init_training(problem, key_training, variables, {"genotype": code})

        everywhere = devices.REPLICATED
        self.start = jax.jit(functools.partial(jax.lax.map, start))
        self.test = devices.for_each_seed(feed.test(problem), feed.mesh, everywhere)
        epoch = devices.for_each_seed(feed.epoch(problem), feed.mesh, everywhere, everywhere, donate_argnums=0)
        self.images, self.tested = feed.example()[0], feed.test_images()
        self.shapes = epoch.eval_shape(self.start.eval_shape(self._first([])), self.images, jnp.int32(1))
        spread = devices.sharding(feed.mesh, devices.SEEDS)
        states = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=spread), self.shapes[0])
        self.epoch = loop.compiled(epoch, states, self.images, jnp.int32(1), section=evaluation.section)

    def _first(self, group):
        """The keys and cells that the states of a group start from; devices without a cell repeat the last one."""
        jobs = [*group, *[group[-1] if group else _Job(next(iter(self.cells)), 0)] * (self.feed.mesh.size - len(group))]
        keys = jnp.stack([jax.random.key(job.seed) for job in jobs])
        return keys, jax.tree.map(lambda *a: jnp.stack(a), *(self.codes[job.name] for job in jobs))

    def train(self, group: Sequence[_Job], folders: Sequence[Path]) -> list[dict[str, Any]]:
        """The test results of a group; its checkpoints are in the workdir, its records in the folders."""
        members = [[job.name, job.seed, genotypes.to_json(self.cells[job.name])] for job in group]
        fields = self.fields | {"cells": members}
        try:
            checkpoints.check_config(self.workdir, fields)
            others = False
        except ValueError:  # of other trainings than these, for instance with another number of devices
            others = True
        if devices.any(others):
            _remove(self.workdir)
        with loop.Run(
            "training",
            self.workdir,
            fields,
            folders=folders,
            total_steps=self.problem.total_steps,
            steps_per_epoch=self.feed.steps_per_epoch,
            steps_per_call=self.config.steps_per_call,
            may_diverge=True,
        ) as run:
            states = run.restore(*self.shapes) or self.start(self._first(group))
            states = devices.device_put(states, self.feed.mesh, devices.SEEDS)
            for steps in run.calls():
                states, metrics = self.epoch(states, self.images, jnp.int32(steps))
                run.add(steps, metrics)
                if run.epoch_ended:
                    means = run.means()
                    losses = [mean["train_loss"] for mean in means.values()]
                    run.record(means, f"loss {np.mean(losses):.3f}" if losses else "diverged")
                run.save_if_due(states)
        sums = devices.device_get(self.test(states, self.tested))
        results = [training.summarize({name: a[number] for name, a in sums.items()}) for number in range(len(group))]
        return [
            {"top1": None} if loop.diverged(records) or not math.isfinite(result["loss"]) else result
            for records, result in zip(run.records, results, strict=True)
        ]


def _check_folders(cells, workdir):
    """Refuses a folder that has the trainings of another cell of the same name."""
    for name, genotype in cells.items():
        for path in (workdir / name).glob("seed_*/genotype.json"):
            if genotypes.load(path) != genotype:
                raise ValueError(
                    f"{path.parent.parent} has the trainings of another cell: rename this folder, or use another "
                    "--workdir or name"
                )
