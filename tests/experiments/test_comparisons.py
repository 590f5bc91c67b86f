"""Every comparison runs: one on the digits, with a stand-in for the supernet, others with searches that are made up."""

import dataclasses
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import scipy.stats
import scripts
from table import make_table

from prdarts_jax import spaces
from prdarts_jax.run import problems, reporting, settings, train
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes, tabular

family = scripts.load("family")
pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = "dataset=digits,image_size=4,num_examples=64,epochs=2,batch_size=16,steps_per_call=2,random_search.samples=5"


@pytest.fixture
def made_up_searches(monkeypatch):
    """In place of searches: logits that are drawn anew in each epoch, and the cells derived from them."""

    def searching(config, workdir):
        rng, space = np.random.default_rng(config.seed), spaces.named(config.space)
        (workdir / "architecture").mkdir(parents=True)
        lines = []
        for epoch in range(config.epochs):
            logits = {t: rng.normal(size=space.shape) for t in space.cell_types}
            reporting.save_architecture(workdir, epoch, logits, logits)
            genotype = problems.make_method(config).derive(space, logits)
            lines.append(json.dumps({"epoch": epoch, "genotype": dataclasses.asdict(genotype)}) + "\n")
        reporting.write_bytes(workdir / reporting.METRICS, "".join(lines).encode())
        return {config.seed: genotype}

    monkeypatch.setattr(family.search, "run", searching)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of NAS-Bench-201, made up."""
    path = tmp_path_factory.mktemp("table") / "table.txt"
    cells = itertools.product(range(5), repeat=6)
    lines = [f"[{', '.join(map(str, cell))}],{sum(cell)}\n" for cell in cells]
    path.write_text("".join(["dataset digits\n", *lines]))
    return path


# Variants -------------------------------------------------------------------------------------------------------------


def test_fields_are_values_or_text():
    found = family.parse_fields("epochs=1,p_darts.cells=(1, 2),space=s2,data_dir=/a/b,logits.start=None")
    assert found == {"epochs": 1, "p_darts.cells": (1, 2), "space": "s2", "data_dir": "/a/b", "logits.start": None}
    assert family.parse_fields("") == {}
    with pytest.raises(ValueError, match="'epochs' must have the form FIELD=VALUE"):
        family.parse_fields("epochs")


def test_a_variant_is_the_base_with_a_method_its_settings_and_what_regularises():
    base = family.small_config("darts", "")
    for name, method in methods.NAMED.items():
        config = family.variant(base, name)
        expected = family.with_fields(base, {"method": name})
        for field in ("weight_decay", "nesterov"):
            expected.weights[field] = method.paper.get(f"weights.{field}", base.weights[field])
        expected.logits.weight_decay = method.paper.get("logits.weight_decay", base.logits.weight_decay)
        assert config.to_dict() == expected.to_dict()
    assert family.variant(base, "r_darts").weights.weight_decay == 27e-4
    assert family.variant(base, "beta_darts").logits.weight_decay == 0 < base.logits.weight_decay
    config = family.variant(base, "r_darts:drop_path=0.2,weights.weight_decay=3e-4")
    assert (config.r_darts.drop_path, config.weights.weight_decay) == (0.2, 3e-4)
    assert base.to_dict() == family.small_config("darts", "").to_dict()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("enas", "method='enas' must be one of pr_darts, "),
        ("darts:speed=1", "config.darts.speed is not a field of this config; the fields are "),
        ("lambda_darts:variant=sine", "config.lambda_darts.variant='sine' must be one of cosine, signcorr"),
        ("gdas:start_temperature=hot", "config.gdas.start_temperature='hot' must be of type float"),
    ],
)
def test_an_impossible_variant_is_refused(text, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        family.variant(settings.search(), text)


def test_variants_have_folders_of_their_own(tmp_path):
    folders = {family.workdir(tmp_path, name, seed) for name in family.VARIANTS for seed in (0, 1)}
    assert len(folders) == 2 * len(family.VARIANTS) and {folder.parent for folder in folders} == {tmp_path}
    assert family.workdir(tmp_path, "darts:second_order=True", 0).name == "darts_second_order_True_seed_0"


# Scripts --------------------------------------------------------------------------------------------------------------


def rows(workdir):
    """Of table.md, cell by cell."""
    return [line.strip("| ").split(" | ") for line in (workdir / "table.md").read_text().splitlines()[2:]]


NAMES = ["gdas", "lambda_darts:variant=signcorr"]


@pytest.fixture(scope="module")
def supernet_of_a_table():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "make_supernet", make_table)
        yield


@pytest.fixture(scope="module")
def searches(table, supernet_of_a_table, no_pictures, tmp_path_factory):
    """The workdir of two searches."""
    workdir = tmp_path_factory.mktemp("searches")
    arguments = [f"--table={table}", f"--workdir={workdir}", "--seeds", 1, f"--set={TINY}"]
    with pytest.raises(SystemExit, match="^error: method='enas' must be one of"):
        scripts.run("compare_nasbench201", *arguments, "--methods", "darts", "enas")
    assert not list(workdir.iterdir())
    scripts.run("compare_nasbench201", *arguments, "--methods", *NAMES)
    return workdir


def test_cells_of_nas_bench_201_are_compared(searches):
    found, others = rows(searches)[: len(NAMES)], rows(searches)[len(NAMES) :][:3]
    assert [row[0] for row in found] == [f"`{name}`" for name in NAMES]
    assert [row[0] for row in others] == ["all 15,625 cells", "the best cell", "skip connections alone"]
    names = ("cells", "accuracy", "skips", "entropy", "alignment", "eigenvalue")
    assert {f"{name}.png" for name in names} <= {path.name for path in searches.iterdir()}
    assert {path.stem for path in searches.glob("*.jsonl")} == {path.name for path in searches.glob("*_seed_1")}


def test_ways_from_a_supernet_to_a_cell_are_compared(searches, table, tmp_path, capsys):
    run, before = searches / "gdas_seed_1", (searches / "gdas_seed_1/config.json").read_bytes()
    few = "selection.val_batches=1,selection.finetuning_steps=1,selection.samples=3"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--set={few}"]
    with pytest.raises(SystemExit, match="^error: .*absent_seed_0 is not the folder of a finished search"):
        scripts.run("compare_discretizations", *arguments, "--runs", searches / "absent_seed_0")
    scripts.run("compare_discretizations", *arguments, "--runs", run)
    made = rows(tmp_path)
    assert made[0][:2] == ["`gdas`", "1"] and (run / "config.json").read_bytes() == before
    accuracies = [float(entry.split()[0]) for entry in made[0][2:]]
    found = tabular.load(table)
    assert accuracies[0] == round(found.accuracy(genotypes.load(run / "genotype.json")), 2)
    for accuracy, way in zip(accuracies[1:], ("perturbation", "best_of"), strict=True):
        genotype = genotypes.load(tmp_path / way / "gdas_seed_1/genotype.json")
        assert accuracy == round(found.accuracy(genotype), 2)
    capsys.readouterr()
    scripts.run("compare_discretizations", *arguments, "--runs", run)
    assert "compiled" not in capsys.readouterr().out and rows(tmp_path) == made
    elsewhere = [f"--workdir={tmp_path / 'new'}", f"--results={tmp_path}"]
    scripts.run("compare_discretizations", *arguments, *elsewhere)
    assert rows(tmp_path / "new") == made  # without the run
    with pytest.raises(SystemExit, match="^error: .*gdas_seed_1.json is of other settings of the selection"):
        scripts.run("compare_discretizations", *arguments, "--runs", run, "--set=selection.samples=4")
    shutil.copytree(run, tmp_path / "other/gdas_seed_1")
    cell = json.dumps(dataclasses.asdict(genotypes.EdgeGenotype(("none",) * 6)))
    (tmp_path / "other/gdas_seed_1/genotype.json").write_text(cell)
    with pytest.raises(SystemExit, match="^error: .*gdas_seed_1.json is of another search"):
        scripts.run("compare_discretizations", *arguments, "--runs", tmp_path / "other/gdas_seed_1")
    (tmp_path / "best_of/gdas_seed_1.json").unlink()
    with pytest.raises(SystemExit, match="^error: .* has no results: give finished searches to --runs"):
        scripts.run("compare_discretizations", *arguments)


def test_the_differences_of_ways_are_means_of_pairs_with_standard_errors(table):
    script = scripts.load("compare_discretizations")
    cells = [script.Choice(genotypes.EdgeGenotype((spaces.nas_bench_201().ops[i],) * 6), 10.0) for i in range(5)]
    results = {  # of i on every edge the made-up table has 6 i
        ("darts", 0): {"derived": cells[0], "perturbation": cells[1], "best_of": cells[0]},
        ("darts", 1): {"derived": cells[1], "perturbation": cells[4], "best_of": cells[0]},
        ("gdas", 1): {"derived": cells[1], "perturbation": cells[1], "best_of": cells[2]},
    }
    text = script.make_table(results, tabular.load(table))
    assert "| `darts` | 1 | 6.00 (10.0) | 24.00 (10.0) | 0.00 (10.0) |\n" in text
    assert "| `darts` | 2 | +12.00 ± 6.00 | -3.00 ± 3.00 |\n| `gdas` | 1 | +0.00 | +6.00 |\n| all | 3 | +8.00" in text


def test_compositions_are_searched_and_their_parts_compared(table, supernet_of_a_table, tmp_path):
    few = f"{TINY},epochs=1,selection.val_batches=1,selection.finetuning_steps=1,selection.samples=2"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--set={few}", "--relaxations", "softmax", "gates"]
    scripts.run("compose", *arguments, "--seeds", 1, "--terms", "path and sparsity")
    made = rows(tmp_path)
    assert [row[:2] for row in made[:2]] == [["softmax", "path and sparsity"], ["gates", "path and sparsity"]]
    written = tmp_path / "methods/gates_path_and_sparsity.toml"
    assert methods.find(str(written))().terms == methods.pr_darts().terms[2:] + methods.pr_darts().terms[:2]
    for name, row in (("softmax", made[0]), ("gates", made[1])):
        for way, accuracy in zip(("", "perturbation", "best_of"), row[2:], strict=True):
            genotype = genotypes.load(tmp_path / way / f"{name}_path_and_sparsity_seed_1/genotype.json")
            assert float(accuracy) == round(tabular.load(table).accuracy(genotype), 2)


def compositions(value):
    """{(relaxation, term, way, seed): value of it}, of three seeds."""
    ways = scripts.load("compose").WAYS
    places = itertools.product(("softmax", "gates", "gumbel"), ("none", "path"), ways, range(3))
    return {place: value(*place) for place in places}


def test_the_effect_of_a_part_is_a_number_a_seed():
    """Ranks of 50, what the relaxation, the term and the way add, and with gates the number of the seed."""
    adds = {"gates": 3, "path": -1, "perturbation": 2}
    script = scripts.load("compose")
    ranks = compositions(lambda r, t, w, seed: 50 + sum(adds.get(x, 0) for x in (r, t, w)) + seed * (r == "gates"))
    del ranks["gates", "path", "logits", 0]  # its pair is left out
    relaxations, terms, ways = (script.effects(ranks, factor) for factor in range(3))
    assert relaxations == {"gates": pytest.approx([3, 4, 5]), "gumbel": [0, 0, 0]}
    assert terms == {"path": pytest.approx([-1, -1, -1])} and ways["perturbation"] == pytest.approx([2, 2, 2])
    assert script.interval([3, 4, 5], 1) == (4, pytest.approx(4.3027 / 3**0.5, rel=1e-4))
    assert script.interval([3, 4, 5], 5) == (4, pytest.approx(9.9248 / 3**0.5, rel=1e-4))  # t of 0.995
    assert script.interval([3.0], 5) == (3.0, np.inf)


def test_parts_without_an_effect_seldom_differ():
    """Also where the supernets of a relaxation and a seed have most of their luck in common: in at most one table of
    twenty a part is said to differ."""
    script, false = scripts.load("compose"), 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        of_relaxation = {(r, seed): rng.normal() for r in ("softmax", "gates", "gumbel") for seed in range(3)}
        ranks = compositions(lambda r, t, w, seed, rng=rng, luck=of_relaxation: luck[r, seed] + 0.5 * rng.normal())
        effects = [of_seeds for factor in range(3) for of_seeds in script.effects(ranks, factor).values()]
        intervals = [script.interval(of_seeds, len(effects)) for of_seeds in effects]
        false += any(abs(mean) > half for mean, half in intervals)
    assert false <= scipy.stats.binom.ppf(0.999, 200, 0.05)


def test_compositions_are_judged_by_the_ranks_of_their_cells(table):
    """In the made-up table the cell with op o on every edge has 6 o, and is better than those with a smaller o."""
    script, cells = scripts.load("compose"), [genotypes.EdgeGenotype((op,) * 6) for op in spaces.nas_bench_201().ops]
    found = compositions(lambda r, t, w, seed: cells[2 + (r == "gates") + (w == "best_of")])
    text, made = script.make_table(found, tabular.load(table)), tabular.load(table)
    assert "rank beside softmax, points" in text and "rank beside none, points" in text
    assert "| gates | path | 18.00 ± 0.00 (18.00, 18.00, 18.00) | 18.00 " in text
    gain = (2 * made.percentile(cells[3]) - 2 * made.percentile(cells[2])) / 3
    gain += (made.percentile(cells[4]) - made.percentile(cells[3])) / 3
    assert f"| gates | {gain:+.1f} ± 0.0 | 3 | better |" in text
    assert "| path | +0.0 ± 0.0 | 3 | cannot be told apart |" in text


def test_searches_of_several_lengths_are_compared(table, made_up_searches, tmp_path):
    tiny = "num_examples=256,epochs=2,batch_size=32"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", "--seeds", 1, f"--set={tiny}", "--epochs", 1, 2]
    scripts.run("search_length", *arguments, "--methods", "darts")
    lines = (tmp_path / "length.md").read_text().splitlines()
    assert lines[0] == "| steps | 1 | 4 | 8 |" and len(lines[2].split(" | ")) == 4
    for folder, epochs in {"length_0": 1, "length_1": 1, ".": 2}.items():
        assert len(reporting.read_records(tmp_path / folder / "darts_seed_1")) == epochs
    assert (tmp_path / "length.png").exists()


def test_searches_of_several_lengths_on_the_digits(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies: a tenth of the seed, and 0.9 for other cells."""

    def evaluate(cells, config, workdir, **options):
        assert (config.dataset, config.epochs, len(cells)) == ("digits", 20, 2 * 2 * 2 + 20 + 1)
        seeds = {name: re.search(r"_seed_(\d)_length_", name) for name in cells}
        return {name: {"accuracy": int(seed[1]) / 10 if seed else 0.9} for name, seed in seeds.items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    scripts.run("search_length_digits", f"--workdir={tmp_path}", "--seeds", 4, 6, "--epochs", 1, 2)
    lines = (tmp_path / "length.md").read_text().splitlines()
    assert lines[0] == "| steps | 14 | 28 |" and lines[2] == f"| `pr_darts` |{' 50.00 ± 14.14 (40.00, 60.00) |' * 2}"
    assert lines[-1].startswith("Random cells: 90.00 ± 0.00 (90.00, ")
    for epochs in (1, 2):
        assert len(reporting.read_records(tmp_path / f"length_{epochs}" / "darts_seed_6")) == epochs
    assert (tmp_path / "length.png").exists()


@pytest.mark.parametrize(
    ("script", "table_name", "arguments"),
    [
        ("compare_spaces", "table.md", ["--spaces", "s2", f"--set={TINY}"]),
        ("search_length", "length.md", ["--epochs", 1, "--set=num_examples=256,epochs=2,batch_size=32"]),
        ("paper_in_miniature", "table.md", [f"--set={TINY}"]),
        ("compare_digits", "table.md", ["--set=epochs=1"]),
        ("search_length_digits", "length.md", ["--epochs", 1]),
    ],
)
def test_what_is_kept_is_not_run_again(script, table_name, arguments, table, made_up_searches, tmp_path, monkeypatch):
    def evaluate(cells, config, workdir, **options):
        return {name: {"accuracy": 0.1 * len(name), "params": 1, "rank": 1} for name in cells}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    arguments = [*arguments, "--methods", "darts", "gdas", "--seeds", 0, 1, f"--results={tmp_path / 'results'}"]
    arguments += [f"--table={table}"] * (script == "search_length")
    scripts.run(script, *arguments, f"--workdir={tmp_path / 'first'}")
    monkeypatch.delattr(family.search, "run")
    monkeypatch.delattr(family.kept.pdx, "evaluate")
    scripts.run(script, *arguments, f"--workdir={tmp_path / 'second'}")
    assert (tmp_path / "first" / table_name).read_text() == (tmp_path / "second" / table_name).read_text()
    assert not list((tmp_path / "second").glob("**/metrics.jsonl"))


def test_kept_searches_of_nas_bench_201_are_drawn_again(searches, table, tmp_path, monkeypatch):
    monkeypatch.delattr(family.search, "run")
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--results={searches}", "--seeds", 1, f"--set={TINY}"]
    scripts.run("compare_nasbench201", *arguments, "--methods", *NAMES)
    assert rows(tmp_path) == rows(searches) and (tmp_path / "eigenvalue.png").exists()


def test_the_paper_in_miniature(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies, which grow with the number of weights."""
    evaluated = {}

    def evaluate(cells, config, workdir, *, space, trainings):
        evaluated.update(cells)
        assert trainings == 3
        params = {name: sum(op.startswith("sep") for op, _ in cell.normal) for name, cell in cells.items()}
        return {name: {"accuracy": number / 8, "params": number, "rank": 1} for name, number in params.items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    chosen = ["--methods", "darts", "pr_darts", "--seeds", 0, 1, f"--workdir={tmp_path}", f"--set={TINY}"]
    scripts.run("paper_in_miniature", *chosen)
    table, verdicts = (tmp_path / "table.md").read_text().split("\n\n")
    kinds = [line.split(" | ")[0].strip("| `") for line in table.splitlines()[2:]]
    assert kinds == ["darts", "pr_darts", "random", "darts_v2", "all_skip"] and len(evaluated) == 2 * 2 + 10 + 2
    judged = [line.split(" | ")[0].strip("| ") for line in verdicts.splitlines()[2:]]
    assert judged == [
        "skips: darts > pr_darts",
        "depth: pr_darts > darts",
        "accuracy: pr_darts > darts",
        "accuracy: pr_darts > random",
    ]
    assert (tmp_path / "cells.png").exists()


def test_methods_are_compared_on_the_digits(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies, which are the share of skip connections."""

    def evaluate(cells, config, workdir, *, space, trainings):
        assert config.test_on_rest and config.num_examples == 900 and trainings == 1
        return {name: {"accuracy": family.skips(cell) / 100, "params": 1, "rank": 1} for name, cell in cells.items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    chosen = ["--methods", "gdas", "random_search", "--seeds", 0, 1, f"--workdir={tmp_path}", "--set=epochs=1"]
    scripts.run("compare_digits", *chosen)
    found = {row[0].strip("`"): row[1:3] for row in rows(tmp_path)[:4]}
    assert list(found) == ["gdas", "random_search", "random", "all_skip"] and found["all_skip"] == ["100.00", "100"]
    for accuracy, skips in found.values():  # both are means
        assert float(accuracy.partition(" ")[0]) == pytest.approx(float(skips.partition(" ")[0]), abs=0.51)
    assert [row[0] for row in rows(tmp_path)[7:]] == ["`gdas`", "`random_search`"]  # beside random cells


def test_samples_are_told_apart_by_intervals_that_hold_together():
    """Dunnett's critical value for two samples of equal size and 16 degrees of freedom is 2.42 (his table of 1964).
    Here the control is larger; the value is between that of a single t test and Bonferroni's."""
    rng = np.random.default_rng(0)
    samples = {"good": 3 + rng.normal(size=5), "control": rng.normal(size=9), "same": rng.normal(size=5)}
    pooled = sum(((values - values.mean()) ** 2).sum() for values in samples.values()) / 16
    error = (pooled * (1 / 5 + 1 / 9)) ** 0.5
    _, head, _, *found = family.beside(
        samples | {"good": [*samples["good"], np.nan], "none": [np.nan]}, "control", "accuracy"
    ).splitlines()
    assert head == "| | accuracy beside `control` | |"
    for row, (name, verdict) in zip(found, {"good": "better", "same": "cannot be told apart"}.items(), strict=True):
        kind, difference, said = row.strip("| ").split(" | ")
        mean, half = map(float, difference.split(" ± "))
        assert (kind, said) == (f"`{name}`", verdict)
        assert mean == pytest.approx(samples[name].mean() - samples["control"].mean(), abs=0.006)
        assert scipy.stats.t.ppf(0.975, 16) < half / error < scipy.stats.t.ppf(1 - 0.025 / 2, 16)
        assert half / error == pytest.approx(2.42, abs=0.05)


def test_the_ranks_of_cells_are_among_all_that_were_trained():
    found = scripts.load("compare_digits").ranks({"darts": [10.0, 98.0, np.nan], "random": [97.0, 98.0]})
    np.testing.assert_array_equal(found["darts"], [25, 100, np.nan])
    np.testing.assert_array_equal(found["random"], [50, 100])


@pytest.mark.parametrize("samples", [{"a": [1.0, 2.0]}, {"a": [np.nan], "b": [1.0, 2.0]}, {"a": [1.0], "b": [2.0]}])
def test_samples_without_a_spread_or_another_are_not_compared(samples):
    assert family.beside(samples, "a", "accuracy") == ""


def test_a_prediction_is_confirmed_refuted_or_not_decided():
    paper = scripts.load("paper_in_miniature")
    better, worse, near = [93.0, 94.0, 95.0], [90.0, 91.0, 92.5], [92.0, 95.5, 94.0]
    numbers = {"pr_darts": {"accuracy": better}, "darts": {"accuracy": worse}, "pr_darts_gates": {"accuracy": near}}
    numbers |= {"random": {"accuracy": [96.0, 97.0, 96.5]}}
    for kind in numbers.values():
        kind |= {"skips": [1.0, 2.0, 4.0], "depth": [1.0, 1.0, 1.0]}
    found = dict(line.strip("| ").split(" | ")[::2] for line in paper.judge(numbers).splitlines()[2:])
    assert found["accuracy: pr_darts > darts"] == "confirmed"
    assert found["accuracy: pr_darts > random"] == "refuted"
    assert found["accuracy: pr_darts > pr_darts_gates"] == found["skips: darts > pr_darts"] == "not decided"
    mean, error = paper.difference(better, worse, paired=True)
    assert mean == pytest.approx(2.8333, abs=1e-3) and error == pytest.approx(0.16667, abs=1e-3)


def test_spaces_are_compared(made_up_searches, tmp_path):
    scripts.run("compare_spaces", "--seeds", 0, "--spaces", "s4", f"--workdir={tmp_path}", f"--set={TINY}")
    assert [row[:2] for row in rows(tmp_path)] == [["s4", "`darts`"], ["s4", "`pr_darts`"]]
    assert (tmp_path / "skips_s4.png").exists()


def test_gates_with_and_without_sparsity(made_up_searches, tmp_path):
    chosen = ["--seeds", 0, 1, "--variants", "all", "none"]
    scripts.run("gate_sparsity", *chosen, f"--workdir={tmp_path}", f"--set={TINY}")
    assert [row[0] for row in rows(tmp_path)] == ["all", "none"]
    assert np.isfinite([[float(cell.split()[0]) for cell in cells] for _, *cells in rows(tmp_path)]).all()
    assert (tmp_path / "sparsity.png").exists()
    for variant in scripts.load("gate_sparsity").VARIANTS.values():
        family.variant(settings.search(), variant)


def test_networks_with_and_without_skips(tmp_path, monkeypatch):
    """With a stand-in for the training, which falls the faster the more skip connections there are."""

    def training(config, workdir):
        (share,) = {*genotypes.skip_share(train.check(config).genotype).values()}
        loss = np.exp(-share * np.arange(1, config.epochs + 1)) + config.seed
        records = [{"epoch": epoch, "train_loss": value} for epoch, value in enumerate(loss.tolist())]
        reporting.write_bytes(workdir / reporting.METRICS, "".join(f"{json.dumps(r)}\n" for r in records).encode())

    monkeypatch.setattr(train, "run", training)
    tiny = "num_examples=64,epochs=2,batch_size=32,channels=2,cells=1"
    chosen = ["--datasets", "digits", "--draws", 0, 1, f"--workdir={tmp_path}", f"--set={tiny}"]
    scripts.run("skip_fraction", *chosen)
    assert [row[:2] for row in rows(tmp_path)] == [["digits", "0 %"], ["digits", "37.5 %"], ["digits", "62.5 %"]]
    faster = [float(row[4].split()[0]) for row in rows(tmp_path)]
    assert faster[0] == 0 < faster[1] < faster[2]
    assert (tmp_path / "skips.png").exists()
