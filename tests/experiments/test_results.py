"""Measured numbers in the documents are those of the committed results of the scripts."""

import json
import os
import re
from pathlib import Path

import pytest
import scripts

from prdarts_jax.spaces import genotypes, tabular

FILES = sorted(scripts.ROOT.glob("experiments/results/*.*"))
KEPT = scripts.ROOT / "experiments/results/nasbench201"
RESULTS = {path.stem: path.read_text() for path in FILES}
DOCUMENTS = [scripts.ROOT / name for name in ("README.md", "experiments/README.md")]
DOCUMENTS += sorted(scripts.ROOT.glob("docs/**/*.md"))
TABLE = re.compile(r"^(\|.*\n)\|---.*\n((?:\|.*\n)+)", re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_results_are_shown_as_the_script_wrote_them(path):
    texts, result = [document.read_text() for document in DOCUMENTS], path.read_text()
    if any(f"<!-- results: {path.stem} -->" in text for text in texts):  # which `make docs` replaces by the file
        return
    if path.suffix == ".md":
        assert {table for text in texts for table in TABLE.findall(text)} >= set(TABLE.findall(result)) > set()
    else:
        assert any(f"```text\n{result}```" in text for text in texts)


def test_turning_points_are_those_of_the_kept_results(capsys):
    scripts.run("turning_points", f"--results={KEPT}")
    assert capsys.readouterr().out.strip() == RESULTS["turning_points"].strip()


def test_the_collapse_is_that_of_the_kept_results(tmp_path):
    kept_in, seeds = KEPT.with_name("collapse"), range(3, 8)
    scripts.run("collapse", f"--workdir={tmp_path}", f"--results={kept_in}", "--seeds", *seeds)
    head, line, *rows = RESULTS["collapse"].splitlines()
    assert (tmp_path / "table.md").read_text().splitlines() == [
        row.rsplit("|", 2)[0] + "|" for row in (head, line, *rows)
    ]
    page = " ".join(DOCUMENTS[1].read_text().split())
    for method, row in zip(("darts", "pr_darts"), rows, strict=True):

        def accuracy(seed, method=method):
            _, records = scripts.load("kept").read(kept_in / f"{method}_seed_{seed}.jsonl")
            return records[-1]["benchmark"]["accuracy"]

        assert row.endswith(f" {scripts.load('family').spread(list(map(accuracy, seeds)))} |")
        assert f"({accuracy(0):.2f} %)" in page.partition("With seed 0, which the command runs")[2][:150]


def test_the_paper_in_miniature_is_that_of_the_kept_results(tmp_path):
    scripts.run("paper_in_miniature", f"--workdir={tmp_path}", f"--results={KEPT.with_name('paper')}")
    assert (tmp_path / "table.md").read_text() == RESULTS["paper"]
    _, verdicts, _ = TABLE.findall(RESULTS["paper"])
    assert verdicts in TABLE.findall((scripts.ROOT / "experiments/predictions.md").read_text())


@pytest.mark.skipif("PRDARTS_DATA_DIR" not in os.environ, reason="PRDARTS_DATA_DIR is not set")
def test_kept_cells_have_the_accuracies_of_the_tables():
    table = tabular.load(Path(os.environ["PRDARTS_DATA_DIR"], "nasbench201_cifar10.txt"))
    for path in KEPT.glob("*.jsonl"):
        (method, seed), (head, _) = path.stem.split("_seed_"), scripts.load("kept").read(path)
        (shown,) = re.findall(
            rf"^\| `{method}` \| (?:[\d. ±]+\()?([\d., ]+)\)? \|", RESULTS["nasbench201"], re.MULTILINE
        )
        accuracy = table.accuracy(genotypes.from_json(json.dumps(head["genotype"])))
        assert shown.split(", ")[int(seed)] == f"{accuracy:.2f}", path.name
    for path in KEPT.glob("perturbation/*.json"):
        (method, seed), entries = path.stem.split("_seed_"), [json.loads(path.read_text())]
        entries.append(json.loads((KEPT / "best_of" / path.name).read_text()))
        cells = [entries[0]["derived"], *(entry["chosen"] for entry in entries)]
        accuracies = [table.accuracy(genotypes.from_json(json.dumps(cell["genotype"]))) for cell in cells]
        shown = [f"{a:.2f} ({100 * cell['val_accuracy']:.1f})" for a, cell in zip(accuracies, cells, strict=True)]
        assert f"| `{method}` | {seed} | {' | '.join(shown)} |\n" in RESULTS["discretizations"]


@pytest.mark.skipif("PRDARTS_DATA_DIR" not in os.environ, reason="PRDARTS_DATA_DIR is not set")
def test_searches_of_several_lengths_are_the_kept_ones(tmp_path):
    table = Path(os.environ["PRDARTS_DATA_DIR"], "nasbench201_cifar10.txt")
    scripts.run("search_length", f"--table={table}", f"--workdir={tmp_path}", f"--results={KEPT}")
    assert (tmp_path / "length.md").read_text() == RESULTS["search_length"]


def test_the_readme_has_the_numbers_of_the_results():
    readme = " ".join(DOCUMENTS[0].read_text().replace("\n> ", " ").split())
    assert RESULTS["digits"].rstrip().rpartition("\n")[2] in readme  # the sentence that the main job ends with
    of_methods = dict(
        re.findall(
            r"^\| `?([\w ,]+?)`? \| ([^(|]+?)(?: \(.*?\))? \|", RESULTS["nasbench201"].split("\n\n")[0], re.MULTILINE
        )
    )
    assert f"PR-DARTS {of_methods['pr_darts']} %" in readme and f"DARTS {of_methods['darts']} %" in readme
    collapse = [
        re.search(rf"^\| `{name}` \|.*\| ([\d.]+ ± [\d.]+) \(", RESULTS["collapse"], re.MULTILINE)[1]
        for name in ("pr_darts", "darts")
    ]
    assert "PR-DARTS {} %, DARTS {} %".format(*collapse) in readme
    perturbation = re.search(r"^\| perturbation \| (.+?) \|", RESULTS["compose"], re.MULTILINE)[1]
    assert f"{perturbation} of 100 points" in readme
    gain, error = re.search(
        r"^\| `darts` \| \d+ \| \+([\d.]+) ± ([\d.]+) ", RESULTS["discretizations"], re.MULTILINE
    ).groups()
    assert f"+{gain} points, standard error {error}" in readme
    step = (scripts.ROOT / "experiments/results/benchmark_step_pr_darts_released.txt").read_text()
    ratio = float(re.search(r"authors' step / ours: ([\d.]+)", step)[1])
    assert f"{ratio:.1f} times as fast" in readme
    mean = re.search(r"mean ([\d.]+)", of_methods["all 15,625 cells"])[1]
    assert f"all cells {mean} %" in readme
