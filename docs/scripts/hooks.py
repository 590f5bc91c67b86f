"""What the pages get when they are built: tables of settings, measured numbers, formulas, pictures.

A page asks for a table or a text by a line of its own, for instance

    <!-- method: darts -->

with a name of `INSERTS`. Formulas are LaTeX in blocks of the language `math`. The folder experiments/ becomes a part of
the documentation, and pictures/ has what pictures.py draws.
"""

import re
from pathlib import Path

import latex2mathml.converter
import measured
import pictures
import tables
from mkdocs.structure.files import File

INSERTS = {
    "settings": tables.of_job,
    "method": tables.of_methods,
    "configs": tables.of_configs,
    "measured": measured.rows,
    "section": measured.section,
    "results": measured.results,
    "verdicts": measured.verdicts,
}
ROOT = Path(__file__).parents[2]


def on_files(files, config):
    """Adds the experiments and the pictures to the pages."""
    for path in sorted((ROOT / "experiments").rglob("*")):
        if path.suffix in (".md", ".png") and path.name != "claims.md" and path.parent.name != "results":
            place = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(path)))
    for name, draw in pictures.DRAWN.items():
        files.append(File.generated(config, f"pictures/{name}.svg", content=draw()))
    return files


def on_page_markdown(markdown, page, **_):
    """Puts in what the page asks for."""
    top = "../" * page.file.src_uri.count("/")
    if not page.file.src_uri.startswith("experiments/"):  # in the repository it is beside docs/, here within it
        markdown = re.sub(r"\]\(\.\./((\.\./)*experiments/)", r"](\1", markdown)
    text = re.sub(
        r"^<!-- (\w+): (.+) -->$", lambda found: INSERTS[found[1]](found[2], top), markdown, flags=re.MULTILINE
    )
    if page.file.src_uri.startswith("experiments/"):  # what they link to beside pages and pictures is not here
        text = re.sub(r"\[([^\]]+)\]\((?:\w+\.py|theory)\)", r"\1", text).replace("](../docs/", "](../")
    return re.sub(r"^```math\n(.*?)^```", _formula, text, flags=re.MULTILINE | re.DOTALL)


def _formula(found):
    converted = latex2mathml.converter.convert(found[1].strip(), display="block")
    if "\\" in converted:
        raise ValueError(f"a formula has a command that cannot be converted: {found[1].strip()}")
    return converted
