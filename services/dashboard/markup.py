"""Figures, tables and panels as HTML that screen readers and keyboards understand.

Pure. Every text that comes from outside is escaped here; no other module may write HTML around such texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from schemas.http_api.outlook import SegmentName
from services.dashboard.formatting import SEGMENTS
from services.dashboard.theme import MUTED, SEGMENT_COLOURS


class Figure(NamedTuple):
    """A number with its name, and a line of what to hold against it."""

    name: str
    value: str
    note: str = ""
    segment: SegmentName | None = None
    """Shown as this segment's badge instead of the value."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    wide: bool = False
    """Text that may wrap."""


@dataclass(frozen=True)
class Html:
    """Markup made by this module, for a cell."""

    source: str


Cell = str | Html


def figures(items: Sequence[Figure], *, beside: bool = False) -> str:
    """Figures in a row, which wraps where there is no room. beside: in a part of the page, three in a row at most."""
    return f'<dl class="clv-figures{" beside" if beside else ""}">{"".join(_figure(item) for item in items)}</dl>'


def _figure(item: Figure) -> str:
    value = badge(item.segment).source if item.segment else escape(item.value)
    note = f"<dd>{escape(item.note)}</dd>" if item.note else ""
    return f"<div><dt>{escape(item.name)}</dt><dd>{value}</dd>{note}</div>"


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], strong: int | None = None) -> str:
    """A table that scrolls sideways within itself. caption: for screen readers. strong: index of a row to stand out."""
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in columns)
    body = "".join(
        f"<tr{_strong(at == strong)}>"
        + "".join(f"<td{_class(column)}>{_cell(cell)}</td>" for column, cell in zip(columns, row, strict=True))
        + "</tr>"
        for at, row in enumerate(rows)
    )
    return (
        f'<div class="clv-scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _class(column: Column) -> str:
    names = [name for name, wanted in (("right", column.right), ("wide", column.wide)) if wanted]
    return f' class="{" ".join(names)}"' if names else ""


def _strong(wanted: bool) -> str:
    return ' class="strong"' if wanted else ""


def _cell(cell: Cell) -> str:
    return cell.source if isinstance(cell, Html) else escape(cell)


def badge(segment: SegmentName) -> Html:
    """A segment's name beside its colour."""
    colour = SEGMENT_COLOURS[segment]
    return Html(f'<span class="clv-badge" style="--c:{colour}">{escape(SEGMENTS[segment])}</span>')


def customer_link(customer_id: str) -> Html:
    """A link to the customer's page."""
    return Html(f'<a href="/customer?id={quote(customer_id, safe="")}" target="_self">{escape(customer_id)}</a>')


def panel(title: str, text: str, segment: SegmentName | None = None) -> str:
    """A paragraph that stands out, in a segment's colour or in none."""
    colour = SEGMENT_COLOURS[segment] if segment else MUTED
    return f'<div class="clv-panel" style="--c:{colour}"><b>{escape(title)}</b><p>{escape(text)}</p></div>'


def lead(text: str) -> str:
    """What a page is for, below its title."""
    return f'<p class="clv-lead">{escape(text)}</p>'


def quiet(text: str) -> str:
    """A remark in small print."""
    return f'<p class="clv-quiet">{escape(text)}</p>'
