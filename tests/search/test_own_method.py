"""A method of the user's own, named in a config."""

import dataclasses
import inspect
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shared
from shared import ROOT, get_config
from table import Table, batch_of, jit_init, jit_step

from prdarts_jax import spaces
from prdarts_jax.run import problems, settings, validation
from prdarts_jax.search import methods
from prdarts_jax.spaces import own

OWN = f"{ROOT / 'configs/own_method.py'}:annealed_darts"


def test_a_method_of_a_file_is_found_built_and_searched():
    config = get_config("own_method")
    validation.validate(config)
    problem = problems.make_search_problem(config, 10, total_steps=3)
    # It is one value, and so one compiled function.
    assert problem.method == problems.make_method(config) == methods.find(OWN)()
    problem = dataclasses.replace(problem, supernet=Table(spaces.nas_bench_201()))
    state = before = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    for _ in range(3):
        state, metrics = jit_step(problem, state, batch_of(0.0), batch_of(1.0))
    beta = state.arch["normal"]
    assert (beta != before.arch["normal"]).all() and np.isfinite(metrics["val_loss"])
    weights = problem.op_weights(state.arch, jax.random.key(0), jnp.float32(1))["normal"]
    np.testing.assert_allclose(weights[0], jax.nn.softmax(10 * beta), rtol=1e-5)
    assert float(metrics["l_entropy"]) == pytest.approx(np.log(5), rel=0.05)  # of five ops, hardly told apart yet


def test_a_setting_of_an_own_method_has_a_section_and_a_range(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\n"
        "import prdarts_jax as pdx\n"
        "from prdarts_jax.fields import at_least\n"
        "def deep(weight: Annotated[float, at_least(0)] = 0.5):\n"
        "    return pdx.Method(terms=(pdx.terms.path_depth(weight),))\n"
    )
    config = settings.search(f"{tmp_path / 'mine.py'}:deep")
    assert config.deep.to_dict() == {"weight": 0.5}
    config.deep.weight, config.logits.start = 0.25, 0.5
    validation.validate(config)
    method = problems.make_method(config)
    assert [term.weight for term in method.terms] == [0.25] and method.logits_start == 0.5
    config.deep.weight = -1.0
    with pytest.raises(ValueError, match=r"^config.deep.weight=-1.0 must be from 0 to 3.4e\+38$"):
        validation.validate(config)


def test_a_file_that_has_changed_is_run_again(tmp_path):
    file = tmp_path / "mine.py"
    for window in (2, 3, 3):
        text = f"import prdarts_jax as pdx\ndef mine():\n    return pdx.methods.r_darts(window={window})\n"
        file.write_text(text)
        assert methods.find(f"{file}:mine")().early_stopping.window == window
        assert own.source_of(f"{file}:mine") == text.encode()


def test_the_text_of_a_method_is_that_of_its_module_and_in_main_that_of_the_function(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "mine", method_of_main, raising=False)
    assert own.source_of("__main__:mine") == inspect.getsource(method_of_main).encode()
    assert own.source_of("shared:tiny_config") == Path(shared.__file__).read_bytes()
    assert own.source_of("darts") is None


def method_of_main():
    return methods.darts()


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/mine.py").write_text(
            f"import prdarts_jax as pdx\ndef method{number}():\n    return pdx.methods.r_darts(window={number})\n"
        )
    for number in (1, 2, 1):
        made = methods.find(f"{tmp_path}/{number}/mine.py:method{number}")()
        assert made.early_stopping.window == number


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "dart",
            r"^method='dart' must be one of pr_darts, .* FILE.py:FUNCTION or FILE.toml of your own; did you mean '",
        ),
        ("no_such_module:f", r"^method='no_such_module:f' cannot be imported as MODULE:FUNCTION or FILE.py:FUNCTION: "),
        ("no_such_file.py:f", r"^method='no_such_file.py:f' cannot be imported as "),
        ("math:no_such_function", r"^method='math:no_such_function' cannot be imported as "),
        ("math:pi", r"^method='math:pi' must be a function that returns a Method$"),
    ],
)
def test_what_is_no_method_is_refused_by_one_sentence(name, message):
    with pytest.raises(ValueError, match=message):
        methods.find(name)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "import functools, prdarts_jax as pdx\nmine = functools.partial(pdx.methods.darts)",
            "must be a function that",
        ),
        ("def mine(weight): pass", ": setting weight of mine has no default: give it one$"),
        ("def mine(weight: 'Weight' = 1): pass", ": name 'Weight' is not defined$"),
    ],
)
def test_a_function_whose_arguments_a_config_cannot_have_is_refused(text, message, tmp_path):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=f"^method='{tmp_path}/own.py:mine'.*{message}"):
        settings.search(f"{tmp_path}/own.py:mine")


def test_an_error_of_the_function_of_a_method_is_one_sentence(tmp_path):
    (tmp_path / "own.py").write_text("def mine(): raise RuntimeError('boom')")
    config = settings.search(f"{tmp_path}/own.py:mine")
    with pytest.raises(ValueError, match=f"^method mine in {tmp_path}/own.py:1 raised RuntimeError: boom$"):
        problems.make_method(config)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        methods.find("darts")(foo=1)


@pytest.mark.parametrize("name", ["darts", "weights", "epochs"])
def test_the_name_of_a_method_may_be_that_of_another_or_of_a_field(name, tmp_path):
    (tmp_path / "own.py").write_text(f"import prdarts_jax as pdx\ndef {name}(): return pdx.methods.darts()\n")
    config = settings.search("darts")
    config.method = f"{tmp_path}/own.py:{name}"
    validation.validate(config)
    assert problems.make_method(config) == methods.darts()


def test_a_method_with_settings_must_have_another_name_than_a_field(tmp_path):
    for name in ("weights", "darts"):
        text = f"import prdarts_jax as pdx\ndef {name}(window=2): return pdx.methods.darts()\n"
        (tmp_path / f"{name}.py").write_text(text)
        with pytest.raises(ValueError, match=f"must have another name than the field {name} of a config$"):
            settings.search(f"{tmp_path}/{name}.py:{name}")


def test_a_function_that_returns_something_else_is_refused():
    with pytest.raises(ValueError, match=r"^method getcwd must return a Method, not str$"):
        methods.find("os:getcwd")()
