"""What several test files share: tiny configs and networks, records of epochs, laws of draws, inputs of methods."""

import contextlib
import itertools
import math
import runpy
import signal
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import trees
from flax.traverse_util import flatten_dict

from prdarts_jax import ops, spaces
from prdarts_jax.nets.supernet import init_logits
from prdarts_jax.run import loop, pictures, report, run_log, settings
from prdarts_jax.search import terms
from prdarts_jax.spaces import genotypes

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def refused(message, error=ValueError):
    """Within it an error is raised that says exactly this."""
    with pytest.raises(error) as found:
        yield
    assert str(found.value) == message


# The names of ops in a message, which lists twenty.
OPS_ALLOWED = f"{', '.join(ops.names()[:20])} and {len(ops.names()) - 20} more"

# What stands in papers: tests of their settings say nothing of a method that is added.
PUBLISHED = (
    "pr_darts pr_darts_released pr_darts_gates pr_darts_path darts idarts lambda_darts fair_darts p_darts r_darts "
    "pc_darts gdas random_search reinforce sdarts_rs sdarts_adv darts_minus beta_darts oles drnas snas reinmax"
).split()


def regroup(monkeypatch, **groups):
    """Ops count as of another group, so that their names cannot tell it."""
    group = ops.group
    monkeypatch.setattr(ops, "group", lambda op: groups.get(op, group(op)))


# A Python file with a method that chooses its cell after the search.
BEST_CELL = """
import dataclasses

import prdarts_jax as pdx


def best():
    return dataclasses.replace(pdx.methods.darts(), after_search=pdx.BestCell(5))
"""

# Runs ---------------------------------------------------------------------------------------------------------------

# A cell of one node, which compiles fast.
CELL = genotypes.Genotype((("skip_connect", 0), ("dil_conv_3x3", 1)), (2,), (("max_pool_3x3", 0),) * 2, (2,))


def get_config(file, *argument):
    """The config of a file of configs/."""
    return runpy.run_path(str(ROOT / f"configs/{file}.py"))["get_config"](*argument)


def tiny_config(method="pr_darts_released", space="s2", **fields):
    """A search of two epochs of three steps: 48 digits, of which 24 train the weights. A field may be a dotted name."""
    config = get_config("digits", method)
    config.update({"space": space, "channels": 2, "cells": 1, "num_examples": 48, "batch_size": 8})
    config.seeds = 1
    config.update({"epochs": 2, "steps_per_call": 2})
    config.evaluation.update({"epochs": 0, "test_on_rest": False})
    config.logits.learning_rate = 0.1
    config.update_from_flattened_dict(fields)
    return config


def tiny_arguments(workdir, method="pr_darts_released", space="s2", **fields):
    """The command line of a search with `tiny_config`."""
    configs = get_config("digits", method), tiny_config(method, space, **fields)
    of_file, tiny = (flatten_dict(config.to_dict(), sep=".") for config in configs)
    changed = [f"--config.{name}={value}" for name, value in tiny.items() if value != of_file[name]]
    return [f"--config={ROOT}/configs/digits.py:{method}", f"--workdir={workdir}", *changed]


def tiny_training(**fields):
    """A training of 80 digits in steps of 8. A field may be a dotted name."""
    config = settings.training()
    config.update({"dataset": "digits", "num_examples": 80, "channels": 4, "cells": 1, "batch_size": 8})
    config.update_from_flattened_dict({"steps_per_call": 3, "augmentation.pad": 1, "augmentation.cutout": 2} | fields)
    return config


class Toy(nn.Module):
    """In place of a supernet, since it compiles faster: every candidate op of an edge is the tanh of a dense layer."""

    space: spaces.SearchSpace
    axis_name: str | None = None
    cells: int = 1  # it has these three fields only since methods ask for them
    dropout: str = ""
    partial: int = 1

    @property
    def layers(self) -> Mapping[str, int]:
        return dict.fromkeys(self.space.cell_types, 1)

    @nn.compact
    def __call__(self, images, op_weights=None, *, train, dropout_rate=0.0):
        x = images.reshape(len(images), -1)
        for t in self.space.cell_types:
            logits = self.variable("arch", t, lambda t=t: init_logits(self.make_rng("params"), self.space, t)).value
            y = jnp.tanh(nn.Dense(2 * logits.size)(x)).reshape(len(x), *logits.shape, 2)
            x = jnp.einsum("beof,eo->bf", y, jax.nn.softmax(logits) if op_weights is None else op_weights[t][0])
        return nn.Dense(10)(x * (1 - dropout_rate))


def make_toy(config, method, num_classes, axis_name=None):
    """`problems.make_supernet`, but a `Toy`."""
    return Toy(spaces.named(config.space), axis_name, **method.supernet)


@contextlib.contextmanager
def without_pictures():
    """Within it runs leave none, since drawing takes longer than a tiny search."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_search", "write_training"):
            patch.setattr(pictures, name, lambda *_: None)
        patch.setattr(report, "write", lambda *_: None)
        yield


def stop_at(patch, step):
    """SIGTERM at a step of a run that goes on for longer."""

    class Stop(loop.Bar):
        def update(self, n=1):
            super().update(n)
            if self.n == step:
                signal.raise_signal(signal.SIGTERM)

    patch.setattr(loop, "Bar", Stop)


def read_records(workdir):
    """metrics.jsonl without the only thing that may change when a run is repeated."""
    return [{n: value for n, value in r.items() if n != "seconds"} for r in run_log.read_records(workdir)]


def read_architectures(workdir):
    return {path.name: dict(np.load(path)) for path in sorted((workdir / "architecture").iterdir())}


def assert_same_run(found, expected):
    """Logits, probabilities, genotype and metrics, bit for bit."""
    assert (found / "genotype.json").read_bytes() == (expected / "genotype.json").read_bytes()
    trees.assert_identical(read_architectures(found), read_architectures(expected))
    assert read_records(found) == read_records(expected)


# Records, as a search writes them to metrics.jsonl ------------------------------------------------------------------


def record(epoch):
    """What is appended after an epoch, falling probabilities and all."""
    activation = {"skip": 0.97**epoch, "conv": 0.99**epoch, "pool": 0.98**epoch, "none": 0.9**epoch}
    activation["all"] = sum(activation.values()) / 4
    return {
        "epoch": epoch,
        "step": 11 * (epoch + 1),
        "train_loss": 2.3 * 0.97**epoch,
        "train_accuracy": 1 - 0.9 * 0.97**epoch,
        "val_loss": 2.3 * 0.98**epoch,
        "val_accuracy": 1 - 0.9 * 0.98**epoch,
        "activation": {"normal": activation, "reduce": activation},
        "skip_share": {"normal": epoch % 5 / 8, "reduce": 0.125},
        "genotype": {"normal": [["skip_connect", 0]], "normal_concat": [2, 3, 4, 5]},
    }


def diagnosed(epoch, cell_types=spaces.CELL_TYPES):
    """A record with all diagnostics, the eigenvalue every fifth epoch."""
    plain = record(epoch)
    few = {name: {t: plain[name][t] for t in cell_types} for name in ("activation", "skip_share")}
    new = {
        "depth": dict.fromkeys(cell_types, 1 + epoch % 4),
        "entropy": dict.fromkeys(cell_types, 2 * 0.97**epoch),
        "alignment_val": np.sin(epoch / 9),
        "alignment_train": 0.5 * 0.98**epoch,
    }
    return plain | few | new | ({"eigenvalue": 0.01 * epoch} if epoch % 5 == 0 else {})


def one_cell_type(epoch):
    return diagnosed(epoch, ["normal"])


# Laws of draws, whose frequencies are tested with fixed keys --------------------------------------------------------

LEVEL = 1e-3  # how often a right law would fail such a test with other keys


def accept_counts(counts, probabilities):
    """Chi-square test of counts against a law, given as dicts with the same kind of keys."""
    assert set(counts) <= set(probabilities)
    total = sum(counts.values())
    expected = np.array([total * p for p in probabilities.values()])
    assert expected.min() > 5
    observed = np.array([counts.get(outcome, 0) for outcome in probabilities])
    assert scipy.stats.chisquare(observed, expected).pvalue > LEVEL


def counted(chosen):
    """How often each set of ops was chosen: bool[draws, ops] -> {tuple of ops: count}."""
    rows, counts = np.unique(np.asarray(chosen), axis=0, return_counts=True)
    return {tuple(np.flatnonzero(row).tolist()): int(n) for row, n in zip(rows, counts, strict=True)}


def law_of_the_released_choice(edge_gates, drop, k=2):
    """P(set of chosen ops) of one edge: every pattern of pushes and every order of visits, enumerated."""
    law: dict = {}
    n = len(edge_gates)
    orders = list(itertools.permutations(range(n)))
    for pushed in itertools.product((0, 1), repeat=n):
        p = math.prod(drop if push else 1 - drop for push in pushed)
        score = [g - push for g, push in zip(edge_gates, pushed, strict=True)]
        for order in orders:
            kept = tuple(
                sorted(sorted(order, key=lambda op: -score[op])[:k])
            )  # a stable sort: first visited, first kept
            law[kept] = law.get(kept, 0.0) + p / len(orders)
    return {kept: p for kept, p in law.items() if p > 0}


def logistic(x):
    return 1 / (1 + np.exp(-x))


def softmax_of(beta):
    exponentials = np.exp(np.asarray(beta, np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


# Inputs of terms and methods ----------------------------------------------------------------------------------------

# Its ops stand in another order than in a named space, so that no position is taken for granted.
SHUFFLED = spaces.SearchSpace(
    "shuffled", ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "dil_conv_5x5", "none"), nodes=4
)


def logits_of(seed, shape=SHUFFLED.shape, scale=1.0):
    rng = np.random.default_rng(seed)
    return {t: jnp.array(rng.normal(0, scale, shape), jnp.float32) for t in spaces.CELL_TYPES}


def objective(method, space, val_loss, logits, op_weights, progress):
    """(what the logits of a method minimise, metrics of its terms)."""
    view = terms.View(space, logits, method.activation(space, logits, progress), val_loss)
    value, metrics = terms.total(method.terms, view, op_weights, progress)
    return val_loss + value, metrics


def sparse_weights(net):
    """Positive weights, the same in every cell of a type, but for some ops, which are not executed."""
    weights, rng = {}, np.random.default_rng(0)
    for cell_type, layers in net.layers.items():
        drawn = rng.random(net.space.shape, np.float32)
        drawn[np.arange(drawn.size).reshape(drawn.shape) % 5 == 2] = 0
        weights[cell_type] = np.repeat(drawn[None], layers, axis=0)
    return weights


def two_an_edge(space, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation([True] * 2 + [False] * (len(space.ops) - 2)) for _ in space.edges])


def slope_of(loop, at, step=1e-6):
    """Central differences of a loop, f64[edges, ops]."""
    at = np.asarray(at, np.float64)
    slope = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        shift = np.zeros_like(at)
        shift[place] = step
        slope[place] = (loop(at + shift) - loop(at - shift)) / (2 * step)
    return slope
