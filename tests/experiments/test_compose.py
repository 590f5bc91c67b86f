"""What each part of a method is worth: compositions on the digits, with a stand-in for the supernet."""

import itertools

import numpy as np
import pytest
import scipy.stats
import scripts

from prdarts_jax import spaces
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes, tabular

family = scripts.load("family")
pytestmark = pytest.mark.usefixtures("no_pictures")


def test_compositions_are_searched_and_their_parts_compared(table, supernet_of_a_table, tmp_path):
    few = f"{scripts.TINY},epochs=1,selection.val_batches=1,selection.finetuning_steps=1,selection.samples=2"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--set={few}", "--relaxations", "gates"]
    scripts.run("compose", *arguments, "--seeds", 1, "--terms", "path and sparsity")
    made = scripts.rows(tmp_path)
    assert made[0][:2] == ["gates", "path and sparsity"]
    written = tmp_path / "methods/gates_path_and_sparsity.toml"
    assert methods.find(str(written))().terms == methods.pr_darts().terms[2:] + methods.pr_darts().terms[:2]
    accuracies = tabular.load(table)
    for way, accuracy in zip(("", "perturbation", "best_of"), made[0][2:], strict=True):
        genotype = genotypes.load(tmp_path / way / "gates_path_and_sparsity_seed_1/genotype.json")
        assert float(accuracy) == round(accuracies.accuracy(genotype), 2)


def compositions(value):
    """{(relaxation, term, way, seed): value of it}, of three seeds."""
    ways = scripts.load("compose").WAYS
    places = itertools.product(("softmax", "gates", "gumbel"), ("none", "path"), ways, range(3))
    return {place: value(*place) for place in places}


def test_the_effect_of_a_part_is_a_number_a_seed():
    """Percentiles of 50, what the relaxation, the term and the way add, and with gates the number of the seed."""
    adds = {"gates": 3, "path": -1, "perturbation": 2}
    script = scripts.load("compose")
    percentiles = compositions(
        lambda r, t, w, seed: 50 + sum(adds.get(x, 0) for x in (r, t, w)) + seed * (r == "gates")
    )
    del percentiles["gates", "path", "logits", 0]  # its pair is left out
    relaxations, terms, ways = (script.effects(percentiles, factor) for factor in range(3))
    assert relaxations == {"gates": pytest.approx([3, 4, 5]), "gumbel": [0, 0, 0]}
    assert terms == {"path": pytest.approx([-1, -1, -1])} and ways["perturbation"] == pytest.approx([2, 2, 2])
    assert family.interval([3, 4, 5], 1) == (4, pytest.approx(4.3027 / 3**0.5, rel=1e-4))
    assert family.interval([3, 4, 5], 5) == (4, pytest.approx(9.9248 / 3**0.5, rel=1e-4))  # t of 0.995
    assert family.interval([3.0], 5) == (3.0, np.inf)


def test_parts_without_an_effect_seldom_differ():
    """Also where the supernets of a relaxation and a seed have most of their luck in common: in at most one table of
    twenty a part is said to differ."""
    script, false = scripts.load("compose"), 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        of_relaxation = {(r, seed): rng.normal() for r in ("softmax", "gates", "gumbel") for seed in range(3)}
        percentiles = compositions(
            lambda r, t, w, seed, rng=rng, luck=of_relaxation: luck[r, seed] + 0.5 * rng.normal()
        )
        effects = [of_seeds for factor in range(3) for of_seeds in script.effects(percentiles, factor).values()]
        intervals = [family.interval(of_seeds, len(effects)) for of_seeds in effects]
        false += any(abs(mean) > half for mean, half in intervals)
    assert false <= scipy.stats.binom.ppf(0.999, 200, 0.05)


def test_compositions_are_judged_by_the_percentiles_of_their_cells(table):
    """In the made-up table the cell with op o on every edge has 6 o, and is better than those with a smaller o."""
    script, cells = scripts.load("compose"), [genotypes.EdgeGenotype((op,) * 6) for op in spaces.nas_bench_201().ops]
    found = compositions(lambda r, t, w, seed: cells[2 + (r == "gates") + (w == "best_of")])
    text, made = script.make_table(found, tabular.load(table)), tabular.load(table)
    assert "percentile beside softmax, points" in text and "percentile beside none, points" in text
    assert "| gates | path | 18.00 ± 0.00 (18.00, 18.00, 18.00) | 18.00 " in text
    gain = (2 * made.percentile(cells[3]) - 2 * made.percentile(cells[2])) / 3
    gain += (made.percentile(cells[4]) - made.percentile(cells[3])) / 3
    assert f"| gates | {gain:+.1f} ± 0.0 | 3 | better |" in text
    assert "| path | +0.0 ± 0.0 | 3 | cannot be told apart |" in text
