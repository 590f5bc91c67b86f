"""Many cells trained by one compiled function, and the comparison after a search: rows, resumed, what is refused."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
import scipy.stats
import shared
from shared import tiny_training, without_pictures

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.evaluation import training
from prdarts_jax.nets import encoded, sizes
from prdarts_jax.run import compare, evaluate, loop
from prdarts_jax.spaces import genotypes, reference_cells

CELL = genotypes.Genotype(
    (("skip_connect", 0), ("dil_conv_3x3", 1)), (2,), (("max_pool_3x3", 0), ("max_pool_3x3", 1)), (2,)
)
POOLS = genotypes.Genotype((("max_pool_3x3", 0), ("skip_connect", 1)), (2,), CELL.reduce, (2,))
CELLS = {"found": CELL, "pools": POOLS}


def tiny_config(**fields):
    return tiny_training(**{"test_on_rest": True, "epochs": 2} | fields)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two trainings of each cell."""
    workdir = tmp_path_factory.mktemp("evaluated")
    return workdir, evaluate.evaluate(CELLS, tiny_config(), workdir, trainings=2)


def results(workdir, name):
    return [json.loads((workdir / name / f"seed_{seed}/result.json").read_text()) for seed in (0, 1)]


def test_a_row_a_cell(evaluated):
    workdir, rows = evaluated
    assert json.loads((workdir / "results.json").read_text()) == rows
    assert sorted(rows) == ["found", "pools"] and [row["rank"] for row in rows.values()] in ([1, 2], [1, 1])
    for name, row in rows.items():
        found = results(workdir, name)
        assert [result["top1"] for result in found] == row["accuracies"]
        assert {result["images"] for result in found} == {1797 - 80}  # all digits that no training has seen
        a = np.mean(row["accuracies"])
        variance = np.sum((np.array(row["accuracies"]) - a) ** 2)  # of two numbers
        np.testing.assert_allclose(row["standard_error"], np.sqrt(a * (1 - a) / 1717 + variance / 2), rtol=1e-6)
        size = sizes.describe(CELLS[name], "cifar", 4, 1, 10, (8, 8, 1))
        assert (row["params"], row["macs"]) == (size["params"], size["macs"])
        assert genotypes.load(workdir / name / "seed_1/genotype.json") == CELLS[name]
        records = [json.loads(line) for line in (workdir / name / "seed_0/metrics.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records] == [10, 20]
    assert not (workdir / "running").exists()
    texts = {name: genotypes.to_json(cell) for name, cell in CELLS.items()}
    assert evaluate.evaluate(texts, tiny_config(), workdir, trainings=2) == rows


@pytest.mark.slow
def test_killed_twice_and_resumed_it_gives_the_same(evaluated, tmp_path, monkeypatch):
    """In mid-training of the first cell, and between two cells."""
    add, calls = loop.Run.add, []

    def add_or_die(self, *arguments):
        calls.append(self.step)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(loop.Run, "add", add_or_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(CELLS, tiny_config(), tmp_path, trainings=2)
    evaluate.evaluate(CELLS, tiny_config(), tmp_path, trainings=2)
    for name in CELLS:
        assert results(tmp_path, name) == results(evaluated[0], name)


def test_a_training_is_that_of_the_cells_network(evaluated):
    """The first record, from scratch: the mean loss of an epoch of `train_epoch` on the encoded network by itself."""
    workdir, _ = evaluated
    prepared = evaluate.prepare({"pools": POOLS}, tiny_config(), encoded.space_of(list(CELLS.values())))
    key_params, key_training = jax.random.split(jax.random.key(1))
    variables = encoded.init_variables(prepared.problem.network, key_params, (8, 8, 8, 1))
    state = training.init_training(prepared.problem, key_training, variables, {"genotype": prepared.codes["pools"]})
    data = sources.load("digits", num_examples=80)
    epoch = jax.jit(training.train_epoch, static_argnums=(0, 3, 4))
    images = {"image": data.images, "label": data.labels}
    _, metrics = epoch(prepared.problem, state, images, prepared.feed.augmentation, 8)
    record = json.loads((workdir / "pools/seed_1/metrics.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(record["train_loss"], metrics["train_loss"], rtol=1e-4)


def test_a_cell_that_diverges_has_no_accuracy(tmp_path):
    config = tiny_config(**{"weights.learning_rate": 1e30})
    rows = evaluate.evaluate({"found": CELL}, config, tmp_path, space=encoded.space_of(list(CELLS.values())))
    assert (rows["found"]["accuracy"], rows["found"]["rank"]) == (None, None)


def test_cells_of_nas_bench_201_of_which_one_diverges_in_its_last_step(tmp_path, monkeypatch):
    cells = {"skip": genotypes.EdgeGenotype(("skip_connect",)), "pool": genotypes.EdgeGenotype(("avg_pool_3x3",))}
    summarize, losses = training.summarize, iter([1.0, math.inf])
    monkeypatch.setattr(training, "summarize", lambda sums: summarize(sums) | {"loss": next(losses)})
    rows = evaluate.evaluate(cells, tiny_config(epochs=1), tmp_path)
    assert 0 < rows["skip"]["accuracy"] < 1
    assert (rows["pool"]["accuracy"], rows["pool"]["rank"]) == (None, None)


@pytest.mark.parametrize(
    ("cells", "fields", "message"),
    [
        ({}, {}, "cells={} must map the name of one cell or more to a genotype"),
        ([CELL], {}, "cells=.* must map the name of one cell"),
        ({"a/b": CELL}, {}, "the name 'a/b' of a cell must be one that a folder may have"),
        ({"running": CELL}, {}, "the name 'running' of a cell must"),
        ({"..": CELL}, {}, "the name '..' of a cell must"),
        ({"lock": CELL}, {}, "the name 'lock' of a cell must"),
        ({0: CELL}, {}, "the name 0 of a cell must"),
        ({"a": CELL, "b": genotypes.EdgeGenotype(("none",))}, {}, "must be of the type Genotype in the space"),
        ({"a": {0: CELL}}, {}, "cells\\['a'\\]={0: .*}* must be a genotype .*; take the cell of one seed"),
        ({"a": None}, {}, "cells\\['a'\\]=None must be a genotype or the name of one$"),
        ({"a": CELL}, {"form": "imagenet"}, "config.form='imagenet' must be 'cifar' if many cells are trained"),
        (
            {"a": CELL},
            {"dataset": "imagenet"},
            "config.dataset='imagenet' must fit into memory if many cells are trained: no more",
        ),
        (
            {"a": CELL},
            {"auxiliary_weight": 0.4, "image_size": 2},
            "auxiliary_weight=0.4 must be 0 here: the auxiliary head needs features",
        ),
        ({"a": CELL}, {"batch_size": 90}, "config.batch_size=90 must be at most 80"),
    ],
)
def test_what_cannot_be_trained_is_refused(cells, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate(cells, tiny_config(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trainings", [0, 1.5])
def test_a_number_of_trainings_is_one_of_seeds(trainings, tmp_path):
    with pytest.raises(ValueError, match=f"^trainings={trainings} must be an integer from 1 to "):
        evaluate.evaluate({"a": CELL}, tiny_config(), tmp_path, trainings=trainings)


def test_a_damaged_result_is_named(evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path / "copy")
    path = next((tmp_path / "copy").glob("*/seed_*/result.json"))
    path.write_text("{}")
    with pytest.raises(ValueError, match=f"^{path} is damaged: remove it, and the cell is trained again$"):
        evaluate.evaluate(CELLS, tiny_config(), tmp_path / "copy")


def test_a_folder_of_other_trainings_is_refused(evaluated):
    workdir, _ = evaluated
    with pytest.raises(ValueError, match="has the trainings of another cell"):
        evaluate.evaluate({"found": POOLS, "pools": CELL}, tiny_config(), workdir)
    with pytest.raises(ValueError, match="config.epochs is 2 there and 3 here"):
        evaluate.evaluate(CELLS, tiny_config(epochs=3), workdir)


# Comparison


def search_config(**fields):
    config = shared.tiny_config(num_examples=80, **fields)
    config.evaluation.update({"random_cells": 2, "epochs": 1, "channels": 4, "cells": 1, "batch_size": 40})
    return config


def test_found_and_other_cells_are_trained_alike_and_ranked(tmp_path):
    config = search_config(seed=3, **{"cost.target": 1e9})
    compare.check(config)
    found = reference_cells.all_skip(spaces.named("s2"))
    with without_pictures():
        text = compare.run(config, tmp_path, {config.seed: found})
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert set(rows) == {"found", "random_0", "random_1", "all_skip"}
    assert (tmp_path / "comparison.md").read_text() == text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    used = json.loads((tmp_path / "evaluation/config.json").read_text())
    fields = {"job": "train", "dataset": "digits", "seed": 3, "num_examples": 80, "epochs": 1, "channels": 4}
    fields |= {"cells": 1, "batch_size": 40, "drop_path": 0.0, "torch_checkpoint": "", "form": "cifar"}
    fields["augmentation"] = {"pad": 1, "flip": False, "cutout": 0}
    assert fields.items() <= used.items() and "random_cells" not in used
    for row in rows.values():
        assert f"{100 * row['accuracy']:.2f} ± {100 * row['standard_error']:.2f} %" in text
    assert rows["all_skip"]["skip_share"] == 1.0 and rows["all_skip"]["depth"] == {"normal": 1, "reduce": 1}
    assert rows["found"]["accuracy"] == rows["all_skip"]["accuracy"]  # the same cell, the same seed
    assert all(row["cost"] == row["macs"] for row in rows.values())
    assert text.splitlines()[0].endswith("| depth | cost (multiply-adds) |")
    assert all(line.endswith(f"| {rows[line.split(' | ')[1]]['macs']:,} |") for line in text.splitlines()[2:6])
    accuracies = [float(line.split("|")[3].split("±")[0]) for line in text.splitlines()[2:6]]
    assert accuracies == sorted(accuracies, reverse=True)
    config.evaluation.epochs = 2
    with pytest.raises(ValueError, match=r"config\.evaluation\.epochs is 1 there and 2 here"):
        compare.run(config, tmp_path, {config.seed: found})


def test_a_cell_that_is_chosen_in_another_way_has_trainings_of_its_own(tmp_path, monkeypatch):
    config, trained = search_config(discretization="best_of"), []

    def train(evaluation, folder):
        trained.extend(evaluation.cells)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", train)
    found = {config.seed: reference_cells.all_skip(spaces.named("s2"))}
    for config.seeds in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            compare.run(config, tmp_path, found)
    others = ["random_0", "random_1", "all_skip"]
    assert trained == ["found_best_of", *others, f"found_best_of_{config.seed}", *others]


def test_darts_own_cell_is_among_them_where_the_space_has_it():
    assert "darts_v2" in compare.reference(search_config(space="darts"))
    for name in ("s2", "nas_bench_201"):
        assert "darts_v2" not in compare.reference(search_config(space=name))


def test_random_cells_have_a_path_from_input_to_output():
    """In NAS-Bench-201 one in twenty has none."""
    config = search_config(space="nas_bench_201")
    config.evaluation.random_cells = 200
    drawn = compare.reference(config)
    assert len(drawn) == 201 and all(genotypes.depth(cell)["normal"] for cell in drawn.values())


def test_the_difference_of_two_samples_is_welchs():
    first, second = [97.0, 98.5, 98.0], [96.0, 97.5, 97.0, 93.0]
    found = scipy.stats.ttest_ind(first, second, equal_var=False)
    mean, error, half = compare.difference(first, second)
    interval = found.confidence_interval()
    np.testing.assert_allclose([mean / error, mean - half, mean + half], [found.statistic, *interval])


def test_a_difference_is_claimed_in_one_of_twenty_comparisons_of_the_same_cells():
    """Two standard errors would claim one in 27 % of them."""
    generator, claimed = np.random.default_rng(0), 0
    for _ in range(2000):
        mean, _, half = compare.difference(generator.normal(size=1), generator.normal(size=2))
        claimed += abs(mean) > half
    assert scipy.stats.binomtest(claimed, 2000, 0.05).pvalue > 0.001


def rows_of(**accuracies):
    return {name: {"accuracy": accuracy} for name, accuracy in accuracies.items()}


def test_the_verdict_rests_on_the_interval():
    drawn = {"random_0": 0.90, "random_1": 0.92, "random_2": 0.94}  # variance 0.02^2
    error, limit = 0.02 * math.sqrt(1 + 1 / 3), scipy.stats.t.ppf(0.975, 2)  # 4.3
    for shift, words in ((1.01, "is better than"), (0.99, "cannot be told apart from"), (-1.01, "is worse than")):
        text = compare.verdict(rows_of(found=0.92 + shift * limit * error, **drawn))
        ends = [100 * (shift + side) * limit * error for side in (-1, 1)]
        assert (
            words in text and f"standard error {100 * error:.2f}, 95 % interval {ends[0]:.2f} to {ends[1]:.2f}." in text
        )
    text = compare.verdict(rows_of(found_0=0.98, found_1=0.99, **drawn))
    assert text.startswith("The 2 different found cells (98.50 %) are better than random cells (92.00 %).")
    few = "Too few cells were trained to compare found ones with random ones."
    left_out = " Left out, since their training diverged: 1 found."
    assert compare.verdict(rows_of(found=None, **drawn)) == few + left_out
    text = compare.verdict(rows_of(found_0=0.98, found_1=None, found_2=0.99, random_3=None, **drawn))
    assert text.startswith("The 2 different found cells (98.50 %) are better")
    assert text.endswith(" Left out, since their training diverged: 1 found and 1 random.")
