"""A folder of the theory lab: what a run leaves behind, that it goes on with what is missing, and what it refuses."""

import json
import runpy
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_claims import MEASURE, OWN

from prdarts_jax.run import loop, reporting
from prdarts_jax.theory import claims, job, report, verdicts

CONFIG = Path(__file__).parents[2] / "configs/theory.py"
NAMES = list(claims.read())
PNG = b"\x89PNG\r\n\x1a\n"


def make_config(**fields):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.update(fields)
    return config


def contents(workdir):
    return {str(path.relative_to(workdir)): path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.fixture
def own(tmp_path_factory):
    """A file of two claims with the same measure, in two cases and four replicates."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_measures.py").write_text(MEASURE)
    (folder / "my_claims.toml").write_text(OWN)
    return str(folder / "my_claims.toml")


@pytest.fixture
def measured(monkeypatch):
    """The (name, sizes) of what has been measured, which is cheap; a figure is a line of text."""
    calls, original = [], verdicts.measure_one

    def measure_one(claim, sizes):
        calls.append((claim.name, sizes))
        return original(claim, sizes)

    monkeypatch.setattr(verdicts, "measure_one", measure_one)
    monkeypatch.setattr(report, "figure", lambda judged: f"figure of {judged['claim']}")
    monkeypatch.setattr(reporting, "save_figure", lambda text, path: reporting.write_bytes(path, text.encode()))
    return calls


# What a run leaves behind ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what the run gave) of one claim of the papers."""
    workdir = tmp_path_factory.mktemp("finished")
    config = make_config(claim="theorem4_constants", sizes="draws = 20, nodes = [4, 6], seed = [3, 4]")
    return workdir, job.run(config, workdir)


def test_a_claim_leaves_its_draws_its_report_its_figure_and_rows(finished):
    workdir, text = finished
    claim = claims.read()["theorem4_constants"].with_sizes({"draws": 20, "nodes": [4, 6], "seed": [3, 4]})
    draws = verdicts.measure(claim)
    expected = report.as_json(verdicts.judge(claim, draws))
    written = reporting.read_json(workdir / "claims/theorem4_constants.json")
    assert written == json.loads(json.dumps(expected))
    assert (workdir / "claims/theorem4_constants.png").read_bytes().startswith(PNG)
    assert (workdir / "claims.md").read_text() == text == report.table([written])
    for sizes, expected in zip(verdicts.steps(claim), draws, strict=True):
        path = job.draws_path(workdir, claim, sizes)
        found = job.read_draws(path)
        assert found.keys() == expected.keys() and all(map(np.array_equal, found.values(), expected.values()))
        with np.load(path) as file:
            assert json.loads(str(file["sizes of the measurement"])) == sizes
    assert len(list((workdir / "draws/constants").iterdir())) == 4


def test_a_second_call_measures_nothing_and_changes_nothing(finished, measured):
    workdir, text = finished
    before = contents(workdir)
    config = make_config(claim="theorem4_constants", sizes="draws = 20, nodes = [4, 6], seed = [3, 4]")
    assert job.run(config, workdir) == text
    before["claims/theorem4_constants.png"] = b"figure of theorem4_constants"
    assert not measured and contents(workdir) == before


def test_claims_of_ones_own_are_checked_and_those_with_the_same_measure_share_the_draws(own, measured, tmp_path):
    text = job.run(make_config(claims=own, thorough=True), tmp_path)
    assert [name for name, _ in measured] == ["large"] * 8
    assert "| **large** |" in text and "| **small** |" in text
    large = reporting.read_json(tmp_path / "claims/large.json")
    assert [case["median"] > 1 for case in large["findings"]["above"]["cases"].values()] == [True, True]
    assert large["share"] == "holds 4/4"
    assert reporting.read_json(tmp_path / "claims/small.json")["share"] == "fails 4/4"


def test_sizes_are_those_of_the_command_line(own, measured, tmp_path):
    job.run(make_config(claims=own, sizes='width = [9], activation = ["tanh"], draws = 7'), tmp_path)
    assert [(sizes["width"], sizes["activation"], sizes["draws"]) for _, sizes in measured] == [(9, "tanh", 7)] * 2


# Going on -------------------------------------------------------------------------------------------------------------


def test_claims_may_be_added_one_by_one(own, measured, tmp_path):
    for name in ("small", "large", "small"):
        text = job.run(make_config(claims=own, claim=name), tmp_path)
    assert len(measured) == 4 and text.index("large") < text.index("small")
    whole = tmp_path / "whole"
    job.run(make_config(claims=own), whole)
    for part in ("claims", "draws"):
        assert contents(whole / part) == contents(tmp_path / part)


def test_a_stop_ends_the_run_after_the_measurement_and_the_same_command_goes_on(own, measured, tmp_path, monkeypatch):
    whole, workdir = tmp_path / "whole", tmp_path / "stopped"
    job.run(make_config(claims=own), whole)
    measured.clear()
    measure_one = verdicts.measure_one

    def stopping(claim, sizes):
        if len(measured) == 1:
            signal.raise_signal(signal.SIGTERM)
        return measure_one(claim, sizes)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "measure_one", stopping)
        with pytest.raises(loop.Stopped, match="^stopped during large; the same command resumes it$"):
            job.run(make_config(claims=own), workdir)
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(measured) == 2  # the second, during which it came, is complete
    assert not (workdir / "claims.md").exists()
    job.run(make_config(claims=own), workdir)
    assert len(measured) == 4 and contents(workdir) == contents(whole)


def test_draws_of_other_sizes_in_the_file_are_not_taken_for_these(own, measured, tmp_path):
    job.run(make_config(claims=own, claim="large"), tmp_path)
    path = Path(own)
    path.write_text(path.read_text().replace("draws = 3", "draws = 4"))
    job.run(make_config(claims=own, claim="large"), tmp_path)
    assert [sizes["draws"] for _, sizes in measured] == [3] * 4 + [4] * 4


def test_what_a_changed_measure_would_give_is_not_taken_from_the_draws_of_the_old_one(own, measured, tmp_path):
    file = Path(own).with_name("my_measures.py")
    counts = []
    for text in (MEASURE, "# a comment\n" + MEASURE, MEASURE.replace("width * scale", "2 * width * scale"), MEASURE):
        file.write_text(text)
        job.run(make_config(claims=own, claim="large"), tmp_path)
        counts.append(len(measured))
    assert counts == [4, 4, 8, 8]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"sizes": "draws = 2"}, "config.sizes is '' there and 'draws = 2' here"),
        ({"thorough": True}, "config.thorough is false there and true"),
    ],
)
def test_a_workdir_of_another_config_is_refused_in_one_sentence(fields, said, own, measured, tmp_path):
    job.run(make_config(claims=own, claim="large"), tmp_path)
    before, count = contents(tmp_path), len(measured)
    with pytest.raises(ValueError, match=f"^{tmp_path} belongs to another run: ") as error:
        job.run(make_config(claims=own, claim="small", **fields), tmp_path)
    assert said.replace("'", '"') in str(error.value).replace("'", '"') and "\n" not in str(error.value)
    assert len(measured) == count and contents(tmp_path) == before


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("claim", "theorem5", f"config.claim='theorem5' must be '' (all), or one of {', '.join(NAMES[:3])}"),
        ("claim", 3, "config.claim=3 must be of type str"),
        ("claims", "none.toml", "file of claims none.toml does not exist or is not a file"),
        ("sizes", "draws", "config.sizes='draws' must have the form NAME = VALUE, NAME = [VALUE, VALUE]: "),
        ("sizes", "widths = [3]", "size 'widths' of claim theorem1_descent must be one of "),
        ("thorough", 1, "config.thorough=1 must be of type bool"),
        (
            "epochs",
            3,
            "config.epochs is not a field of this config; the fields are job, claim, claims, sizes, thorough",
        ),
    ],
)
def test_values_that_no_check_can_have_are_refused_before_anything_is_written(field, value, said, measured, tmp_path):
    config = ConfigDict(make_config().to_dict() | {field: value})
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        job.run(config, tmp_path / "run")
    assert str(error.value).startswith(said) and "\n" not in str(error.value)
    assert not measured and not (tmp_path / "run").exists()


def test_the_config_is_valid_and_every_claim_may_be_named():
    expected = {"job": "theory", "claim": "", "claims": "", "sizes": "", "thorough": False}
    assert make_config() == job.settings() == ConfigDict(expected)
    for name in NAMES:
        assert list(job.chosen(make_config(claim=name, thorough=True))) == [name]
    assert list(job.chosen(make_config())) == NAMES


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections, where it reads the config
def test_the_program_prints_the_table_or_one_sentence_and_ends_with_143_after_a_stop(
    own, measured, command, tmp_path, monkeypatch
):
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path}", f"--config.claims={own}"]
    ended = command(*arguments, "--config.claim=small", "--config.sizes=width = [5], draws = 4")
    assert ended.code == 0 and [sizes["width"] for _, sizes in measured] == [5] * 2
    assert (tmp_path / "claims.md").read_text() in ended.out and ended.out.endswith(f"results in {tmp_path}\n")
    ended = command(*arguments)
    assert ended.code.startswith(f"error: {tmp_path} belongs to another run: config.sizes is ")
    measure_one = verdicts.measure_one

    def stopping(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return measure_one(*arguments)

    monkeypatch.setattr(verdicts, "measure_one", stopping)
    ended = command(*arguments[:1], f"--workdir={tmp_path / 'other'}", *arguments[2:])
    assert ended.code == 128 + signal.SIGTERM == 143
    assert "stopped during large; the same command resumes it\n" in ended.out
    assert not jax.config.jax_enable_x64
