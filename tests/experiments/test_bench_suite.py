"""The protocol of confopt's suite: which cell is trained, with which settings, on which images, and the table."""

import json

import numpy as np
import pytest
import scripts

from prdarts_jax.data import sources
from prdarts_jax.run import settings
from prdarts_jax.spaces import genotypes, reference_cells

suite, family = scripts.load("bench_suite"), scripts.load("family")
pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = "dataset=digits,num_examples=64,epochs=1,batch_size=16,channels=2,cells=1,augmentation.pad=1"
TINY += ",evaluation.epochs=1,evaluation.channels=3,evaluation.cells=1,evaluation.batch_size=64"
TINY += ",evaluation.augmentation.pad=1,evaluation.augmentation.cutout=0,evaluation.steps_per_call=3"


def test_the_trainings_are_those_of_the_suite():
    """As benchsuite.py of confopt numbers them, from 1."""
    published = {1: (0.025, 1e-4), 2: (0.025, 3e-4), 3: (0.025, 1e-3), 4: (0.1, 1e-4), 5: (0.1, 3e-4), 6: (0.1, 1e-3)}
    published |= {7: (0.01, 1e-4), 8: (0.01, 3e-4), 9: (0.01, 1e-3)}
    assert dict(enumerate(suite.TRAININGS, 1)) == published
    config = suite.make_config("wide_all_skip", "")
    fields = ("epochs", "batch_size", "channels", "cells", "drop_path", "auxiliary_weight")
    assert [config.evaluation[name] for name in fields] == [300, 512, 18, 4, 0.3, 0.0]
    assert len(suite.BENCHMARKS) == 9


def test_a_cell_is_trained_on_the_images_that_no_search_has_seen():
    config = family.with_fields(suite.make_config("deep_regular", ""), family.parse_fields(TINY))
    data = suite.other_images(config)
    found = [sources.load(data, split=split) for split in ("train", "test")]
    every, seen = (sources.load("digits", num_examples=number) for number in (0, 64))
    images = {name: {image.tobytes() for image in split.images} for name, split in {"all": every, "seen": seen}.items()}
    trained = {image.tobytes() for image in found[0].images}
    assert len(found[0].images) == len(every.images) - 64 and trained | images["seen"] == images["all"]
    np.testing.assert_array_equal(found[1].images, sources.load("digits", split="test").images)


def test_the_seed_of_the_lowest_validation_loss_is_chosen():
    losses = {("darts", 0): 1.5, ("darts", 1): 1.25, ("gdas", 0): 0.5, ("gdas", 2): 0.75}
    results = {key: family.kept.Search([{"val_loss": 0.0}, {"val_loss": loss}], None) for key, loss in losses.items()}
    assert suite.chosen(results) == {"darts": 1, "gdas": 0}


def test_the_table_has_mean_and_best_of_what_did_not_diverge():
    text = suite.make_table({("deep_regular", "darts"): [0.5, None, 0.75], ("wide_no_skip", "gdas"): [None]})
    assert text.splitlines()[2:] == [
        "| deep_regular | `darts` | 62.50 | 75.00 | 2 of 3 |",
        "| wide_no_skip | `gdas` | diverged | diverged | 0 of 1 |",
    ]


def test_two_methods_on_two_benchmarks(tmp_path, monkeypatch):
    """With stand-ins for the search, and for the training, whose accuracy tells its settings."""
    trained = []

    def searching(config, workdir):
        scripts.write_run(workdir, {"epoch": 0, "val_loss": 1.0})
        return {config.seed: reference_cells.random(settings.space_of(config), np.random.default_rng(0))}

    def training(cells, config, workdir, *, space, data):
        trained.append((config.weights.learning_rate, config.weights.weight_decay))
        assert space.name == {"wide_no_skip": "darts_no_skip", "wide_regular": "darts"}[workdir.parent.name]
        assert {name.partition("_seed_")[0] for name in cells} == {"darts", "gdas_start_temperature_5.0"}
        assert workdir.name == f"training_{suite.TRAININGS.index(trained[-1]) + 1}"
        return {name: {"accuracy": config.weights.learning_rate} for name in cells}

    monkeypatch.setattr(family.search, "run", searching)
    monkeypatch.setattr(suite.pdx, "evaluate", training)
    chosen = ["--benchmarks", "wide_regular", "wide_no_skip", "--methods", "darts", "gdas:start_temperature=5.0"]
    scripts.run("bench_suite", *chosen, "--seeds", 1, f"--workdir={tmp_path}", f"--set={TINY}")
    assert trained == 2 * list(suite.TRAININGS)
    assert [row[:2] for row in scripts.rows(tmp_path)] == [
        ["wide_regular", "`darts`"],
        ["wide_regular", "`gdas:start_temperature=5.0`"],
        ["wide_no_skip", "`darts`"],
        ["wide_no_skip", "`gdas:start_temperature=5.0`"],
    ]
    assert {tuple(row[2:]) for row in scripts.rows(tmp_path)} == {("4.50", "10.00", "9 of 9")}


def test_a_benchmark_is_searched_and_its_cell_is_trained_and_found_again(tmp_path, capsys):
    """One cell, of which the last four nodes are concatenated, with skip connections beside all ops."""
    arguments = ["--benchmarks", "single_cell_all_skip", "--seeds", 0, "--trainings", 5]
    few = ",nodes=7,ops=none_with_skip,dil_conv_3x3_with_skip"
    arguments += [f"--workdir={tmp_path}", f"--set={TINY}{few}"]
    scripts.run("bench_suite", *arguments)
    folder = tmp_path / "single_cell_all_skip"
    genotype = genotypes.load(folder / "darts_seed_0/genotype.json")
    assert genotype.reduce_concat == (3, 4, 5, 6) and {op for op, _ in genotype.reduce} == {"dil_conv_3x3_with_skip"}
    result = json.loads((folder / "training_5/darts_seed_0/seed_0/result.json").read_text())
    assert scripts.rows(tmp_path) == [
        ["single_cell_all_skip", "`darts`", *[f"{100 * result['top1']:.2f}"] * 2, "1 of 1"]
    ]
    config = json.loads((folder / "training_5/config.json").read_text())
    assert (config["weights"]["learning_rate"], config["weights"]["weight_decay"]) == (0.1, 3e-4)
    before = (tmp_path / "table.md").read_bytes()
    capsys.readouterr()
    scripts.run("bench_suite", *arguments)
    assert "0 of 1 trainings left" in capsys.readouterr().out and (tmp_path / "table.md").read_bytes() == before
