"""Parts of experiments/README.md, so that every measured number stands there alone."""

import re
from pathlib import Path

from markdown.extensions.toc import slugify

PAGE = "experiments/README.md"
_TEXT = (Path(__file__).parents[2] / PAGE).read_text()
_SECTIONS = dict(re.findall(r"^##+ (.*)\n((?:(?!##).*\n?)*)", _TEXT, re.MULTILINE))


def section(title: str, top: str) -> str:
    """The text under a heading; `top` leads from the page to the top of the documentation."""
    return re.sub(r"\]\((?!http)", f"]({top}experiments/", _SECTIONS[title])


def rows(names: str, top: str) -> str:
    """The rows about some methods, of each table that has such, under a link to its section."""
    parts = []
    for title, text in _SECTIONS.items():
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            head, line, *body = table.splitlines()
            kept = [row for row in body if any(re.search(rf"\| `{name}(:[^`]*)?` \|", row) for name in names.split())]
            if kept:
                link = f"[{title}]({top}{PAGE}#{slugify(title, '-')})"
                parts.append("\n".join([f"{link}:", "", head, line, *kept]))
    return "\n\n".join(parts) or "This method has not been measured here."
