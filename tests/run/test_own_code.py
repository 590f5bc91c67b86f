"""Runs with an op, a method or a space of the user's own: it is used, and a run goes on with the same code only."""

import json
import re
import runpy

import pytest
from shared import ROOT, make_toy, tiny_arguments, tiny_config, tiny_training, without_pictures

from prdarts_jax import spaces
from prdarts_jax.run import checkpoints, evaluate, own_code, problems, search, settings, train, validation
from prdarts_jax.spaces import genotypes

# Of ml_collections, where it reads a file of the flag.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

OP = """
import prdarts_jax as pdx

@pdx.ops.register("half", group="skip")
def half(channels, stride):
    return pdx.ops.Op(lambda params, stats, x, norm: (x[:, ::stride, ::stride] / 2, {}))
"""
METHOD = """
import prdarts_jax as pdx

def mine(window: int = 2):
    return pdx.methods.darts()
"""
SPACE = """
import prdarts_jax as pdx

def small():
    return pdx.SearchSpace("small", ("skip_connect", "max_pool_3x3"), nodes=3)
"""


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(problems, "make_supernet", make_toy)


@pytest.fixture
def op(tmp_path, own_registry):
    """The file of a registered op."""
    path = tmp_path / "op.py"
    path.write_text(OP)
    runpy.run_path(str(path))
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def assert_changed(workdir, what, call):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == (
        f"{workdir} belongs to another run: {what} has changed since the run began; use another --workdir or the old "
        "code"
    )


def test_a_search_goes_on_with_the_same_code_of_its_op_method_and_space_only(op, toy, tmp_path):
    files = {"method": tmp_path / "method.py", "space": tmp_path / "space.py"}
    for name, text in (("method", METHOD), ("space", SPACE)):
        files[name].write_text(text)
    config = tiny_config(space=f"{files['space']}:small", ops="half,max_pool_3x3", epochs=1)
    config.method = f"{files['method']}:mine"
    with without_pictures():
        found = search.run(config, tmp_path / "run")
        for path in (op, *files.values()):
            path.write_text("# A comment.\n" + path.read_text().replace("\n\n", "\n\n\n"))
        assert search.run(config, tmp_path / "run") == found
    for path, old, new, what in (
        (op, "/ 2", "/ 3", "the code of the op half"),
        (files["method"], "window: int = 2", "window: int = 3", f"the file of config.method='{files['method']}:mine'"),
        (files["space"], "nodes=3", "nodes=(3)+0", f"the file of config.space='{files['space']}:small'"),
    ):
        edit(path, old, new)
        assert_changed(tmp_path / "run", what, lambda: search.run(config, tmp_path / "run"))
        edit(path, new, old)
    files["method"].rename(tmp_path / "moved.py")
    config.method = f"{tmp_path}/moved.py:mine"
    with pytest.raises(ValueError, match=r"another run: config.method is \S.* there and \S.* here; use [^,]* values$"):
        search.run(config, tmp_path / "run")


def test_trainings_go_on_with_the_same_code_of_the_ops_of_their_cells_only(op, tmp_path, monkeypatch):
    entries = (("half", 0), ("max_pool_3x3", 1))
    cell = genotypes.Genotype(entries, (2,), entries, (2,))
    config = tiny_training(genotype=genotypes.to_json(cell), drop_path=0.0)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "_Trainer", stop)
    before = train.check(config).identity
    assert before["own_code"].keys() == {"the code of the op half"}
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate({"half": cell}, config, tmp_path / "run")
    edit(op, "/ 2", "/ 3")
    what = "the code of the op half"
    assert_changed(tmp_path / "run", what, lambda: evaluate.evaluate({"half": cell}, config, tmp_path / "run"))
    assert checkpoints.differences(before, train.check(config).identity) == f"{what} has changed since the run began"


def test_a_method_of_a_toml_file_is_compared_too(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("[supernet]\npartial = 2\n")
    before = own_code.field((), method=str(path))
    assert checkpoints.differences(before, own_code.field((), method=str(path))) == ""
    edit(path, "2", "4")
    after = own_code.field((), method=str(path))
    text = f"the file of config.method={str(path)!r} has changed since the run began"
    assert checkpoints.differences(before, after) == text
    assert own_code.field(("skip_connect", "sep_conv_3x3"), method="darts", space="s2") == {}


def test_a_space_of_ones_own_is_searched_and_its_cells_compared(command, toy, tmp_path):
    (tmp_path / "own.py").write_text(SPACE)
    name = f"{tmp_path}/own.py:small"
    arguments = tiny_arguments(
        tmp_path / "run",
        epochs=1,
        **{"evaluation.epochs": 1, "evaluation.channels": 2, "evaluation.random_cells": 2, "evaluation.batch_size": 40},
    )
    arguments = [a for a in arguments if not a.startswith("--config.space=")]
    with without_pictures():
        ended = command(*arguments, f"--config.space={name}")
    assert ended.code == 0
    found = genotypes.load(tmp_path / "run/genotype.json")
    assert {op for op, _ in found.normal} <= {"skip_connect", "max_pool_3x3"} and len(found.normal) == 2
    rows = json.loads((tmp_path / "run/comparison.json").read_text())
    assert rows.keys() == {"found", "random_0", "random_1", "all_skip"}


def test_nodes_and_ops_of_a_space_of_ones_own_may_be_changed(tmp_path):
    (tmp_path / "own.py").write_text(SPACE)
    config = settings.search()
    config.space = f"{tmp_path}/own.py:small"
    validation.validate(config)
    assert settings.space_of(config) == spaces.SearchSpace("small", ("skip_connect", "max_pool_3x3"), nodes=3)
    config.update({"nodes": 4, "ops": "none,skip_connect"})
    assert settings.space_of(config) == spaces.SearchSpace("small", ("none", "skip_connect"), nodes=4)
    config.space += "s"
    with pytest.raises(ValueError, match=f"^config.space='{re.escape(config.space)}' cannot be imported as MODULE:"):
        validation.validate(config)


# Sections of methods ------------------------------------------------------------------------------------------------


def test_a_flag_for_another_method_than_the_config_s_is_refused(command, tmp_path):
    digits = f"--config={ROOT}/configs/digits.py"
    ended = command(f"{digits}:gdas", f"--workdir={tmp_path / 'run'}", "--config.darts.second_order=True")
    assert ended.code == (
        "error: config.darts.second_order has no effect with config.method='gdas': leave it out, or set "
        "--config.method=darts"
    )
    (tmp_path / "own.py").write_text(METHOD)
    own = f"{tmp_path}/own.py:mine"
    ended = command(f"{digits}:{own}", f"--workdir={tmp_path / 'run'}", "--noconfig.darts.second_order")
    assert ended.code.startswith(f"error: config.darts.second_order has no effect with config.method={own!r}: ")
    ended = command(f"{digits}:{own}", f"--workdir={tmp_path / 'run'}", "--config.method=gdas")
    assert ended.code == (
        "error: config.mine is the section of another method than config.method='gdas': leave it out, or start from "
        "the config of this method"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [lambda: None, {"name": "darts"}])
def test_a_method_is_given_by_its_name(value):
    with pytest.raises(ValueError, match=r"^method=.* must be a name, such as 'darts' or 'MODULE:FUNCTION'$"):
        settings.search(value)


# Jobs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, start, job, given",
    [
        (lambda config, workdir: search.run(config, workdir), "search", "search", settings.training),
        (lambda config, workdir: train.run(config, workdir), "training", "train", settings.search),
        (lambda config, workdir: evaluate.evaluate({}, config, workdir), "training", "train", settings.search),
    ],
    ids=["search", "train", "evaluate"],
)
def test_a_config_of_another_job_is_refused(call, start, job, given, tmp_path):
    config = given()
    with pytest.raises(ValueError) as error:
        call(config, tmp_path / "run")
    assert str(error.value) == f"config.job={config.job!r} must be {job!r}: start from settings.{start}()"


def test_a_discretization_that_gives_no_cell_is_refused_before_the_search(tmp_path):
    (tmp_path / "own.py").write_text(
        "import prdarts_jax as pdx\ndef mine(): return pdx.Method(discretization=lambda space, scores: None)\n"
    )
    with pytest.raises(ValueError, match="must return a cell: genotype None must be of the type Genotype"):
        search.run(tiny_config(f"{tmp_path}/own.py:mine"), tmp_path / "run")
    assert not (tmp_path / "run/metrics.jsonl").exists()
