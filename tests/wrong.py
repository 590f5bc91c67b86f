"""Values that stand where others should, changed and damaged ones, and how what reads them is judged."""

import copy
import math

from hypothesis import strategies as st

import prdarts_jax as pdx

CHARACTERS = 830  # of a sentence

ODD = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    0.5,
    math.nan,
    math.inf,
    [],
    {},
    [[]],
    "",
    "\0",
    "\ud800",
    "~no such user/x",
]
ODD += ["x" * 5000, "[" * 5000, "{", "nan", "../..", "a\nb", "1" * 5000, [[0] * 50] * 50]
LEAVES = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(pdx.ops.names())
JSON = st.recursive(LEAVES, lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=9), of, max_size=3))
ANYTHING = JSON | st.binary(max_size=9) | st.tuples(JSON) | st.complex_numbers() | st.builds(object)


@st.composite
def changed(draw, value):
    """A value of JSON with one part, somewhere in it, replaced, left out or added."""
    value = copy.deepcopy(value)
    where = value
    while isinstance(where, dict | list) and where:
        at = draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        deeper = isinstance(where[at], dict | list) and where[at] and draw(st.booleans())
        if not deeper:
            if draw(st.integers(0, 3)):
                where[at] = draw(JSON)
            elif isinstance(where, dict):
                where[draw(st.text(max_size=9))] = where.pop(at)
            else:
                del where[at]
            break
        where = where[at]
    return value


@st.composite
def damaged(draw, content):
    """Bytes of which a few parts are overwritten, left out or added."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.integers(0, 9) | st.just(len(content)))
        content = content[:start] + draw(st.binary(max_size=9)) + content[stop:]
    return content


def assert_sentence(text):
    assert text and "\n" not in text and len(text) <= CHARACTERS, text[: 2 * CHARACTERS]


def refused(call, *arguments):
    """Whether a call was refused, in one sentence."""
    try:
        call(*arguments)
    except (ValueError, OSError) as error:
        assert_sentence(str(error))


def reader(path, read):
    """Writes a file and reads what is in its folder."""
    path.parent.mkdir(exist_ok=True)

    def write_and_read(content):
        path.write_bytes(content)
        refused(read, path.parent)

    return write_and_read
