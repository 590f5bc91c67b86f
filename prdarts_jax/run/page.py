"""The elements of a page of a run, as HTML; every text in them is escaped."""

import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # imported only by what draws, since matplotlib takes long
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


def text(value: Any) -> str:
    """The text of any value, escaped.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return html.escape(str(value))


class Link(NamedTuple):
    """A link in a cell of a table: its address, relative to the page and escaped, and its text."""

    address: str
    name: str


def section(title: str, *parts: str) -> str:
    """A part of the page with a heading; `parts` are HTML."""
    return "\n".join([f"<section>\n<h2>{text(title)}</h2>", *parts, "</section>"])


def folded(title: str, *parts: str) -> str:
    """A part of the page that a click on its title opens; `parts` are HTML."""
    return "\n".join([f"<details>\n<summary>{text(title)}</summary>", *parts, "</details>"])


def wide(content: str) -> str:
    """HTML that may be wider than a small screen and is then scrolled by itself."""
    return f"<div class='wide'>{content}</div>"


def warning(sentences: Sequence[str]) -> str:
    """A list that stands out, or nothing if it is empty."""
    if not sentences:
        return ""
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f"<div class='warning' role='note'><strong>Careful</strong><ul>{items}</ul></div>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "", marked: Sequence[bool] = ()) -> str:
    """A table; of kind 'sortable' a click on its headings sorts it. Rows that are marked are coloured."""
    title = "<button>{}</button>" if kind == "sortable" else "{}"
    heads = "".join(f"<th scope='col'>{title.format(text(name))}</th>" for name in head)
    lines = []
    for number, row in enumerate(rows):
        colour = " class='found'" if marked and marked[number] else ""
        lines.append(f"<tr{colour}>{''.join(map(_cell, row))}</tr>")
    top = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f"<table class='{kind}'>{top}<tbody>{''.join(lines)}</tbody></table>"


def _cell(value: Any) -> str:
    """A cell of a table. That of a number has its exact value, too, by which the table is sorted."""
    if value is None:
        return "<td data-value=''>–</td>"
    if isinstance(value, Link):
        return f"<td><a href='{text(value.address)}'>{text(value.name)}</a></td>"
    if isinstance(value, int | float):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:#.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        return f"<td data-value='{value!r}'>{shown}</td>"
    return f"<td>{text(value)}</td>"


def panels(figures: Sequence["Figure"]) -> str:
    """Figures of one panel each, side by side as far as the screen is wide."""
    drawn = []
    for number, figure in enumerate(figures):
        figure.set_size_inches(4.6, 3.4)
        drawn.append(f"<div>{svg(figure, f'panel{number}')}</div>")
    return f"<div class='panels'>{''.join(drawn)}</div>"


def svg(figure: "Figure", name: str, part: Sequence["Artist"] | None = None) -> str:
    """An SVG element of a figure, or of some of its artists, `part`. The name must be unique on the page."""
    import matplotlib
    from matplotlib.transforms import Bbox

    file = io.StringIO()
    unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    cut: Any = "tight"
    if part:
        box = Bbox.union([box for artist in part if (box := artist.get_tightbbox())])
        cut = box.transformed(figure.dpi_scale_trans.inverted()).padded(0.05)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", bbox_inches=cut, metadata=unset)
    picture = re.sub(r"<!--.*?-->", "", file.getvalue()[file.getvalue().index("<svg") :])
    picture = re.sub(r'<g id="[^"]*"', "<g", picture)  # such names are not unique in the page
    picture = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", picture, count=1)
    picture = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "sans-serif", picture)
    picture = picture.replace("<svg", f'<svg role="img" aria-label="{text(name)}"', 1)
    rounded = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d)\d+", r"\1", tag[0]), picture)
    return re.sub(r"\s*\n\s*", " ", rounded)
