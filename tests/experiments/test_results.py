"""Measured numbers in the documents are those of the committed results of the scripts."""

import re

import pytest
import scripts

FILES = sorted(scripts.ROOT.glob("experiments/results/*.*"))
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


def test_the_readme_has_the_numbers_of_the_results():
    readme = " ".join(DOCUMENTS[0].read_text().replace("\n> ", " ").split())
    assert RESULTS["digits"].rstrip().rpartition("\n")[2] in readme  # the sentence that the main job ends with
    of_methods = dict(
        re.findall(
            r"^\| `?([\w ,]+?)`? \| ([^(|]+?)(?: \(.*?\))? \|", RESULTS["nasbench201"].split("\n\n")[0], re.MULTILINE
        )
    )
    assert f"PR-DARTS {of_methods['pr_darts']} %" in readme and f"DARTS {of_methods['darts']} %" in readme
    perturbation = re.search(r"^\| perturbation \| (.+?) \|", RESULTS["compose"], re.MULTILINE)[1]
    assert f"{perturbation} of 100 points" in readme
    step = (scripts.ROOT / "experiments/results/benchmark_step_pr_darts_released.txt").read_text()
    ratio = float(re.search(r"authors' step / ours: ([\d.]+)", step)[1])
    assert f"{ratio:.1f} times as fast" in readme
    mean = re.search(r"mean ([\d.]+)", of_methods["all 15,625 cells"])[1]
    assert f"all cells {mean} %" in readme
