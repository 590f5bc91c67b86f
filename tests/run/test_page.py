"""The page of a run: whole, escaped, light, the same wherever it is written, and without errors in a browser."""

import json
import re
import runpy

import numpy as np
import pytest
from pages import EVIL, Page, opened, probabilities, searched
from shared import tiny_config, tiny_training

from prdarts_jax import devices
from prdarts_jax.run import compare, report, reporting, settings
from prdarts_jax.spaces import genotypes

ROWS = {
    name: {
        "accuracy": a,
        "standard_error": 0.0123,
        "rank": rank,
        "params": 33714 + (rank or 9),
        "macs": 254784 * (rank or 1),
    }
    | {"skip_share": 1 / 3, "depth": {"normal": 3}, "cost": 254784.5}
    for name, a, rank in (("found_3", 0.98774, 1), ("random_0", 0.91, 2), ("found_4", 0.1234, 3), (EVIL, None, None))
}
POPULATION = {
    "seeds": [3, 4],
    "agreement": {"normal": {"edges": 1.0, "ops": 0.348}},
    "agreement of random cells": {"normal": {"edges": 1.0, "ops": 0.124}},
    "last epoch": {"val_loss": {"mean": 0.4321, "std": 0.1, "min": 0.3, "max": 0.5}},
}


def compared(workdir):
    reporting.write_json(workdir / "comparison.json", ROWS)
    (workdir / "comparison.md").write_text(compare._table(ROWS, "multiply-adds") + "\n" + compare.verdict(ROWS) + "\n")
    reporting.write_json(workdir / "population.json", POPULATION)


def written(config, workdir):
    report.write(config, workdir)
    return (workdir / "report.html").read_text()


def two_seeds(**fields):
    return tiny_config("pr_darts", "nas_bench_201", seed=3, seeds=2, **{"evaluation.epochs": 1} | fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(config, page, its folder) of a search of two seeds with its population and comparison."""
    config, workdir = two_seeds(**{"cost.target": 3e5}), tmp_path_factory.mktemp("unlikely_name")
    searched(config, workdir)
    compared(workdir)
    return config, written(config, workdir), workdir


def trained(workdir):
    """(config, page) of a training with a class of an evil name."""
    fields = {"loss": "train_loss", "accuracy": "train_accuracy"}
    epoch = dict.fromkeys([*fields.values(), "test_loss", "test_accuracy"], 0.5)
    reporting.write_bytes(workdir / "metrics.jsonl", reporting.json_bytes({"epoch": 0, "seconds": 1.5} | epoch))
    result = {"top1": 0.75, "top5": 1.0, "params": 3444814, "macs": 529769088, "confusion": [[3, 1], [0, 0]]}
    reporting.write_json(workdir / "result.json", result)
    reporting.write_json(workdir / "classifier.json", {"classes": [EVIL, "dog"]})
    (workdir / "genotype.json").write_text(genotypes.to_json(genotypes.named("DARTS_V2")))
    config = tiny_training(genotype="darts_v2")
    return config, written(config, workdir)


def activation(text):
    return json.loads(re.search(r"<script type='application/json' id='activation-data'>(.*?)</script>", text)[1])


def test_a_page_is_whole_and_needs_nothing_else(whole, tmp_path):
    for text in (whole[1], trained(tmp_path)[1]):
        page = Page(text)
        assert len(page.ids) == len(set(page.ids))
        assert all(link.startswith(("#", "data:")) for link in page.links)
        assert {name for name in re.findall(r"url\(#(.*?)\)", text)} <= set(page.ids)
        assert not re.findall(r"@import|<link rel=.stylesheet|fetch\(", text)
        for title in ("What was asked", "Environment", "How to repeat it", "Curves"):
            assert title in page.texts


def test_what_comes_from_files_is_escaped(whole, tmp_path):
    assert Page(whole[1]).tags.count("script") == 2 and EVIL not in whole[1]
    assert f"seed_3, seed_4: doubtful: {EVIL}" in Page(whole[1]).texts
    config, text = trained(tmp_path)
    assert Page(text).tags.count("script") == 1 and EVIL not in text and EVIL in Page(text).texts
    config.dataset = EVIL
    assert EVIL not in written(config, tmp_path)


def test_all_numbers_of_the_comparison_are_there(whole):
    cells = [float(value) for value in Page(whole[1]).cells if value]
    for row in ROWS.values():
        wanted = [row["rank"], row["params"], row["macs"], 100 * row["skip_share"], row["cost"]]
        wanted += [100 * row[name] for name in ("accuracy", "standard_error")] if row["accuracy"] else []
        assert {value for value in wanted if value is not None} <= set(cells)
    assert compare.verdict(ROWS) in Page(whole[1]).texts
    assert {34.8, 12.4, 0.4321} <= set(cells)
    assert {2.3 * 0.98**epoch for epoch in (2, 3)} <= set(cells)  # the last validation loss of each seed


def test_the_slider_has_the_activations_and_the_derived_cells(whole):
    config, text, _ = whole
    space, data = settings.space_of(config), activation(text)
    assert [run["epochs"] for run in data["runs"]] == [[0, 1, 2], [0, 1, 2, 3]]
    for number, run in enumerate(data["runs"]):
        for epoch, values in enumerate(run["cells"]["normal"]["values"]):
            expected = probabilities(epoch, number, space)["normal"].ravel()
            np.testing.assert_allclose(np.array(values) / 1000, expected, atol=0.00051)
            chosen = [(epoch + edge) % 5 + 5 * edge for edge in range(6)]
            assert run["cells"]["normal"]["chosen"][epoch] == chosen
        assert run["texts"][0].startswith("epoch 0: skip connections normal 0 %")
    assert text.count("<td></td>") == 30


def test_edges_have_their_own_candidates(tmp_path):
    config = tiny_config("darts", "s1")
    searched(config, tmp_path, epochs=1)
    space, (run,) = settings.space_of(config), activation(written(config, tmp_path))["runs"]
    for cell_type, cell in run["cells"].items():
        there = [value is not None for value in cell["values"][0]]
        assert there == space.candidates(cell_type).ravel().tolist()


def test_a_long_search_has_a_light_page(tmp_path):
    config = tiny_config("darts", "darts", seeds=8)
    searched(config, tmp_path, epochs=100)
    text = written(config, tmp_path)
    assert 100_000 < len(text.encode()) < 500_000
    for run in activation(text)["runs"]:
        assert run["epochs"][0] == 0 and run["epochs"][-1] >= 99


def test_the_config_of_the_page_is_that_of_the_run(whole, tmp_path):
    longer = two_seeds(**{"weights.clip": float("inf"), "ops": "none,skip_connect"})
    searched(longer, tmp_path)
    for config, text in ((whole[0], whole[1]), (longer, written(longer, tmp_path)), trained(tmp_path)):
        (tmp_path / "again.py").write_text("".join(re.findall(r"<pre id='again'>(.*?)</pre>", text, re.DOTALL)))
        (tmp_path / "again.py").write_text(unescaped((tmp_path / "again.py").read_text()))
        assert runpy.run_path(str(tmp_path / "again.py"))["get_config"]().to_dict() == config.to_dict()
        shown = Page(text).texts
        assert "batch_size" in shown and "8" in shown


def unescaped(text):
    return "".join(Page(f"<p>{text}</p>").texts)


def test_images_that_a_config_does_not_name_are_said_to_be_passed(tmp_path, monkeypatch):
    config, _ = trained(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for config.dataset, used, passed in (("digits", "mine", True), ("~/cats", "/home/someone/cats", False)):
        reporting.write_json(tmp_path / "config.json", {"job": "train", "dataset": used, "images": "30 files, 12ab"})
        text = written(config, tmp_path)
        assert "30 files, 12ab" in text and ("were passed in Python" in text) == passed and "someone" not in text


def test_a_page_is_the_same_wherever_and_whenever_it_is_written(whole, tmp_path):
    config, text, workdir = whole
    searched(config, tmp_path)  # with other seconds
    compared(tmp_path)
    assert written(config, tmp_path) == text
    assert str(workdir) not in text and workdir.name not in text


def test_a_search_that_diverged_and_a_damaged_comparison_are_left_out(tmp_path):
    config = two_seeds()
    searched(config, tmp_path)
    reporting.write_bytes(tmp_path / "seed_4" / "metrics.jsonl", b'{"epoch": 0, "diverged": true}\n')
    (tmp_path / "comparison.json").write_bytes(b"{")
    texts = Page(written(config, tmp_path)).texts
    reporting.write_json(tmp_path / "comparison.json", ROWS)  # killed before its text was there
    assert Page(written(config, tmp_path)).texts == texts
    assert "without a result, since they diverged: seed_4" in texts
    assert "Comparison" not in texts and "Cell" in texts


def test_cells_of_elsewhere_are_compared_alone(tmp_path):
    config = tiny_config("pr_darts", "nas_bench_201", **{"evaluation.epochs": 1})
    compared(tmp_path)
    texts = Page(written(config, tmp_path)).texts
    assert "Comparison" in texts and "Population" not in texts and "Curves" not in texts


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "is_main", lambda: False)
    report.write(two_seeds(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_browser_shows_sorts_and_slides_without_errors(whole, tmp_path):
    script = """
        const rows = () => [...document.querySelector("table.sortable tbody").rows];
        const seen = [];
        const click = place => {
            document.querySelectorAll("table.sortable th button")[place].click();
            seen.push(rows().map(row => row.cells[0].textContent));
        };
        click(2); click(2); click(0);
        const box = () => document.querySelector("#ops-normal td").textContent;
        const slider = document.getElementById("epoch"), seed = document.getElementById("seed");
        seen.push(box());
        slider.value = 0; slider.dispatchEvent(new Event("input")); seen.push(box());
        seed.value = 1; seed.dispatchEvent(new Event("change")); seen.push(box());
        seen.push(document.getElementById("epoch-text").textContent.split(":")[0], slider.max);
        seen.push(document.documentElement.scrollWidth <= innerWidth);
        document.title = JSON.stringify(seen);
    """
    dom, said = opened(whole[1], tmp_path, script)
    assert said == []
    found = json.loads("".join(Page(f"<p>{re.search('<title>(.*?)</title>', dom)[1]}</p>").texts))
    space = settings.space_of(whole[0])
    values = [100 * probabilities(epoch, seed, space)["normal"][0, 0] for epoch, seed in ((2, 0), (0, 0), (0, 1))]
    rising = [EVIL, "found_4", "random_0", "found_3"]
    assert found[:3] == [rising, rising[::-1], [EVIL, "found_3", "found_4", "random_0"]]
    assert [float(text) for text in found[3:6]] == pytest.approx(values, abs=0.051)
    assert found[6:] == ["epoch 0", "3", True]

    _, said = opened(whole[1], tmp_path, "missing();")
    assert len(said) == 1 and "missing is not defined" in said[0]
