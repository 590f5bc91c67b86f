"""A folder of the theory lab: what a run leaves behind, that it goes on with what is missing, and what it refuses."""

import json
import runpy
import signal
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from prdarts_jax.run import loop, reporting
from prdarts_jax.theory import claims, job, report
from prdarts_jax.theory.report import ClaimReport, Finding, Panel, Series
from prdarts_jax.theory.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = Path(__file__).parents[2] / "configs/theory.py"
NAMES = list(claims.NAMED)
SMALL = Settings(gate_samples=500)
PNG = b"\x89PNG\r\n\x1a\n"
HEADER = "| claim | prediction | measured (interval) | test | verdict | margin |"


def make_config(**fields):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.update(fields)
    return config


def read(workdir, name):
    return json.loads((workdir / "claims" / f"{name}.json").read_text())


def contents(workdir):
    return {str(path.relative_to(workdir)): path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def made_up(name):
    """The report of a claim, in no time."""
    findings = (
        Finding(f"|{name}| is large", 0.12345678, -1.0, 2.5, "by a test", "inconclusive", -1.0),
        Finding("a | b", 3.0, 3.0, 3.0, "of 2", "holds", 0.00012345),
    )
    panel = Panel("title", "x", "y", (Series("line", range(2), (0.5, 1.0)),))
    return ClaimReport(name, "so", "there", findings, (panel,), {"verdicts": 1})


@pytest.fixture
def checked(monkeypatch):
    """The (name, seed, settings) of what has been checked; nothing is computed, and a figure is a line of text."""
    calls = []

    def check(name, seed, size):
        calls.append((name, seed, size))
        return made_up(name)

    monkeypatch.setattr(claims, "check", check)
    monkeypatch.setattr(report, "claim_figure", lambda report: f"figure of {report.claim}")
    monkeypatch.setattr(reporting, "save_figure", lambda text, path: reporting.write_bytes(path, text.encode()))
    return calls


def rows(text):
    """The cells of the table, whose text may have escaped bars."""
    first, second, *lines = text.splitlines()
    assert first == HEADER and second.strip("|-") == ""
    return [
        [
            cell.strip()
            for cell in line.strip("|").replace(r"\|", "\0").replace("|", "\n").replace("\0", "|").split("\n")
        ]
        for line in lines
    ]


# What a run leaves behind ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what the run gave) of one claim, really checked."""
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "QUICK", SMALL)
        return workdir, job.run(make_config(claim="theorem3_distribution", seed=3), workdir)


def test_a_claim_leaves_its_report_its_figure_and_a_row_a_finding(finished):
    workdir, text = finished
    report = claims.check("theorem3_distribution", 3, SMALL)
    written = read(workdir, "theorem3_distribution")
    assert written["verdict"] == report.verdict
    for field in ("claim", "statement", "setting", "details"):
        assert written[field] == getattr(report, field)
    assert written["findings"] == [finding._asdict() for finding in report.findings]
    (panel,), (expected,) = written["panels"], report.panels
    assert panel["title"] == expected.title and panel["series"][0]["y"] == list(expected.series[0].y)
    assert (workdir / "claims/theorem3_distribution.png").read_bytes().startswith(PNG)
    assert (workdir / "claims.md").read_text() == text
    assert [(row[0], row[1], row[3], row[4]) for row in rows(text)] == [
        ("theorem3_distribution", finding.predicted, finding.test, finding.verdict) for finding in report.findings
    ]
    assert set(contents(workdir)) == {
        "config.json",
        "claims.md",
        "claims/theorem3_distribution.json",
        "claims/theorem3_distribution.png",
    }


def test_a_second_call_computes_nothing_and_changes_nothing(finished, monkeypatch):
    workdir, text = finished
    before = contents(workdir)

    def check(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(claims, "check", check)
    assert job.run(make_config(claim="theorem3_distribution", seed=3), workdir) == text
    assert contents(workdir) == before


def test_all_claims_are_checked_by_default_and_bars_are_escaped(checked, tmp_path):
    text = job.run(make_config(seed=5), tmp_path)
    assert checked == [(name, 5, job.QUICK) for name in NAMES]
    assert text.splitlines()[2] == (
        rf"| {NAMES[0]} | \|{NAMES[0]}\| is large | 0.1235 (-1 to 2.5) | by a test | inconclusive | -1 |"
    )
    assert [row for row in rows(text) if row[0] == NAMES[-1]] == [
        [NAMES[-1], f"|{NAMES[-1]}| is large", "0.1235 (-1 to 2.5)", "by a test", "inconclusive", "-1"],
        [NAMES[-1], "a | b", "3 (3 to 3)", "of 2", "holds", "0.000123"],
    ]
    assert [row[0] for row in rows(text)] == [name for name in NAMES for _ in range(2)]
    assert all(len(row) == 6 for row in rows(text))
    for name in NAMES:
        assert (tmp_path / f"claims/{name}.png").read_text() == f"figure of {name}"
    written = read(tmp_path, NAMES[0])
    assert written["verdict"] == "inconclusive"
    assert written["panels"][0]["series"][0] == {
        "label": "line",
        "x": [0, 1],
        "y": [0.5, 1.0],
        "low": [],
        "high": [],
        "points": False,
    }


# Going on -------------------------------------------------------------------------------------------------------------


def test_claims_may_be_added_one_by_one(checked, tmp_path):
    for name in (NAMES[1], NAMES[0], NAMES[1]):
        text = job.run(make_config(claim=name), tmp_path)
    assert [row[0] for row in rows(text)] == [NAMES[0], NAMES[0], NAMES[1], NAMES[1]]
    assert [name for name, *_ in checked] == [NAMES[1], NAMES[0]]
    text = job.run(make_config(), tmp_path)
    assert [name for name, *_ in checked] == [NAMES[1], NAMES[0], *NAMES[2:]]
    assert [row[0] for row in rows(text)][::2] == NAMES


def test_a_stop_between_claims_keeps_those_before_and_the_next_call_goes_on(checked, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    job.run(make_config(), whole)
    checked.clear()
    check = claims.check

    def stopping(name, *rest):
        if name == NAMES[1]:
            signal.raise_signal(signal.SIGTERM)
        return check(name, *rest)

    before = signal.getsignal(signal.SIGTERM)
    workdir = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(claims, "check", stopping)
        with pytest.raises(loop.Stopped, match=f"^stopped before {NAMES[2]}; the same command resumes it$"):
            job.run(make_config(), workdir)
    assert signal.getsignal(signal.SIGTERM) == before
    assert [name for name, *_ in checked] == NAMES[:2]  # the second, during which it came, is complete
    assert sorted(path.stem for path in (workdir / "claims").glob("*.json")) == sorted(NAMES[:2])
    assert not (workdir / "claims.md").exists()
    job.run(make_config(), workdir)
    assert [name for name, *_ in checked] == NAMES
    assert contents(workdir) == contents(whole)


def test_a_claim_that_was_killed_before_its_report_is_checked_again(checked, tmp_path):
    job.run(make_config(claim=NAMES[0]), tmp_path)
    (tmp_path / "claims" / f"{NAMES[0]}.json").unlink()  # the figure is written first
    job.run(make_config(claim=NAMES[0]), tmp_path)
    assert [name for name, *_ in checked] == [NAMES[0]] * 2


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"seed": 1}, "config.seed is 0 there and 1 here"),
        ({"thorough": True}, "config.thorough is false there and true"),
    ],
)
def test_a_workdir_of_another_config_is_refused_in_one_sentence(fields, said, checked, tmp_path):
    job.run(make_config(claim=NAMES[0]), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path} belongs to another run: {said}") as error:
        job.run(make_config(claim=NAMES[1], **fields), tmp_path)
    assert "\n" not in str(error.value)
    assert len(checked) == 1 and contents(tmp_path) == before


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("claim", "theorem5", f"config.claim='theorem5' must be '' (all), or one of {', '.join(NAMES)}"),
        ("claim", 3, "config.claim=3 must be of type str"),
        ("seed", -1, "config.seed=-1 must be from 0 to 4294967295"),
        ("thorough", 1, "config.thorough=1 must be of type bool"),
        ("epochs", 3, "config.epochs is not a field of this config; the fields are job, claim, thorough, seed"),
    ],
)
def test_values_that_no_check_can_have_are_refused_before_anything_is_written(field, value, said, checked, tmp_path):
    config = ConfigDict(make_config().to_dict() | {field: value})
    with pytest.raises(ValueError) as error:
        job.run(config, tmp_path / "run")
    assert str(error.value).startswith(said) and "\n" not in str(error.value)
    assert not checked and not (tmp_path / "run").exists()


def test_the_config_is_valid_and_every_claim_may_be_named(checked, tmp_path):
    assert make_config() == job.settings() == ConfigDict({"job": "theory", "claim": "", "thorough": False, "seed": 0})
    for name in NAMES:
        job.run(make_config(claim=name, thorough=True, seed=2**32 - 1), tmp_path)
    assert checked == [(name, 2**32 - 1, job.THOROUGH) for name in NAMES]


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections, where it reads the config
def test_the_program_prints_the_table_or_one_sentence_and_ends_with_143_after_a_stop(
    checked, command, tmp_path, monkeypatch
):
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path}"]
    ended = command(*arguments, f"--config.claim={NAMES[4]}")
    assert ended.code == 0 and [name for name, *_ in checked] == [NAMES[4]]
    assert (tmp_path / "claims.md").read_text() in ended.out and ended.out.endswith(f"results in {tmp_path}\n")
    ended = command(*arguments, "--config.seed=8")
    assert ended.code.startswith(f"error: {tmp_path} belongs to another run: config.seed is 0 there and 8 here")
    check = claims.check

    def stopping(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return check(*arguments)

    monkeypatch.setattr(claims, "check", stopping)
    ended = command(*arguments)
    assert ended.code == 128 + signal.SIGTERM == 143
    assert f"stopped before {NAMES[1]}; the same command resumes it\n" in ended.out
