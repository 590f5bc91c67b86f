"""What runs have left, side by side."""

import json
import re
import shlex
from urllib.parse import unquote

import numpy as np
import pytest
import scripts
from pages import EVIL, Page, opened, searched
from shared import tiny_config

from prdarts_jax.run import reporting

sweep = scripts.load("sweep")
CONFIG = str(scripts.ROOT / "configs/digits.py")


def test_runs_that_differ_by_their_seeds_are_taken_together(tmp_path):
    runs = {}
    for method, losses in {"darts": (1.0, 2.0), "gdas": (4.0, 6.0)}.items():
        for seed, loss in enumerate(losses):
            name = f"method={method},seed={seed}"
            runs[name] = {"method": method, "seed": str(seed)}
            append(tmp_path / name, loss, 0.25)
    for seed in (0, 1, 2):  # one run of three seeds
        append(tmp_path / "method=pr_darts" / f"seed_{seed}", 3.0, 0.5)
    runs["method=pr_darts"] = {"method": "pr_darts"}
    groups = sweep.read_groups(runs, tmp_path)
    assert {name: len(group) for name, group in groups.items()} == {
        "method=darts": 2,
        "method=gdas": 2,
        "method=pr_darts": 3,
    }
    header, _, *rows = sweep.make_table(groups).splitlines()
    column = header.split(" | ").index("train_loss")
    assert [row.split(" | ")[column] for row in rows] == ["1.5 ± 0.71", "5 ± 1.4", "3 ± 0"]

    panels = {axes.get_title(): axes for axes in sweep.make_figure(groups).axes}
    assert panels.keys() == {"training loss (nats)", "share of skip connections"}
    lines = {line.get_label(): line for line in panels["training loss (nats)"].get_lines()}
    assert len(panels["training loss (nats)"].get_lines()) == 3 + 7
    np.testing.assert_allclose(lines["method=gdas"].get_ydata(), (6, 5))
    (skips, *_) = (
        line for line in panels["share of skip connections"].get_lines() if line.get_label() == "method=darts"
    )
    np.testing.assert_allclose(skips.get_ydata(), (0.125, 0.125))  # of both cell types


def append(workdir, loss, skips):
    """Records of two epochs, the loss falling by 1 to what is given."""
    workdir.mkdir(parents=True)
    records = [
        {"epoch": e, "step": e + 1, "train_loss": loss + 1 - e, "skip_share": {"normal": skips, "reduce": 0.0}}
        for e in range(2)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_panel_is_of_the_runs_that_have_its_field():
    first = [{"epoch": epoch, "entropy": {"normal": 1.5 - epoch}, "depth": 2} for epoch in range(3)]
    second = [{"epoch": epoch, "entropy": {"normal": 2.5}} for epoch in range(2)]
    panels = {axes.get_title(): axes for axes in sweep.make_figure({"a": [first, second], "b": [second]}).axes}
    lines = {title: {line.get_label(): line for line in axes.get_lines()} for title, axes in panels.items()}
    np.testing.assert_allclose(lines["entropy of the op weights (nats)"]["a"].get_xydata(), [(0, 2), (1, 1.5)])
    assert [label for label in lines["depth of the cells"] if label in ("a", "b")] == ["a"]
    (legend,) = sweep.make_figure({"b": [second], "a": [first]}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "a"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(page, its folder) of two methods with two seeds each, one of which has failed, and of a run of two seeds, of
    which one has diverged."""
    workdir = tmp_path_factory.mktemp("swept")
    runs = {f"method={m},seed={s}": {"method": m, "seed": str(s)} for m in ("darts", "gdas") for s in (0, 1)}
    for number, name in enumerate(runs):
        searched(tiny_config("darts", "nas_bench_201", seed=3), workdir / name, epochs=2 + number)
        (workdir / name / "report.html").touch()
    runs[f"method={EVIL.replace('/', '')}"] = {"method": EVIL, "seed": "3"}
    two = workdir / list(runs)[-1]
    searched(tiny_config("darts", "nas_bench_201", seed=3, seeds=2), two)
    reporting.write_bytes(two / "seed_4/metrics.jsonl", b'{"epoch": 0, "diverged": true}\n')
    command = ["python", "experiments/launch_slurm.py", "--workdir=runs/again", f"--config={CONFIG}"]
    command += ["--grid=method=darts,gdas", "--grid=seed=0,1", "--wait", "--", "--config.seeds=1"]
    asked = sweep.Asked(CONFIG, runs, ["--config.seeds=1"], command)
    sweep.write(asked, {"method=gdas,seed=1": "jobs/7_0_log.err"}, workdir)
    return (workdir / "report.html").read_text(), workdir


def test_the_page_of_a_sweep_is_whole(swept):
    text, workdir = swept
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)) and EVIL not in text and str(workdir) not in text
    for title in ("Combinations", "Curves", "Cells", "What was asked", "Environment", "How to repeat it"):
        assert title in page.texts
    links = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert len(links) == 4 and all((workdir / unquote(link)).exists() for link in links)
    assert "method=gdas,seed=1 has failed; its log is jobs/7_0_log.err" in page.texts
    assert f"method={EVIL.replace('/', '')}/seed_4 has diverged, and is in no mean" in page.texts
    assert "--config.seeds=1" in page.texts


def test_its_tables_are_of_the_last_epochs(swept):
    """The loss of an epoch is 2.3 * 0.97^epoch."""
    losses = [2.3 * 0.97**epoch for epoch in (1, 2, 3, 2)]
    cells = Page(swept[0]).cells
    assert all(repr(loss) in cells for loss in losses)
    for number in (np.mean(losses[:2]), np.std(losses[:2], ddof=1)):
        assert np.isclose([float(cell) for cell in cells if cell], number, rtol=1e-12).any()


def test_its_command_is_of_the_same_runs(swept):
    pytest.importorskip("submitit")
    launch = scripts.load("launch_slurm")
    (again,) = re.findall("<pre>(.*?)</pre>", swept[0])
    grid = [word.removeprefix("--grid=") for word in shlex.split(again) if word.startswith("--grid=")]
    assert [f"method={run['method']},seed={run['seed']}" for run in launch.combinations(grid, CONFIG)] == [
        f"method={m},seed={s}" for m in ("darts", "gdas") for s in (0, 1)
    ]


def test_a_browser_sorts_it_without_errors(swept, tmp_path):
    script = """
        const heads = [...document.querySelectorAll("table.sortable th button")];
        heads.find(head => head.textContent.startsWith("training loss")).click();
        const rows = [...document.querySelector("table.sortable tbody").rows];
        const seen = rows.map(row => row.cells[1].textContent + row.cells[2].textContent);
        seen.push(document.documentElement.scrollWidth <= innerWidth);
        document.title = JSON.stringify(seen);
    """
    dom, said = opened(swept[0], tmp_path, script)
    assert said == []
    found = json.loads("".join(Page(f"<p>{re.search('<title>(.*?)</title>', dom)[1]}</p>").texts))
    assert found == ["gdas1", "gdas0", "darts1", f"{EVIL}3", "darts0", True]
