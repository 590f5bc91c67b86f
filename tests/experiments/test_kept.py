"""Results that are kept: what is there is not run again, and belongs to its settings."""

import dataclasses
import json
import re
import shutil

import pytest
import scripts

from prdarts_jax import spaces
from prdarts_jax.run import loop, settings
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes, reference_cells

kept, family = scripts.load("kept"), scripts.load("family")
CELLS = {name: genotypes.EdgeGenotype((name,) * 6) for name in spaces.nas_bench_201().ops}


@pytest.fixture
def searched(monkeypatch):
    """The folders of the searches that were run: they find a convolution, or a skip connection with DARTS."""
    folders = []

    def run(config, workdir):
        folders.append(workdir)
        scripts.write_run(workdir, {"epoch": 0, "val_loss": 0.1}, {"epoch": 1})
        return {config.seed: CELLS["skip_connect" if config.method == "darts" else "nor_conv_3x3"]}

    monkeypatch.setattr(family.search, "run", run)
    return folders


def config_of(**fields):
    config = settings.search()
    config.update({"space": "nas_bench_201", "dataset": "digits"} | fields)
    return config


def test_a_search_whose_result_is_kept_is_not_run_again(searched, tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    first = family.run(config_of(), ["darts", "gdas:end_temperature=0.2"], runs, [3], results)
    assert len(searched) == 2 and first["darts", 3].genotype == CELLS["skip_connect"]
    assert {path.name for path in results.iterdir()} == {
        "darts_seed_3.jsonl",
        "gdas_end_temperature_0.2_seed_3.jsonl",
    }
    shutil.rmtree(runs)
    elsewhere = config_of(data_dir="elsewhere")
    elsewhere.evaluation.cells = 3
    again = family.run(elsewhere, ["darts", "gdas:end_temperature=0.2"], runs, [3], results)
    assert again == first and len(searched) == 2
    records, _, doubts, logits = again["darts", 3]
    assert records == [{"epoch": 0, "val_loss": 0.1}, {"epoch": 1}] and doubts == ["too short"]
    assert logits == {"normal": [[0.5] * 5] * 6}  # of the last epoch
    family.run(config_of(), ["darts"], runs, [3, 4], results)
    assert len(searched) == 3 and searched[-1].name == "darts_seed_4"


def test_without_a_folder_of_results_nothing_is_kept(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0])
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_result_of_other_settings_is_refused_before_any_search(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    with pytest.raises(ValueError, match=re.escape("config.epochs is 200 there and 7 here; use another --results or")):
        family.run(config_of(epochs=7), ["gdas", "darts"], tmp_path, [0], tmp_path)
    assert len(searched) == 1


def test_what_is_newer_than_a_result_counts_as_its_default(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    path = tmp_path / "darts_seed_0.jsonl"
    head, *records = path.read_text().splitlines()
    value = json.loads(head)
    del value["settings"]["hessian"]
    path.write_text("\n".join([json.dumps(value), *records]))
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    with pytest.raises(ValueError, match=re.escape("config.hessian is false there and true here")):
        family.run(config_of(hessian=True), ["darts"], tmp_path, [0], tmp_path)
    value["settings"]["gone"] = 3
    path.write_text("\n".join([json.dumps(value), *records]))
    with pytest.raises(ValueError, match=re.escape("config.gone is 3 there and missing here")):
        family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    assert len(searched) == 1


def test_a_search_that_diverged_is_not_run_again(searched, tmp_path, monkeypatch):
    def diverge(config, workdir):
        searched.append(workdir)
        raise loop.Diverged("diverged")

    monkeypatch.setattr(family.search, "run", diverge)
    for _ in range(2):
        assert family.run(config_of(), ["darts"], tmp_path / "runs", [0], tmp_path) == {}
    assert len(searched) == 1


def test_the_records_of_all_stages_are_kept(searched, tmp_path, monkeypatch):
    def run(config, workdir):
        scripts.write_run(workdir, {"epoch": 0, "val_loss": 2})
        scripts.write_run(workdir / "stage_1", {"epoch": 0, "val_loss": 1})
        return {config.seed: CELLS["none"]}

    monkeypatch.setattr(family.search, "run", run)
    first = family.run(config_of(), ["p_darts"], tmp_path / "runs", [0], tmp_path)
    shutil.rmtree(tmp_path / "runs")
    again = family.run(config_of(), ["p_darts"], tmp_path / "runs", [0], tmp_path)
    assert again == first and [record["val_loss"] for record in again["p_darts", 0].records] == [1, 2]


def test_searches_of_several_seeds_are_refused(searched, tmp_path):
    with pytest.raises(ValueError, match=r"config.seeds=2 must be 1: .* those of --seeds"):
        family.run(config_of(seeds=2), ["darts"], tmp_path)


@pytest.mark.parametrize("text", ["", "{}\n", '{"settings": {}, "genotype": null}\n<<<<<<< HEAD\n', "[]\n", "3\n"])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "darts_seed_0.jsonl").write_text(text)
    with pytest.raises(ValueError, match="darts_seed_0.jsonl is damaged"):
        kept.read_search(tmp_path / "darts_seed_0.jsonl", config_of())


def test_the_settings_of_a_search_are_its_own(tmp_path):
    found = kept.settings_of(config_of(method="gdas", data_dir="somewhere", table="table.txt"))
    assert found["gdas.end_temperature"] == 0.1 and found["weights.momentum"] == 0.9 and found["method"] == "gdas"
    sections = {name.partition(".")[0] for name in found}
    assert not sections & ({*methods.NAMED, "data_dir", "table", "evaluation"} - {"gdas"})
    limited = config_of()
    limited.cost.target, limited.evaluation.cells = 1e6, 7
    assert kept.settings_of(limited)["evaluation.cells"] == 7
    file = tmp_path / "own.toml"
    file.write_text('relaxation = "softmax"\n')
    assert kept.settings_of(config_of(method=str(file)))["method"] == 'relaxation = "softmax"\n'


def test_cells_whose_results_are_kept_are_not_trained_again(tmp_path, monkeypatch):
    trained = []

    def evaluate(cells, config, workdir, *, space, trainings):
        trained.extend(cells)
        return {name: {"accuracy": trainings / 10, "rank": 1, "params": 5} for name in reversed(cells)}

    monkeypatch.setattr(kept.pdx, "evaluate", evaluate)
    config = config_of(space="nas_bench_201")

    def run(names, trainings):
        config.evaluation.trainings = trainings
        return kept.evaluate({name: CELLS[name] for name in names}, config, tmp_path / "evaluation", tmp_path)

    row = {"accuracy": 0.2, "params": 5}
    names = ["skip_connect", "nor_conv_1x1"]
    assert run(names, trainings=2) == dict.fromkeys(names, row) and trained == names
    more = ["nor_conv_3x3", *names]
    assert run(more, trainings=2) == dict.fromkeys(more, row) and trained == [*names, "nor_conv_3x3"]
    with pytest.raises(ValueError, match="config.trainings is 2 there and 3 here"):
        run(names, trainings=3)
    with pytest.raises(ValueError, match="skip_connect.json is of another cell: use another --results"):
        config.evaluation.trainings = 2
        kept.evaluate({"skip_connect": CELLS["none"]}, config, tmp_path, tmp_path)
    assert len(trained) == 3


def test_a_search_is_written_with_one_record_a_line(tmp_path):
    cell, path = reference_cells.all_skip(spaces.darts()), tmp_path / "new/of.jsonl"
    search = kept.Search([{"epoch": 0}, {"epoch": 1}], cell, ["short"], {"normal": [[0.5, 1.0]]})
    kept.write_search(path, config_of(seed=7), search)
    head, *records = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["settings"]["seed"] == 7 and head["genotype"] == json.loads(json.dumps(dataclasses.asdict(cell)))
    assert records == [{"epoch": 0}, {"epoch": 1}]
    assert kept.read_search(path, config_of(seed=7)) == search
    assert kept.read_search(tmp_path / "absent.jsonl", config_of()) is None
