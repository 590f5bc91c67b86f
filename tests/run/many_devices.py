r"""What many devices give beside one, for test_devices.py: writes arrays to a file, for each job that is named.

JAX_NUM_CPU_DEVICES=8 JAX_DISABLE_MOST_OPTIMIZATIONS=1 PYTHONPATH=.:tests \
    python tests/run/many_devices.py FILE search train r_darts stream supernets
"""

import functools
import json
import re
import sys
import tempfile
from pathlib import Path

import imagenet_folder
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import Toy, tiny_config, without_pictures

from prdarts_jax import devices, spaces
from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.ops import kernels
from prdarts_jax.run import architecture, evaluate, problems, run_log, settings
from prdarts_jax.run import search as search_job
from prdarts_jax.run import train as train_job
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_epoch
from prdarts_jax.spaces import SearchSpace, genotypes

STEPS, BATCH = 20, 16
SPACE = SearchSpace("small", ("none", "skip_connect", "dil_conv_3x3"), nodes=3)
AUGMENTATION = Augmentation((0.5,), (0.25,), pad=2, flip=True, cutout=3)
CELL = genotypes.Genotype(
    normal=(("dil_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 0), ("dil_conv_3x3", 2)),
    reduce=(("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("skip_connect", 2), ("dil_conv_3x3", 0)),
    normal_concat=(2, 3),
    reduce_concat=(2, 3),
)


class NormedToy(Toy):
    """In place of a supernet, with batch normalisation, whose moments parts of a batch share."""

    def __call__(self, images, op_weights=None, **options):
        return super().__call__(kernels.batch_norm(images, self.axis_name)[0], op_weights, **options)


def make_data(seed):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (5 * BATCH, 8, 8, 1), np.uint8), "label": rng.integers(0, 3, 5 * BATCH)}


def collectives(text):
    """{kind: [shapes]} of the collectives in the text of a compiled program."""
    found = {}
    pattern = r"= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    for shape, kind in re.findall(pattern, text):
        found.setdefault(kind, []).append(shape)
    return found


def flat(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


def search(workdir):
    """The state after STEPS steps, the collectives of an epoch, and the sizes of the state's arrays."""
    mesh = devices.make_mesh()
    problem = SearchProblem(
        supernet=Supernet(space=SPACE, channels=4, cells=1, num_classes=3, axis_name=devices.axis_of(mesh)),
        method=methods.pr_darts(),
        weight_optimizer=optax.sgd(0.025, momentum=0.9),
        arch_optimizer=optax.adam(3e-4, b1=0.5),
        total_steps=STEPS,
    )
    images = jnp.zeros((BATCH, 8, 8, 1))
    state = jax.jit(functools.partial(init_search, problem))(jax.random.key(0), images)
    halves = devices.device_put((make_data(1), make_data(2)), mesh)

    def epoch(state, train_data, val_data):
        return search_epoch(problem, state, train_data, val_data, AUGMENTATION, BATCH)

    state = devices.device_put(state, mesh)
    advance = jax.jit(devices.shard_map(epoch, mesh)).lower(state, *halves).compile()
    means = []
    for _ in range(STEPS // 5):
        state, metrics = advance(state, *halves)
        means.append(metrics)
    return {
        "arch": flat(state.arch),
        "params": flat(state.params),
        "batch_stats": flat(state.batch_stats),
        **{name: jnp.stack([m[name] for m in means]) for name in means[0]},
        "collectives": collectives(advance.as_text()),
        "sizes": sorted({1} | {leaf.size for leaf in jax.tree.leaves((state.params, state.arch, state.batch_stats))}),
    }


def train(workdir):
    """The job of STEPS steps with drop-path: metrics of its epochs, its test, and logits of what it exports."""
    config = settings.training()
    config.update({"dataset": "digits", "genotype": genotypes.to_json(CELL), "channels": 4, "cells": 1})
    config.update({"num_examples": 5 * BATCH, "batch_size": BATCH, "epochs": STEPS // 5, "drop_path": 0.3})
    config.augmentation.cutout = 3
    return outcome(config, workdir, sources.load("digits", split="test").images[:64])


def stream(workdir):
    """The same of a training from ImageNet's files, a step an epoch."""
    config = settings.training()
    config.update({"dataset": "imagenet", "data_dir": str(imagenet_folder.write(workdir)), "image_size": 32})
    config.update({"genotype": genotypes.to_json(CELL), "form": "imagenet", "channels": 4, "cells": 1, "workers": 0})
    config.update({"batch_size": BATCH, "epochs": 4})
    images = np.random.default_rng(4).integers(0, 256, (8, 32, 32, 3), np.uint8)
    return outcome(config, workdir / "run", images)


def outcome(config, workdir, images):
    result = train_job.run(config, workdir)
    classifier = jax.export.deserialize(bytearray((workdir / "classifier.stablehlo").read_bytes()))
    return {"logits": classifier.call(images), "confusion": result["confusion"], **curves(workdir)}


def darts(workdir):
    """The job of two seeds, with a stand-in for the supernet: logits, metrics, and cells chosen by perturbation."""
    fields = {"discretization": "perturbation", "selection.finetuning_steps": 1}
    found = searched_in_toys(workdir, "darts", **fields)
    for folder in workdir.glob("seed_*"):
        for name, cell in json.loads((folder / "discretization.json").read_text()).items():
            genotype = genotypes.Genotype(**cell["genotype"])
            found |= {f"{folder.name}/{name}/{t}": w for t, w in spaces.s2().encode(genotype).items()}
            found[f"{folder.name}/{name}/accuracy"] = cell["val_accuracy"]
    return found


def r_darts(workdir):
    """The same with the eigenvalue of a Hessian after each epoch."""
    return searched_in_toys(workdir, "r_darts")


def supernets(workdir):
    """The same of PR-DARTS in the supernet, where each seed executes other ops."""
    return searched(workdir, "pr_darts")


def searched_in_toys(workdir, method, **fields):
    def make_toy(config, method, num_classes, axis_name):
        return NormedToy(spaces.named(config.space), axis_name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "make_supernet", make_toy)
        return searched(workdir, method, **fields)


def cells(workdir):
    """Three cells trained, with two devices two at once and then one beside a stand-in."""
    config = settings.training()
    config.update({"dataset": "digits", "num_examples": 40, "channels": 2, "cells": 1, "batch_size": 8, "epochs": 2})
    config.augmentation.cutout = 2
    ops = (("skip_connect", "max_pool_3x3"), ("max_pool_3x3", "max_pool_3x3"), ("skip_connect", "dil_conv_3x3"))
    entries = {f"cell_{i}": tuple(zip(names, (0, 1), strict=True)) for i, names in enumerate(ops)}
    made = {name: genotypes.Genotype(pair, (2,), pair, (2,)) for name, pair in entries.items()}
    evaluate.evaluate(made, config, workdir)
    found = {}
    for name in made:
        result = json.loads((workdir / name / "seed_0/result.json").read_text())
        found[f"{name}/confusion"] = result["confusion"]
        found |= {f"{name}/{field}": values for field, values in curves(workdir / name / "seed_0").items()}
    return found


def searched(workdir, method, **fields):
    config = tiny_config(method=method, seeds=2, epochs=3, **fields)
    search_job.run(config, workdir)
    found = {}
    for folder in settings.seed_folders(config, workdir):
        logits = architecture.read_logits(folder, 2)
        found |= {f"{folder.name}/{name}": value for name, value in (curves(folder) | logits).items()}
    return found


def curves(workdir):
    """{metric: its value in each epoch}."""
    runs = [dict(run_log.numbers(record)) for record in run_log.read_records(workdir)]
    return {name: [run[name] for run in runs] for name in runs[0] if name != "seconds"}


def main(path, *jobs):
    results, make_mesh = {}, devices.make_mesh
    for name, used in (("many", jax.devices()), ("one", jax.devices()[:1])):
        devices.make_mesh = functools.partial(make_mesh, devices=used)
        jax.devices = lambda used=used: used
        for job in jobs:
            with tempfile.TemporaryDirectory() as folder:
                found = globals()[job](Path(folder))
            results |= {f"{name}/{job}/{field}": np.asarray(value) for field, value in found.items()}
    np.savez(path, **results)


if __name__ == "__main__":
    with without_pictures():
        main(*sys.argv[1:])
