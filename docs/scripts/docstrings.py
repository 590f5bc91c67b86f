"""Docstrings as the reference shows them: examples are code, and names that share a line have a line each."""

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_SHARED = re.compile(r"^( +)((?:\w+, )+\w+): (.*(?:\n\1 .*)*)", re.MULTILINE)


class Readable(griffe.Extension):
    """Rewrites a docstring before it is parsed."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            text = _SHARED.sub(_one_a_line, obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", text)


def _one_a_line(found):
    return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))
