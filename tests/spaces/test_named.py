"""A space that a config names by a function of the user's own, and the text of a user's ops."""

import functools
import runpy

import pytest
from shared import refused

from prdarts_jax import ops, spaces
from prdarts_jax.spaces import own

SPACE = """
import prdarts_jax as pdx
def mine():
    return pdx.SearchSpace("mine", ("none", "skip_connect"), nodes={nodes})
number = 3
def takes(nodes):
    return mine()
def is_none():
    return 3
def is_wrong():
    return pdx.SearchSpace("mine", ())
"""


def test_a_space_of_a_file_or_a_module_is_found_and_again_once_the_file_has_changed(tmp_path, monkeypatch):
    for nodes in (4, 5):
        (tmp_path / "own_spaces.py").write_text(SPACE.format(nodes=nodes))
        assert spaces.named(f"{tmp_path}/own_spaces.py:mine") == spaces.SearchSpace(
            "mine", ("none", "skip_connect"), nodes=nodes
        )
    monkeypatch.syspath_prepend(tmp_path)
    assert spaces.named("own_spaces:mine").nodes == 5


@pytest.mark.parametrize(
    "function, reason",
    [
        ("takes", "TypeError: takes() missing 1 required positional argument: 'nodes'"),
        ("number", "TypeError: 'int' object is not callable"),
        ("is_none", "it returns 3"),
        ("is_wrong", "ValueError: space 'mine' must have ops, inputs and more nodes than inputs, but has ops=()"),
    ],
)
def test_what_returns_no_space_is_refused(function, reason, tmp_path):
    (tmp_path / "own.py").write_text(SPACE.format(nodes=4))
    name = f"{tmp_path}/own.py:{function}"
    with pytest.raises(ValueError) as error:
        spaces.named(name)
    text = f"space={name!r} must be a function without arguments that returns a SearchSpace: {reason}"
    assert str(error.value).startswith(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, "FileNotFoundError: [Errno 2] No such file or directory: '{}'"),
        ("mint = 1", "AttributeError: {} has no mine; did you mean 'mint'?"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_imported_is_refused(text, reason, tmp_path):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with refused(
        f"space='{path}:mine' cannot be imported as MODULE:FUNCTION or FILE.py:FUNCTION: {reason.format(path)}"
    ):
        spaces.named(f"{path}:mine")


def test_the_text_of_an_op_is_that_of_its_function_and_the_package_s_ops_have_none(tmp_path, own_registry):
    assert [name for name in ops.names() if own.source_of_op(name)] == []
    text = "def build(size, channels, stride):\n    pass"
    (tmp_path / "own.py").write_text(f"{text}\n\ndef get_config(): return 3\n")
    build = runpy.run_path(str(tmp_path / "own.py"))["build"]
    ops.register("of_a_file", group="conv")(functools.partial(build, 3))
    assert own.source_of_op("of_a_file") == text.encode()
    ops.register("of_this_file", group="conv")(lambda channels, stride: None)
    assert b"lambda channels, stride: None" in own.source_of_op("of_this_file")
    scope = {"__name__": "__main__"}
    exec(text, scope)
    ops.register("of_no_file", group="conv")(scope["build"])
    assert own.source_of_op("of_no_file") is None
