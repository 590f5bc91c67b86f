"""What eight devices give beside one, for test_devices.py: run with eight CPU devices, it writes arrays to a file.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/eight_devices.py FILE
"""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from conftest import quick_compiler
from jax.flatten_util import ravel_pytree

from prdarts_jax import data, devices, genotypes, networks, training
from prdarts_jax.bilevel import SearchProblem, init_search, search_epoch
from prdarts_jax.methods import PRDarts
from prdarts_jax.spaces import SearchSpace
from prdarts_jax.supernet import Supernet

STEPS, BATCH = 20, 16
SPACE = SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=4)
AUGMENTATION = data.Augmentation((0.5,), (0.25,), pad=2, flip=True, cutout=3)
CELL = genotypes.Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 0), ("sep_conv_3x3", 2)),
    reduce=(("max_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 2), ("sep_conv_3x3", 0)),
    normal_concat=(2, 3),
    reduce_concat=(2, 3),
)


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


def search(mesh):
    """The state after STEPS steps, the collectives of an epoch, and the sizes of the state's arrays."""
    problem = SearchProblem(
        supernet=Supernet(space=SPACE, channels=4, cells=1, num_classes=3, axis_name=devices.axis_of(mesh)),
        method=PRDarts(space=SPACE),
        weight_optimizer=optax.sgd(0.025, momentum=0.9),
        arch_optimizer=optax.adam(3e-4, b1=0.5),
        total_steps=STEPS,
    )
    images = jnp.zeros((BATCH, 8, 8, 1))
    state = jax.jit(functools.partial(init_search, problem))(jax.random.key(0), images)
    halves = devices.put((make_data(1), make_data(2)), mesh)

    def epoch(state, train_data, val_data):
        return search_epoch(problem, state, train_data, val_data, AUGMENTATION, BATCH)

    state = devices.put(state, mesh)
    advance = jax.jit(devices.over(mesh, epoch)).lower(state, *halves).compile()
    means = []
    for _ in range(STEPS // 5):
        state, metrics = advance(state, *halves)
        means.append(metrics)
    return (
        {
            "arch": ravel_pytree(state.arch)[0],
            "params": ravel_pytree(state.params)[0],
            "batch_stats": ravel_pytree(state.batch_stats)[0],
            **{name: jnp.stack([m[name] for m in means]) for name in means[0]},
        },
        collectives(advance.as_text()),
        {leaf.size for leaf in jax.tree.leaves((state.params, state.arch, state.batch_stats))},
    )


def train(mesh):
    """The state after STEPS steps of a training with drop-path."""
    problem = training.TrainProblem(
        network=networks.Network(CELL, channels=4, cells=1, num_classes=3, axis_name=devices.axis_of(mesh)),
        optimizer=optax.sgd(0.025, momentum=0.9),
        total_steps=STEPS,
        drop_path=0.3,
    )
    variables = networks.init_variables(problem.network, jax.random.key(0), (BATCH, 8, 8, 1))
    state = devices.put(training.init_training(problem, jax.random.key(1), variables), mesh)

    def epoch(state, images):
        return training.train_epoch(problem, state, images, AUGMENTATION, BATCH)

    advance, images = jax.jit(devices.over(mesh, epoch)), devices.put(make_data(3), mesh)
    means = []
    for _ in range(STEPS // 5):
        state, metrics = advance(state, images)
        means.append(metrics)
    return {
        "params": ravel_pytree(state.params)[0],
        "batch_stats": ravel_pytree(state.batch_stats)[0],
        **{name: jnp.stack([m[name] for m in means]) for name in means[0]},
    }


def main(path):
    assert len(jax.devices()) == 8
    results = {}
    for name, mesh in (("eight", devices.make_mesh()), ("one", devices.make_mesh(devices=jax.devices()[:1]))):
        found, results[f"{name}/collectives"], sizes = search(mesh)
        results |= {f"{name}/search/{field}": np.asarray(value) for field, value in found.items()}
        results |= {f"{name}/train/{field}": np.asarray(value) for field, value in train(mesh).items()}
    np.savez(path, sizes=[1, *sizes], **results)


if __name__ == "__main__":
    with quick_compiler():
        main(sys.argv[1])
