"""Several seeds at once are the searches of each seed alone, and what they have in common."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from prdarts_jax.run import population, reporting, search
from prdarts_jax.spaces import genotypes

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = str(Path(__file__).parents[2] / "configs/digits.py")
FIRST, SEEDS = 3, 2


def tiny_config(**fields):
    config = runpy.run_path(CONFIG)["get_config"]()
    config.update({"space": "s2", "channels": 2, "cells": 1, "num_examples": 48, "batch_size": 8})
    config.update({"epochs": 2, "steps_per_call": 2})
    config.update(fields)
    config.evaluation.epochs = 0
    config.logits.learning_rate = 0.1
    return config


@pytest.fixture(scope="module")
def runs(no_pictures, tmp_path_factory):
    """(folder of the population, folders of the seeds alone)."""
    together, config = tmp_path_factory.mktemp("together"), tiny_config(seed=FIRST, seeds=SEEDS)
    found = search.run(config, together)
    text = population.run(config, together, found)
    assert (together / "population.md").read_text() == text
    alone = [tmp_path_factory.mktemp("alone") for _ in range(SEEDS)]
    for number, folder in enumerate(alone):
        assert search.run(tiny_config(seed=FIRST + number), folder) == [found[number]]
    return together, alone


def test_each_seed_is_what_it_is_alone_bit_for_bit(runs):
    together, alone = runs
    assert not (together / "metrics.jsonl").exists()
    for number, folder in enumerate(alone):
        of_seed = together / f"seed_{FIRST + number}"
        for epoch in range(2):
            here, there = (reporting.read_logits(place, epoch) for place in (of_seed, folder))
            for cell_type, logits in there.items():
                np.testing.assert_array_equal(here[cell_type], logits)
        here, there = (reporting.read_records(place) for place in (of_seed, folder))
        assert [r | {"seconds": 0} for r in here] == [r | {"seconds": 0} for r in there]
        assert genotypes.load(of_seed / "genotype.json") == genotypes.load(folder / "genotype.json")
    first, second = (reporting.read_logits(folder, 1)["normal"] for folder in alone)
    assert (first != second).all()


def test_the_spread_is_that_of_the_seeds_last_epochs(runs):
    together, alone = runs
    result = json.loads((together / "population.json").read_text())
    assert result["seeds"] == [3, 4]
    last = [reporting.read_records(folder)[-1] for folder in alone]
    for field, of in (
        ("val_loss", lambda record: record["val_loss"]),
        ("entropy/reduce", lambda record: record["entropy"]["reduce"]),
    ):
        a, b = map(of, last)
        expected = {"mean": (a + b) / 2, "std": abs(a - b) / 2**0.5, "min": min(a, b), "max": max(a, b)}
        assert result["last epoch"][field] == pytest.approx(expected)
    assert not any(field.startswith(("seconds", "genotype")) for field in result["last epoch"])
    assert (together / "population.png").read_bytes().startswith(b"\x89PNG")


def cell(*ops):
    """Two nodes; each entry of ops is (op, source)."""
    return genotypes.Genotype(normal=ops, normal_concat=(2, 3), reduce=(("none", 0),) * 4, reduce_concat=(2, 3))


def test_agreement_is_the_mean_over_pairs_of_what_both_have_of_what_either_has():
    one = cell(("max_pool_3x3", 0), ("skip_connect", 1), ("skip_connect", 0), ("skip_connect", 1))
    two = cell(("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 0), ("skip_connect", 2))
    three = cell(("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 1), ("skip_connect", 2))
    found = population.agreement([one, two, three])
    # Edges in common of those of either: 3 of 5, 3 of 5 (one, three), 3 of 5; with ops 2 of 6, 2 of 6, 1 of 7.
    assert found["normal"]["edges"] == pytest.approx(3 / 5)
    assert found["normal"]["ops"] == pytest.approx((2 / 6 + 2 / 6 + 1 / 7) / 3)
    assert found["reduce"] == {"edges": 1, "ops": 1}
    assert population.agreement([one, one]) == {"normal": {"edges": 1, "ops": 1}, "reduce": {"edges": 1, "ops": 1}}
