"""Methods search, from a config to a genotype: on a stand-in that compiles at once; with `--slow` all on supernets."""

import json

import jax
import numpy as np
import pytest
from shared import get_config
from table import make_table

from prdarts_jax import spaces
from prdarts_jax.run import compare, evaluate, problems, run_log, search
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes

pytestmark = pytest.mark.usefixtures("no_pictures")

EPOCHS, STEPS = 2, 2


def make_config(method, space, cells=3, channels=4, **fields):
    """A tiny form of the main job."""
    config = get_config("digits", method)
    config.update({"space": space, "cells": cells, "channels": channels, "seeds": 1})
    config.update({"num_examples": 64, "epochs": EPOCHS, "batch_size": 16, "steps_per_call": STEPS})
    config[method].update(fields)
    config.random_search.samples = 5
    config.evaluation.update({"epochs": 0, "test_on_rest": False})
    return config


def run(config, workdir):
    """(genotype, records of the last stage)."""
    (genotype,) = search.run(config, workdir).values()
    assert genotypes.from_json((workdir / "genotype.json").read_text()) == genotype
    return genotype, run_log.read_records(workdir)


def check(config, genotype, records):
    space = spaces.named(config.space)
    cells = genotypes.cells(genotype)
    assert cells.keys() == set(space.cell_types)
    for entries in cells.values():
        assert len(entries) == (2 * (space.nodes - space.inputs) if space.entries_per_node else len(space.edges))
        assert {op for op, _, _ in entries} <= {*space.ops, "none"}
    assert len(records) == EPOCHS
    for record in records:
        assert record["step"] == STEPS * (record["epoch"] + 1)
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "alignment_val"):
            assert np.isfinite(record[name]), name
        assert -1 <= record["alignment_val"] <= 1
        for t in space.cell_types:
            assert 0 <= record["skip_share"][t] <= 1 and 0 <= record["depth"][t] < space.nodes
            assert 0 <= record["entropy"][t] <= np.log(len(space.ops)) + 1e-6
            assert all(0 <= value <= 1 for value in record["activation"][t].values())
        assert ("eigenvalue" in record) == (config.method == "r_darts")
        assert np.isfinite(record.get("eigenvalue", 0.0))
        assert ("alignment_train" in record) == (config.method == "lambda_darts")
    assert json.loads(json.dumps(records[-1]["genotype"])).keys() == vars(genotype).keys()


# Stages and a choice after each epoch are in tests/run/test_search_job.py.
@pytest.mark.parametrize("method", ["pr_darts", "r_darts"])
def test_gates_and_the_eigenvalue_of_an_epoch_are_searched(method, tmp_path, monkeypatch):
    monkeypatch.setattr(problems, "make_supernet", make_table)
    config = make_config(method, "darts")
    check(config, *run(config, tmp_path))


@pytest.mark.slow
def test_a_method_searches_with_the_network_of_nas_bench_201(tmp_path):
    config = make_config("gdas", "nas_bench_201", cells=1)
    check(config, *run(config, tmp_path))


@pytest.mark.slow
def test_a_cell_of_transnas_bench_101_is_found_and_trained(tmp_path):
    config = make_config("darts", "transnas_bench_101", cells=1)
    genotype, records = run(config, tmp_path / "search")
    check(config, genotype, records)
    training = compare.training_config(config)
    training.update({"channels": 4, "epochs": 1})
    (row,) = evaluate.evaluate({"found": genotype}, training, tmp_path / "cells").values()
    assert 0 <= row["accuracy"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("space", ["darts", "s2"])
@pytest.mark.parametrize(
    "method, fields",
    [(name, {}) for name in methods.NAMED]
    + [("darts", {"second_order": True}), ("lambda_darts", {"variant": "signcorr"}), ("r_darts", {"drop_path": 0.3})],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_every_method_searches_with_the_supernet(method, fields, space, tmp_path):
    # Each compiled search maps thousands of pieces of memory, of which Linux gives a process 65,530.
    jax.clear_caches()
    config = make_config(method, space, cells=4, channels=8, **fields)
    config.p_darts.update({"cells": (3, 4, 5), "ops": (8, 5, 3) if space == "darts" else (2, 2, 2)})
    genotype, records = run(config, tmp_path)
    check(config, genotype, records)
    if method == "lambda_darts":
        assert all(record["alignment_val"] * record["alignment_train"] != 0 for record in records)
