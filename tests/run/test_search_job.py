"""A search's folder where a method does more than steps: early stopping, stages, a table of accuracies, selection."""

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import BEST_CELL, read_records, refused, stop_at, tiny_config

from prdarts_jax import spaces
from prdarts_jax.nets import costs
from prdarts_jax.run import architecture, cost_target, halves, loop, problems, run_log, search, settings, validation
from prdarts_jax.search import terms
from prdarts_jax.spaces import genotypes

STEPS = 3  # an epoch


def changing_config(method, space, **fields):
    """A tiny one, of which every epoch has another cell."""
    return tiny_config(method, space, **fields | {"logits.learning_rate": 0.5})


def derived(workdir, config, epoch):
    """The cell of the logits that were saved after an epoch."""
    return problems.make_method(config).derive(spaces.named(config.space), architecture.read_logits(workdir, epoch))


def written(workdir):
    return genotypes.load(workdir / "genotype.json")


def staged_config():
    config = changing_config("p_darts", "s3")
    config.p_darts.update({"cells": (1, 2), "ops": (3, 2), "skip_dropout": (0.0, 0.5), "frozen": 0.0})
    return config


def test_supernets_grow_with_the_stages_and_have_dropout_where_there_is_a_rate():
    config = staged_config()
    stages = problems.stages_of(problems.make_method(config))
    nets = [problems.make_supernet(config, stage.method, 10) for stage in stages]
    assert [(net.cells, net.dropout) for net in nets] == [(1, ""), (2, "skip")]


# Early stopping -------------------------------------------------------------------------------------------------------


EIGENVALUES = 0.0, 5.0, 6.0, 8.1, 1.0, 1.0


def early_config(**fields):
    return changing_config("r_darts", "s2", **fields | {"epochs": 5, "r_darts.window": 1, "r_darts.start": 0})


@pytest.fixture(scope="module")
def ended_early(toy, no_pictures, tmp_path_factory):
    """The workdir of a search that ends early, and what it found."""

    def eigenvalue(problem, state, batches):
        assert batches["image"].shape == (4, 8, 8, 8, 1)
        return jnp.array(EIGENVALUES)[state.step // STEPS]

    workdir = tmp_path_factory.mktemp("early")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "hessian_eigenvalue", eigenvalue)
        return workdir, search.run(early_config(), workdir)


def test_r_darts_ends_where_the_eigenvalue_grows_with_the_cell_before(ended_early, capsys):
    workdir, found = ended_early
    records = run_log.read_records(workdir)
    # 6 is no more than 5 / 0.75, 8.1 is more than 6 / 0.75.
    np.testing.assert_allclose([record["eigenvalue"] for record in records], [5, 6, 8.1], rtol=1e-6)
    assert found == {0: written(workdir)} == {0: derived(workdir, early_config(), 1)}
    assert found != {0: derived(workdir, early_config(), 2)}
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir())[-1] == str(3 * STEPS)
    doubts = json.loads((workdir / "doubts.json").read_bytes())
    assert not [doubt for doubt in doubts if "cell still changed" in doubt]  # the third epoch is not of this cell

    before = (workdir / "metrics.jsonl").read_bytes()
    assert search.run(early_config(), workdir) == found
    assert (workdir / "metrics.jsonl").read_bytes() == before
    out = capsys.readouterr().out
    assert "stopped early: the logits of epoch 1 are used" in out and "compiled" not in out


def test_a_seed_that_ends_early_leaves_what_it_leaves_alone_while_others_go_on(
    ended_early, tmp_path, monkeypatch, capsys
):
    first = jax.random.key_data(jax.random.split(jax.random.key(0), 3)[2])

    def eigenvalue(problem, state, batches):
        ends_early = jnp.all(jax.random.key_data(state.key) == first)
        return jnp.where(ends_early, jnp.array(EIGENVALUES)[state.step // STEPS], 1.0)

    monkeypatch.setattr(search, "hessian_eigenvalue", eigenvalue)
    found = search.run(early_config(seeds=2), tmp_path)
    assert "seed_0 stopped early: the logits of epoch 1 are used" in capsys.readouterr().out
    alone, of_it = ended_early
    assert of_it[0] == found[0]
    of_seed, by_itself, other = map(read_records, (tmp_path / "seed_0", alone, tmp_path / "seed_1"))
    assert of_seed == by_itself and len(of_seed) == 3 and len(other) == 5
    assert search.run(early_config(seeds=2), tmp_path) == found  # nothing is left to do


# Divergence -----------------------------------------------------------------------------------------------------------


TWO_STAGES = """
import prdarts_jax as pdx


def two_stages() -> pdx.Method:
    method = pdx.Method(relaxation=pdx.relaxations.Sigmoid())
    return pdx.Method(stages=(pdx.Stage(method), pdx.Stage(method, ops=1)))
"""


def blow_up(monkeypatch, *seeds, of_logits=False):
    """The validation loss of the second epoch, or the logits after it, are not finite in the first stage of these
    seeds."""
    keys = [jax.random.key_data(jax.random.split(jax.random.key(seed), 3)[2]) for seed in seeds]

    def search_epoch(problem, state, *arguments, search_epoch=halves.search_epoch):
        after, metrics = search_epoch(problem, state, *arguments)
        bad = (jax.random.key_data(state.key) == jnp.stack(keys)).all(axis=1).any() & (state.step >= STEPS)
        if of_logits:
            bad &= after.step % STEPS == 0
            return after.replace(arch=jax.tree.map(lambda a: jnp.where(bad, jnp.nan, a), after.arch)), metrics
        return after, metrics | {"val_loss": jnp.where(bad, jnp.nan, metrics["val_loss"])}

    monkeypatch.setattr(halves, "search_epoch", search_epoch)


@pytest.mark.parametrize(
    "make_config, stage", [(lambda: changing_config("darts", "s2"), "."), (staged_config, "stage_1")]
)
def test_a_seed_that_diverges_ends_alone(make_config, stage, toy, no_pictures, tmp_path, monkeypatch, capsys):
    config = make_config()
    config.seeds = 2
    whole = search.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        blow_up(patch, 0)
        capsys.readouterr()
        for _ in range(2):  # the second time nothing is left to do
            assert search.run(config, tmp_path / "one") == {1: whole[1]}
    text = "careful: the search of seed_0 diverged in epoch 1, where val_loss is not finite, and ends\n"
    assert text in capsys.readouterr().out
    assert [record.get("diverged") for record in read_records(tmp_path / "one" / stage / "seed_0")] == [None, True]
    assert not (tmp_path / "one/seed_0/genotype.json").exists()
    for folder in ("seed_1", f"{stage}/seed_1"):
        assert read_records(tmp_path / "one" / folder) == read_records(tmp_path / "whole" / folder)


def test_a_seed_that_diverges_in_the_first_stage_has_no_cell_of_the_second(toy, no_pictures, tmp_path, monkeypatch):
    """With sigmoids, whose weights of ops that are no candidates are a finite 0, the second stage does not diverge."""
    (tmp_path / "own.py").write_text(TWO_STAGES)
    config = changing_config(f"{tmp_path}/own.py:two_stages", "s2", seeds=2)
    blow_up(monkeypatch, 0)
    assert search.run(config, tmp_path / "run").keys() == {1}
    assert not (tmp_path / "run/seed_0/genotype.json").exists()


def test_a_seed_whose_logits_are_not_finite_ends_alone(toy, no_pictures, tmp_path, monkeypatch, capsys):
    whole = search.run(changing_config("darts", "s2", seeds=2), tmp_path / "whole")
    blow_up(monkeypatch, 0, of_logits=True)
    for _ in range(2):
        assert search.run(changing_config("darts", "s2", seeds=2), tmp_path / "one") == {1: whole[1]}
    text = (
        "careful: the search of seed_0 diverged in epoch 1, where arch.normal, arch.reduce are not finite, and ends\n"
    )
    assert text in capsys.readouterr().out
    with pytest.raises(loop.Diverged, match=r"diverged in epoch 1, where arch\.normal, arch\.reduce are not finite; "):
        search.run(changing_config("darts", "s2"), tmp_path / "alone")


def test_a_population_of_which_all_diverge_has(toy, tmp_path, monkeypatch):
    blow_up(monkeypatch, 0, 1)
    for _ in range(2):
        with pytest.raises(loop.Diverged, match="the searches of all seeds diverged"):
            search.run(changing_config("darts", "s2", seeds=2), tmp_path)


def test_pieces_of_a_batch_do_not_change_what_is_looked_at_after_an_epoch(toy, no_pictures, tmp_path, monkeypatch):
    def eigenvalue(problem, state, batches):
        labels = batches["label"].ravel()
        return jnp.vdot(labels, jnp.arange(1, 1 + len(labels))).astype(float)

    monkeypatch.setattr(search, "hessian_eigenvalue", eigenvalue)
    found = []
    for pieces in (1, 2):
        search.run(changing_config("darts", "s2", hessian=True, accumulate=pieces), tmp_path / str(pieces))
        found.append([record["eigenvalue"] for record in read_records(tmp_path / str(pieces))])
    assert found[0] == found[1] and found[0][0] > 0


# Cost -----------------------------------------------------------------------------------------------------------------


def test_a_search_keeps_to_a_cost(toy, no_pictures, tmp_path):
    network = {"channels": 4, "cells": 2}
    fields = {f"evaluation.{name}": value for name, value in network.items()}
    of_space = costs.of_network(spaces.s2(), **network, image_shape=(8, 8, 1))
    all_conv, all_skip = (of_space.of(cell_of(op)) for op in spaces.s2().ops[::-1])
    (free,) = search.run(changing_config("darts", "s2", epochs=4), tmp_path / "free").values()
    target = (of_space.of(free) + all_skip) / 2
    assert all_skip < target < of_space.of(free) <= all_conv
    config = changing_config("darts", "s2", epochs=4, **fields, **{"cost.target": target, "cost.weight": 100.0})
    (kept,) = search.run(config, tmp_path / "kept").values()
    assert of_space.of(kept) <= target
    assert not (tmp_path / "kept/costs.json").exists()
    first = read_records(tmp_path / "kept")[0]
    assert all_skip <= first["cost"] <= all_conv and all_skip < first["expected_cost"] < all_conv
    config.cost.target = of_space.fixed / 2
    text = (
        f"config.cost.target={of_space.fixed / 2:g} must be above {of_space.fixed:g}, the multiply-adds of the network"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        search.run(config, tmp_path / "other")


def test_latencies_are_measured_once_for_a_network(tmp_path, monkeypatch):
    config = tiny_config("darts", "s2", **{"cost.target": 1e-9, "cost.kind": "latency", "evaluation.channels": 4})
    measured = []

    def make(config, num_classes, image_shape):
        of_space = costs.of_network(spaces.s2(), "macs", channels=config.evaluation.channels, cells=2)
        measured.append(dataclasses.replace(of_space, fixed=float(len(measured))))
        return measured[-1]

    monkeypatch.setattr(cost_target, "_make", make)
    for _ in range(2):
        assert cost_target.costs_of(config, tmp_path, 10, (8, 8, 1)) == measured[0]
    config.evaluation.channels = 8
    assert cost_target.costs_of(config, tmp_path, 10, (8, 8, 1)) == measured[1] and len(measured) == 2
    for damage in ("{", "[]", '{"network": []}'):
        (tmp_path / "costs.json").write_text(damage)
        if damage.endswith("]}"):
            assert cost_target.costs_of(config, tmp_path, 10, (8, 8, 1)) == measured[2]  # of another network
        else:
            with pytest.raises(ValueError, match="costs.json is damaged"):
                cost_target.costs_of(config, tmp_path, 10, (8, 8, 1))


@pytest.mark.parametrize("method", ["pr_darts_released", "darts", "gdas", "pc_darts", "lambda_darts", "reinforce"])
def test_the_cost_that_is_watched_is_that_of_the_derived_cell(method):
    """Whatever the method ranks its ops by."""
    config, space, rng = settings.search(method), spaces.s3(), np.random.default_rng(0)
    of_space = costs.of_network(space, channels=4, cells=2)
    config.space, config.cost.target = "s3", of_space.fixed + 1
    validation.validate(config)
    made = cost_target.with_target(config, problems.make_method(config), of_space)
    for _ in range(3):
        drawn = {t: rng.normal(size=space.shape).astype(np.float32) for t in space.cell_types}
        logits = made.relaxation.init(space, jax.random.key(0), drawn)
        activation = made.activation(space, logits, jnp.float32(0.5))
        view = terms.View(space, logits, activation, jnp.float32(0))
        _, metrics = made.terms[-1](view, None, jnp.float32(0.5))
        assert metrics["cost"] == pytest.approx(of_space.of(made.derive(space, logits)), rel=1e-6)


@pytest.mark.parametrize(
    ("method", "discretization"),
    [("fair_darts", "own"), ("random_search", "own"), ("darts", "best_of"), ("own.py:best", "own")],
)
def test_a_cost_that_nothing_would_keep_to_is_refused(tmp_path, monkeypatch, method, discretization):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(BEST_CELL)
    config = settings.search(method)
    config.discretization = discretization
    validation.validate(config)
    config.cost.target = 1e6
    with pytest.raises(ValueError, match="since the cell is not that of the strongest ops alone"):
        validation.validate(config)


def cell_of(op):
    return genotypes.Genotype(*2 * (((op, 0), (op, 1)) * 4, (2, 3, 4, 5)))


# Stages ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def staged(tmp_path_factory, toy, no_pictures):
    """The workdir of a whole search of two stages."""
    workdir = tmp_path_factory.mktemp("staged")
    search.run(staged_config(), workdir)
    return workdir


def logits(workdir):
    """Those of all epochs, f32[epochs, 2, edges, ops]."""
    epochs = (architecture.read_logits(workdir, epoch) for epoch in range(len(run_log.read_records(workdir))))
    return np.array([[arrays["normal"], arrays["reduce"]] for arrays in epochs])


def test_each_stage_has_a_folder_and_the_next_the_strongest_of_its_ops(staged):
    first, second = (logits(folder) for folder in (staged / "stage_1", staged))
    assert len(first) == len(second) == 2 and not (staged / "stage_2").exists()
    assert np.isfinite(first).all()
    kept = np.isfinite(second)
    np.testing.assert_array_equal(kept, np.broadcast_to(first[-1] > first[-1].min(axis=-1, keepdims=True), kept.shape))
    assert written(staged) == derived(staged, staged_config(), 1)
    for folder in (staged / "stage_1", staged):
        assert json.loads((folder / "config.json").read_text())["p_darts"]["ops"] == [3, 2]


def test_a_stop_at_the_end_of_a_stage_or_in_the_next_leaves_no_trace(staged, toy, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(loop.Stopped, match="stopped at step 6 of 6"):
        stop_at(patch, 2 * STEPS)
        search.run(staged_config(), tmp_path)
    assert not (tmp_path / "checkpoints").exists()  # the second stage has not begun
    with monkeypatch.context() as patch, pytest.raises(loop.Stopped, match="stopped at step 5 of 6"):
        stop_at(patch, STEPS + 2)
        search.run(staged_config(), tmp_path)
    assert (tmp_path / "checkpoints/5").is_dir() and not (tmp_path / "genotype.json").exists()
    capsys.readouterr()
    assert search.run(staged_config(), tmp_path) == {0: written(staged)}
    said = capsys.readouterr().out
    assert said.count("compiled") == 1 and "resumed at step 5 of 6" in said.partition("stage 2 of 2")[2]
    np.testing.assert_array_equal(logits(tmp_path), logits(staged))
    np.testing.assert_array_equal(logits(tmp_path / "stage_1"), logits(staged / "stage_1"))


@pytest.mark.parametrize(
    "stage, message",
    [
        ("Stage(darts)", "each stage but the first must have ops of at least 1"),
        (
            "Stage(dataclasses.replace(darts, stages=(Stage(darts),)), 2)",
            "^method has 1 stages: make a SearchProblem of ",
        ),
    ],
)
def test_a_later_stage_that_does_not_fit_is_refused_before_the_first(stage, message, tmp_path):
    (tmp_path / "own.py").write_text(
        "import dataclasses\nimport prdarts_jax as pdx\nfrom prdarts_jax import Stage\n"
        "def mine():\n    darts = pdx.methods.darts()\n"
        f"    return dataclasses.replace(darts, stages=(Stage(darts), {stage}))\n"
    )
    with pytest.raises(ValueError, match=message):
        search.run(changing_config(f"{tmp_path}/own.py:mine", "s3"), tmp_path / "run")
    assert not list(tmp_path.glob("run/stage_1/*"))


def test_a_first_stage_of_another_config_is_refused(staged, tmp_path):
    shutil.copytree(staged / "stage_1", tmp_path / "stage_1")
    config = staged_config()
    config.seed = 9
    with pytest.raises(ValueError, match="stage_1 belongs to another run: config.seed is 0 there and 9 here"):
        search.run(config, tmp_path)


# NAS-Bench-201, random search -----------------------------------------------------------------------------------------


def test_a_random_search_of_nas_bench_201_keeps_a_drawn_cell_and_reports_its_true_accuracy(toy, no_pictures, tmp_path):
    table, cells = tmp_path / "table.txt", list(itertools.product(range(5), repeat=6))
    accuracies = {cell: sum(5**i * op for i, op in enumerate(cell)) / 200 for cell in cells}
    lines = "".join(f"{list(cell)},{accuracy}\n" for cell, accuracy in accuracies.items())
    table.write_text(lines)
    config = changing_config("random_search", "nas_bench_201", **{"table": str(table), "random_search.samples": 3})
    with refused(
        f"accuracy table {table} is of cifar10, but must be of the data set of the search, 'digits'; the first "
        "line of a table, 'dataset NAME', says of which it is (without it: cifar10)"
    ):
        search.run(config, tmp_path / "run")
    table.write_text("dataset digits\n" + lines)
    (found,) = search.run(config, tmp_path / "run").values()
    records = run_log.read_records(tmp_path / "run")
    assert len(records) == 2 and found.ops == tuple(records[-1]["genotype"]["ops"])
    for epoch, record in enumerate(records):
        chosen = architecture.read_logits(tmp_path / "run", epoch)["normal"]
        assert (np.sort(chosen, axis=1) == [0, 0, 0, 0, 1]).all()  # a cell, as it was drawn
        cell = tuple(chosen.argmax(axis=1).tolist())
        assert tuple(record["genotype"]["ops"]) == tuple(spaces.nas_bench_201().ops[op] for op in cell)
        assert set(record["skip_share"]) == set(record["depth"]) == set(record["entropy"]) == {"normal"}
        better = sum(accuracy > accuracies[cell] for accuracy in accuracies.values())
        assert record["benchmark"] == {
            "accuracy": accuracies[cell],
            "rank": better + 1,
            "percentile": pytest.approx(100 * (1 - better / 15625)),
        }
