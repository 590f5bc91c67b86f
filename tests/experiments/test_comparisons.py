"""Every comparison runs: one on the digits, with a stand-in for the supernet, others with searches that are made up."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import scripts

from prdarts_jax import spaces
from prdarts_jax.run import reporting, run_log, settings, train
from prdarts_jax.spaces import genotypes, tabular

family = scripts.load("family")
pytestmark = pytest.mark.usefixtures("no_pictures")

NAMES = ["gdas", "lambda_darts:variant=signcorr"]


@pytest.fixture(scope="module")
def searches(table, supernet_of_a_table, no_pictures, tmp_path_factory):
    """The workdir of two searches."""
    workdir = tmp_path_factory.mktemp("searches")
    arguments = [f"--table={table}", f"--workdir={workdir}", "--seeds", 1, f"--set={scripts.TINY}"]
    with pytest.raises(SystemExit, match="^error: method='enas' must be one of"):
        scripts.run("compare_nasbench201", *arguments, "--methods", "darts", "enas")
    assert not list(workdir.iterdir())
    scripts.run("compare_nasbench201", *arguments, "--methods", *NAMES)
    return workdir


def test_cells_of_nas_bench_201_are_compared(searches):
    found, others = scripts.rows(searches)[: len(NAMES)], scripts.rows(searches)[len(NAMES) :][:3]
    assert [row[0] for row in found] == [f"`{name}`" for name in NAMES]
    assert [row[0] for row in others] == ["all 15,625 cells", "the best cell", "skip connections alone"]
    names = ("cells", "accuracy", "skips", "entropy", "alignment", "eigenvalue")
    assert {f"{name}.png" for name in names} <= {path.name for path in searches.iterdir()}
    assert {path.stem for path in searches.glob("*.jsonl")} == {path.name for path in searches.glob("*_seed_1")}


def test_the_table_has_all_seeds_that_are_there(made_up_searches, table, tmp_path):
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--set={scripts.TINY},hessian=False", "--methods"]
    accuracies = []
    for seeds in ((0, 1), (3,)):
        scripts.run("compare_nasbench201", *arguments, "darts", "gdas", "--seeds", *seeds)
        accuracies.append(re.findall(r"\d+\.\d\d(?=[,)]|$)", scripts.rows(tmp_path)[0][1]))
    assert len(accuracies[1]) == 3 and accuracies[1][:2] == accuracies[0]  # in the order of the seeds
    assert family.seeds_of(tmp_path, "darts") == [0, 1, 3] and family.seeds_of(tmp_path, "dart") == []


def test_ways_from_a_supernet_to_a_cell_are_compared(searches, table, tmp_path, capsys):
    run, before = searches / "gdas_seed_1", (searches / "gdas_seed_1/config.json").read_bytes()
    few = "selection.val_batches=1,selection.finetuning_steps=1,selection.samples=3"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", f"--set={few}"]
    with pytest.raises(SystemExit, match="^error: .*absent_seed_0 is not the folder of a finished search"):
        scripts.run("compare_discretizations", *arguments, "--runs", searches / "absent_seed_0")
    scripts.run("compare_discretizations", *arguments, "--runs", run)
    made = scripts.rows(tmp_path)
    assert made[0][:2] == ["`gdas`", "1"] and (run / "config.json").read_bytes() == before
    accuracies = [float(entry.split()[0]) for entry in made[0][2:]]
    found = tabular.load(table)
    assert accuracies[0] == round(found.accuracy(genotypes.load(run / "genotype.json")), 2)
    for accuracy, way in zip(accuracies[1:], ("perturbation", "best_of"), strict=True):
        genotype = genotypes.load(tmp_path / way / "gdas_seed_1/genotype.json")
        assert accuracy == round(found.accuracy(genotype), 2)
    capsys.readouterr()
    scripts.run("compare_discretizations", *arguments, "--runs", run)
    assert "compiled" not in capsys.readouterr().out and scripts.rows(tmp_path) == made
    script, folder = scripts.load("compare_discretizations"), tmp_path / "best_of/gdas_seed_1"
    fields = family.parse_fields(few) | {"discretization": "best_of"}
    assert script.choose(run, folder, fields) and "compiled" not in capsys.readouterr().out
    script.choose(run, folder, fields | {"selection.samples": 4})  # other fields: it chooses again
    assert "compiled" in capsys.readouterr().out
    elsewhere = [f"--workdir={tmp_path / 'new'}", f"--results={tmp_path}"]
    scripts.run("compare_discretizations", *arguments, *elsewhere)
    assert scripts.rows(tmp_path / "new") == made  # without the run
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
    assert "| `darts` | 2 | +12.00 ± 6.00 | -3.00 ± 3.00 |\n| `gdas` | 1 | +0.00 | +6.00 |\n" in text


def test_searches_of_several_lengths_are_compared(table, made_up_searches, tmp_path):
    tiny = "dataset=digits,num_examples=256,epochs=2,batch_size=32"
    arguments = [f"--table={table}", f"--workdir={tmp_path}", "--seeds", 1, f"--set={tiny}", "--epochs", 1, 2]
    scripts.run("search_length", *arguments, "--methods", "darts")
    lines = (tmp_path / "length.md").read_text().splitlines()
    assert lines[0] == "| steps | 1 | 4 | 8 |" and len(lines[2].split(" | ")) == 4
    for folder, epochs in {"length_0": 1, "length_1": 1, ".": 2}.items():
        assert len(run_log.read_records(tmp_path / folder / "darts_seed_1")) == epochs
    assert (tmp_path / "length.png").exists()


def test_searches_of_several_lengths_on_the_digits(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies of the cells of each method, seed and length."""

    def evaluate(cells, config, workdir, **options):
        assert (config.dataset, config.epochs, len(cells)) == ("digits", 20, 2 * 2 * 2 + 20 + 1)
        origins = {name: re.fullmatch(r"(\w+)_seed_(\d)_length_(\d)", name) for name in cells}
        found = {n: int(of[2]) / 10 + int(of[3]) / 100 * len(of[1]) if of else 0.9 for n, of in origins.items()}
        return {name: {"accuracy": number} for name, number in (found | {"random_0": None}).items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    scripts.run("search_length_digits", f"--workdir={tmp_path}", "--seeds", 4, 6, "--epochs", 1, 2)
    lines = (tmp_path / "length.md").read_text().splitlines()
    assert lines[0] == "| steps | 14 | 28 |"
    assert lines[2] == "| `pr_darts` | 58.00 ± 14.14 (48.00, 68.00) | 66.00 ± 14.14 (56.00, 76.00) |"
    assert lines[3] == "| `darts` | 55.00 ± 14.14 (45.00, 65.00) | 60.00 ± 14.14 (50.00, 70.00) |"
    assert lines[-1] == f"Random cells: 90.00 ± 0.00 ({', '.join(19 * ['90.00'])})"
    for epochs in (1, 2):
        assert len(run_log.read_records(tmp_path / f"length_{epochs}" / "darts_seed_6")) == epochs


@pytest.mark.parametrize(
    ("script", "table_name", "arguments"),
    [
        ("compare_spaces", "table.md", ["--spaces", "s2", f"--set={scripts.TINY}"]),
        ("search_length", "length.md", ["--epochs", 1, "--set=dataset=digits,num_examples=256,epochs=2,batch_size=32"]),
        ("paper_in_miniature", "table.md", [f"--set={scripts.TINY}"]),
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
    arguments = [f"--workdir={tmp_path}", f"--results={searches}", "--seeds", 1, f"--set={scripts.TINY}"]
    scripts.run("compare_nasbench201", f"--table={table}", *arguments, "--methods", *NAMES)
    assert scripts.rows(tmp_path) == scripts.rows(searches) and (tmp_path / "eigenvalue.png").exists()
    other = scripts.write_table(tmp_path / "other.txt", "cifar100")
    with pytest.raises(SystemExit, match="^error: accuracy table .*other.txt is of cifar100, but must be of the data"):
        scripts.run("compare_nasbench201", f"--table={other}", *arguments, "--methods", *NAMES)


def test_methods_are_compared_on_the_digits(made_up_searches, tmp_path, monkeypatch):
    """With made-up accuracies, which are the share of skip connections."""

    def evaluate(cells, config, workdir, *, space, trainings):
        assert config.test_on_rest and config.num_examples == 900 and trainings == 1
        return {name: {"accuracy": family.skips(cell) / 100, "params": 1, "rank": 1} for name, cell in cells.items()}

    monkeypatch.setattr(family.kept.pdx, "evaluate", evaluate)
    chosen = ["--methods", "gdas", "random_search", "--seeds", 0, 1, f"--workdir={tmp_path}", "--set=epochs=1"]
    scripts.run("compare_digits", *chosen)
    found = {row[0].strip("`"): row[1:3] for row in scripts.rows(tmp_path)[:4]}
    assert list(found) == ["gdas", "random_search", "random", "all_skip"] and found["all_skip"] == ["100.00", "100"]
    for accuracy, skips in found.values():  # both are means
        assert float(accuracy.partition(" ")[0]) == pytest.approx(float(skips.partition(" ")[0]), abs=0.51)
    assert [row[0] for row in scripts.rows(tmp_path)[7:]] == ["`gdas`", "`random_search`"]  # beside random cells


def test_the_percentiles_of_cells_are_among_all_that_were_trained():
    found = scripts.load("compare_digits").percentiles({"darts": [10.0, 98.0, np.nan], "random": [97.0, 98.0]})
    np.testing.assert_array_equal(found["darts"], [25, 100, np.nan])
    np.testing.assert_array_equal(found["random"], [50, 100])


def test_spaces_are_compared(made_up_searches, tmp_path):
    scripts.run("compare_spaces", "--seeds", 0, "--spaces", "s4", f"--workdir={tmp_path}", f"--set={scripts.TINY}")
    assert [row[:2] for row in scripts.rows(tmp_path)] == [["s4", "`darts`"], ["s4", "`pr_darts`"]]
    assert (tmp_path / "skips_s4.png").exists()


def test_gates_with_and_without_sparsity(made_up_searches, tmp_path):
    chosen = ["--seeds", 0, 1, "--variants", "all", "none"]
    scripts.run("gate_sparsity", *chosen, f"--workdir={tmp_path}", f"--set={scripts.TINY}")
    assert [row[0] for row in scripts.rows(tmp_path)] == ["all", "none"]
    assert np.isfinite([[float(cell.split()[0]) for cell in cells] for _, *cells in scripts.rows(tmp_path)]).all()
    assert (tmp_path / "sparsity.png").exists()
    for variant in scripts.load("gate_sparsity").VARIANTS.values():
        family.variant(settings.search(), variant)


def test_networks_with_and_without_skips(tmp_path, monkeypatch):
    """With a stand-in for the training, which falls the faster the more skip connections there are."""

    def training(config, workdir):
        (share,) = {*genotypes.skip_share(train.check(config).genotype).values()}
        loss = np.exp(-share * np.arange(1, config.epochs + 1)) + config.seed
        records = [{"epoch": epoch, "train_loss": value} for epoch, value in enumerate(loss.tolist())]
        reporting.write_bytes(workdir / run_log.METRICS, "".join(f"{json.dumps(r)}\n" for r in records).encode())

    monkeypatch.setattr(train, "run", training)
    tiny = "num_examples=64,epochs=2,batch_size=32,channels=2,cells=1"
    chosen = ["--datasets", "digits", "--draws", 0, 1, f"--workdir={tmp_path}", f"--set={tiny}"]
    scripts.run("skip_fraction", *chosen)
    assert [row[:2] for row in scripts.rows(tmp_path)] == [
        ["digits", "0 %"],
        ["digits", "37.5 %"],
        ["digits", "62.5 %"],
    ]
    faster = [float(row[4].split()[0]) for row in scripts.rows(tmp_path)]
    assert faster[0] == 0 < faster[1] < faster[2]
    assert (tmp_path / "skips.png").exists()
