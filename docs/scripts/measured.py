"""What was measured: results of the scripts, and parts of experiments/README.md and theory.md."""

import re
from pathlib import Path

from markdown.extensions.toc import slugify

PAGE, CLAIMS = "experiments/README.md", "experiments/theory.md"
_TEXT, _OF_CLAIMS = ((Path(__file__).parents[2] / page).read_text() for page in (PAGE, CLAIMS))
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
                parts.append("\n".join([f"{_link(title, title, top + PAGE)}:", "", head, line, *kept]))
    return "\n\n".join(parts) or "This method has not been measured here."


def results(name: str, _: str) -> str:
    """What a script has written to NAME.md, or printed, in NAME.txt."""
    (path,) = (Path(__file__).parents[2] / "experiments/results").glob(f"{name}.*")
    return path.read_text() if path.suffix == ".md" else f"```text\n{path.read_text()}```"


def verdicts(_: str, top: str) -> str:
    """The answers at the beginning of the page of all claims."""
    (answers,) = re.findall(r"^## Answers\n((?:(?!##).*\n?)*)", _OF_CLAIMS, re.MULTILINE)
    answers = re.sub(r"\]\((?=#)", "](theory.md", answers)  # links within that page
    return re.sub(r"\]\((?!http)", f"]({top}experiments/", answers)


def _link(text, heading, page):
    return f"[{text}]({page}#{slugify(heading, '-')})"
