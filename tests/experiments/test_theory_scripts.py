"""The scripts beside the theory lab run, tiny, on the digits and with searches that are made up."""

import csv
import dataclasses
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scripts

from prdarts_jax.run import architecture, loop, problems, reporting
from prdarts_jax.spaces import tabular
from prdarts_jax.theory import job

family, cells_script = scripts.load("family"), scripts.load("gram_nasbench201")

SPACE = cells_script.SPACE


def test_cells_are_measured_once_and_compared_with_their_accuracy(table, tmp_path):
    size = ["--dataset=digits", "--image_size=4", "--channels=2", "--steps=3"]
    arguments = [*size, f"--table={table}", f"--workdir={tmp_path}"]
    scripts.run("gram_nasbench201", "--cells=3", *arguments)
    first = (tmp_path / "cells.csv").read_text()
    scripts.run("gram_nasbench201", "--cells=5", *arguments)
    text = (tmp_path / "cells.csv").read_text()
    assert text.startswith(first)
    rows = list(csv.DictReader(text.splitlines()))
    assert [tuple(map(int, row["cell"])) for row in rows] == cells_script.draw_cells(5)
    accuracies = tabular.load(table).accuracies
    for row in rows:
        cell = tuple(map(int, row["cell"]))
        assert float(row["accuracy"]) == accuracies[cell]
        assert float(row["skips"]) == pytest.approx(cell.count(SPACE.ops.index("skip_connect")) / 6)
        assert float(row["conditioning"]) < 0 and np.isfinite(float(row["loss"]))
    assert len(re.findall(r"^\| \w+, \w+ \| -?\d", (tmp_path / "table.md").read_text(), re.MULTILINE)) == 8
    assert (tmp_path / "gram.png").exists()
    for other, message in (("--steps=4", "config.steps is 3 there and 4 here"), ("--steps=3", "has no config.json")):
        with pytest.raises(SystemExit, match=message):
            scripts.run("gram_nasbench201", "--cells=5", *arguments, other)
        (tmp_path / "config.json").unlink(missing_ok=True)


def test_a_row_has_the_eigenvalues_and_the_mean_of_the_last_losses(table):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    losses = np.arange(20.0)
    row = cells_script.row((1, 1, 0, 2, 3, 4), basis * [1.0, 2.0, 4.0] @ basis.T, losses, tabular.load(table))
    assert row["conditioning"] == pytest.approx(np.log(1 / 4)) and row["size"] == pytest.approx(np.log(7 / 3))
    assert row["loss"] == losses[10:].mean() and row["skips"] == pytest.approx(2 / 6) and row["accuracy"] == 11


def test_growth_of_op_weights_is_compared_with_their_gain(tmp_path, monkeypatch):
    """DARTS's logits are made to follow the gains in conditioning, PR-DARTS's are random."""
    script = scripts.load("bilevel_nasbench201")
    gains = {}

    def measure(images, channels, draws):
        rng = np.random.default_rng(0)
        assert images.shape[1:] == (4, 4, 1) and (channels, draws) == (2, 1)
        gains.update(conditioning=rng.normal(size=SPACE.shape), size=rng.normal(size=SPACE.shape))
        return gains

    def searching(config, workdir):
        if config.seed == 3:
            raise loop.Diverged("it diverged")
        rng = np.random.default_rng(config.seed)
        gain = gains["conditioning"] - gains["conditioning"].mean(1, keepdims=True)
        logits = gain if config.method == "darts" else rng.normal(size=SPACE.shape)
        genotype = problems.make_method(config).derive(SPACE, {"normal": logits})
        scripts.write_run(workdir, {"epoch": config.epochs - 1, "genotype": dataclasses.asdict(genotype)})
        architecture.save(workdir, config.epochs - 1, {"normal": logits}, {"normal": logits})
        return {config.seed: genotype}

    monkeypatch.setattr(script, "measure_gains", measure)
    monkeypatch.setattr(family.search, "run", searching)
    tiny = "dataset=digits,image_size=4,num_examples=64,epochs=2,channels=2"
    scripts.run("bilevel_nasbench201", "--draws=1", "--seeds", 0, 1, 2, 3, f"--set={tiny}", f"--workdir={tmp_path}")
    darts, pr_darts, gain = (tmp_path / "table.md").read_text().splitlines()[2:]
    links = [float(row.split("|")[3].split("(")[0]) for row in (darts, pr_darts)]
    assert links[0] > 0.7 and abs(links[1]) < 0.5
    assert gain.startswith("| gain of skip connections")
    with pytest.raises(SystemExit, match="config.draws is 1 there and 2 here"):
        scripts.run("bilevel_nasbench201", "--draws=2", f"--set={tiny}", f"--workdir={tmp_path}")


def test_gains_are_differences_of_gram_matrices():
    """Of every op but `none`, whose op weight changes nothing."""
    script = scripts.load("bilevel_nasbench201")
    images = jax.random.normal(jax.random.key(0), (24, 4, 4, 1))
    gains = script.measure_gains(jnp.asarray(images), 2, 1)
    none = SPACE.ops.index("none")
    for gain in gains.values():
        assert gain.shape == SPACE.shape and np.isfinite(gain).all()
        np.testing.assert_allclose(gain[:, none], 0, atol=1e-2)
        assert np.abs(gain).max() > 0.1


def test_the_figure_shows_the_draws_of_a_run(tmp_path):
    config = runpy.run_path(str(scripts.ROOT / "configs/theory.py"))["get_config"]()
    shared = "seed = [1], width = [2], draws = 2, infinite_draws = 2, steps = 2, samples = 2"
    for claim, others in {"skips_faster": "nodes = [3]", "depth_slower": "depths = [2, 3]"}.items():
        config.claim, config.sizes = claim, f"{shared}, {others}"
        job.run(config, tmp_path / claim)
    workdir = tmp_path / "both"
    for claim in ("skips_faster", "depth_slower"):
        for path in (tmp_path / claim / "draws").glob("*/*.npz"):
            reporting.write_bytes(workdir / "draws" / path.parent.name / path.name, path.read_bytes())
    scripts.run("theory_figure", f"--workdir={workdir}", f"--out={tmp_path / 'figure.png'}")
    assert (tmp_path / "figure.png").exists()
    script = scripts.load("theory_figure")
    found = script.read(workdir, "share")
    lines = script.curves(found, "softplus", "conditioning")
    assert list(lines) == ["h = 3", "h = 3, infinite width"]
    (_, draws), (x, infinite) = lines["h = 3"], lines["h = 3, infinite width"]
    np.testing.assert_array_equal(draws, found[0][1]["conditioning"])
    assert x.tolist() == [0, 0.25, 0.5, 0.75, 1] and infinite.shape == (2, 5)
    assert len(script.make_figure(workdir).axes) == 4
