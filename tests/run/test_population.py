"""Several seeds at once are the searches of each seed alone, and what they have in common."""

import json

import pytest
from shared import assert_same_run, make_toy, tiny_config

from prdarts_jax.run import architecture, population, problems, run_log, search
from prdarts_jax.spaces import genotypes

FIRST, SEEDS = 3, 2


@pytest.fixture(scope="module", params=["darts", pytest.param("pr_darts_released", marks=pytest.mark.slow)])
def together(request, no_pictures, tmp_path_factory):
    """(method, folder of the population, the cells it has found).

    A stand-in for the supernet compiles faster; slow is the supernet itself, where each seed executes other ops."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "darts":
            patch.setattr(problems, "make_supernet", make_toy)
        folder, config = tmp_path_factory.mktemp("together"), tiny_config(request.param, seed=FIRST, seeds=SEEDS)
        found = search.run(config, folder)
        assert (folder / "population.md").exists()
        assert not (folder / "metrics.jsonl").exists()
        yield request.param, folder, found


def test_a_seed_is_what_it_is_alone_bit_for_bit(together, tmp_path):
    """The last one; `test_search_job.py` has a first one."""
    method, folder, found = together
    seed = FIRST + SEEDS - 1
    of_seed = folder / f"seed_{seed}"
    alone = search.run(tiny_config(method, seed=seed), tmp_path)
    assert alone == {seed: found[seed]} == {seed: genotypes.load(of_seed / "genotype.json")}
    assert_same_run(of_seed, tmp_path)


def test_the_spread_is_that_of_the_seeds_last_epochs(together):
    _, folder, _ = together
    result = json.loads((folder / "population.json").read_text())
    assert result["seeds"] == [3, 4]
    of_seeds = [folder / f"seed_{seed}" for seed in result["seeds"]]
    first, second = (architecture.read_logits(of_seed, 1)["normal"] for of_seed in of_seeds)
    assert (first != second).all()
    last = [run_log.read_records(of_seed)[-1] for of_seed in of_seeds]
    for field, of in (
        ("val_loss", lambda record: record["val_loss"]),
        ("entropy/reduce", lambda record: record["entropy"]["reduce"]),
    ):
        a, b = map(of, last)
        expected = {"mean": (a + b) / 2, "std": abs(a - b) / 2**0.5, "min": min(a, b), "max": max(a, b)}
        assert result["last epoch"][field] == pytest.approx(expected)
    assert not any(field.startswith(("seconds", "genotype")) for field in result["last epoch"])
    assert (folder / "population.png").read_bytes().startswith(b"\x89PNG")


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
