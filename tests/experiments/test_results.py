"""Measured numbers in the documents are those of the committed results of the scripts."""

import re

import pytest
import scripts

RESULTS = {path.stem: path.read_text() for path in sorted(scripts.ROOT.glob("experiments/results/*.md"))}
DOCUMENTS = [scripts.ROOT / name for name in ("README.md", "experiments/README.md")]
DOCUMENTS += sorted(scripts.ROOT.glob("docs/**/*.md"))
TABLE = re.compile(r"^(\|.*\n)\|---.*\n((?:\|.*\n)+)", re.MULTILINE)


@pytest.mark.parametrize("name", RESULTS)
def test_a_table_of_results_is_shown_as_the_script_wrote_it(name):
    texts = [path.read_text() for path in DOCUMENTS]
    shown = {table for text in texts for table in TABLE.findall(text)}
    if not any(f"<!-- results: {name} -->" in text for text in texts):  # which `make docs` replaces by the file
        assert shown >= set(TABLE.findall(RESULTS[name])) > set()


def test_the_readme_has_the_numbers_of_the_results():
    readme = " ".join(DOCUMENTS[0].read_text().replace("\n> ", " ").split())
    assert RESULTS["digits"].rstrip().rpartition("\n")[2] in readme  # the sentence that the main job ends with
    of_methods = dict(
        re.findall(r"^\| `?([\w ,]+?)`? \| ([^(|]+?)(?: \(.*?\))? \|", RESULTS["nasbench201"], re.MULTILINE)
    )
    assert f"PR-DARTS {of_methods['pr_darts']} %" in readme and f"DARTS {of_methods['darts']} %" in readme
    step = (scripts.ROOT / "experiments/results/benchmark_step_pr_darts_released.txt").read_text()
    ratio = float(re.search(r"authors' step / ours: ([\d.]+)", step)[1])
    assert f"{ratio:.1f} times as fast" in readme
    mean = re.search(r"mean ([\d.]+)", of_methods["all 15,625 cells"])[1]
    assert f"all cells {mean} %" in readme
