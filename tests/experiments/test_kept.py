"""Results that are kept: what is there is not run again, and belongs to its settings."""

import dataclasses
import json
import re
import shutil

import pytest
import scripts

from prdarts_jax import spaces
from prdarts_jax.run import reporting, settings
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
        workdir.mkdir(parents=True)
        reporting.write_bytes(workdir / reporting.METRICS, b'{"epoch": 0, "val_loss": 0.1}\n{"epoch": 1}\n')
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
    assert again["darts", 3].records == [{"epoch": 0, "val_loss": 0.1}, {"epoch": 1}]
    family.run(config_of(), ["darts"], runs, [3, 4], results)
    assert len(searched) == 3 and searched[-1].name == "darts_seed_4"


def test_without_a_folder_of_results_nothing_is_kept(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0])
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_result_of_other_settings_is_refused(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    with pytest.raises(ValueError, match=re.escape("epochs=200 there and 7 here; use another --results or")):
        family.run(config_of(epochs=7), ["darts"], tmp_path, [0], tmp_path)


def test_settings_that_are_newer_than_a_result_are_no_hindrance(searched, tmp_path):
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    path = tmp_path / "darts_seed_0.jsonl"
    head, *records = path.read_text().splitlines()
    value = json.loads(head)
    del value["settings"]["hessian"]
    path.write_text("\n".join([json.dumps(value), *records]))
    family.run(config_of(), ["darts"], tmp_path, [0], tmp_path)
    assert len(searched) == 1


def test_the_settings_of_a_search_are_its_own(tmp_path):
    found = kept.settings_of(config_of(method="gdas", data_dir="somewhere", table="table.txt"))
    assert found["gdas.end_temperature"] == 0.1 and found["weights.momentum"] == 0.9 and found["method"] == "gdas"
    sections = {name.partition(".")[0] for name in found}
    assert not sections & ({*methods.NAMED, "data_dir", "table", "evaluation"} - {"gdas"})
    file = tmp_path / "own.toml"
    file.write_text('relaxation = "softmax"\n')
    assert kept.settings_of(config_of(method=str(file)))["method"] == 'relaxation = "softmax"\n'


def test_cells_whose_results_are_kept_are_not_trained_again(tmp_path, monkeypatch):
    trained = []

    def evaluate(cells, config, workdir, *, space, trainings):
        trained.extend(cells)
        return {name: {"accuracy": trainings / 10, "rank": 1, "params": 5} for name in reversed(cells)}

    monkeypatch.setattr(kept.pdx, "evaluate", evaluate)
    space, config = spaces.nas_bench_201(), settings.training()

    def run(names, **options):
        cells = {name: CELLS[name] for name in names}
        return kept.evaluate(cells, config, tmp_path / "evaluation", tmp_path, space=space, **options)

    row = {"accuracy": 0.2, "params": 5}
    names = ["skip_connect", "nor_conv_1x1"]
    first = run(names, trainings=2)
    assert trained == list(first) == names and first["nor_conv_1x1"].items() >= row.items()
    more = run(["nor_conv_3x3", *names], trainings=2)
    assert list(more) == ["nor_conv_3x3", *names] and trained == [*names, "nor_conv_3x3"]
    with pytest.raises(ValueError, match="trainings=2 there and 3 here"):
        run(names, trainings=3)
    with pytest.raises(ValueError, match="has another cell skip_connect: use another --results"):
        kept.evaluate({"skip_connect": CELLS["none"]}, config, tmp_path, tmp_path, space=space, trainings=2)


def test_a_search_is_written_with_one_record_a_line(tmp_path):
    cell, path = reference_cells.all_skip(spaces.darts()), tmp_path / "new/of.jsonl"
    kept.write_search(path, {"seed": 1}, [{"epoch": 0}, {"epoch": 1}], cell)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"settings": {"seed": 1}, "genotype": json.loads(json.dumps(dataclasses.asdict(cell)))}
    assert lines[1:] == [{"epoch": 0}, {"epoch": 1}]
    assert kept.read_search(path, {"seed": 1}) == (lines[1:], cell)
    assert kept.read_search(tmp_path / "absent.jsonl", {}) is None
