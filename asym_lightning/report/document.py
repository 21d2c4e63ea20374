"""A page of HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from asym_lightning.report.chart import Figure
from asym_lightning.report.svg import svg

TEMPLATE = Path(__file__).with_name("page.html")


def document(title: str, summary: str, parts: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: Its title.
        summary: A sentence or two below it.
        parts: What follows, as HTML.
    """
    return Template(TEMPLATE.read_text()).substitute(
        title=escape(title), summary=escape(summary), body="\n".join(part for part in parts if part)
    )


def figures_part(figures: Sequence[Figure]) -> str:
    """Return figures beside each other."""
    drawn = "\n".join(
        f"<figure>{svg(one.chart)}<figcaption>{escape(one.caption)}</figcaption></figure>" for one in figures
    )
    return f'<div class="figures">\n{drawn}\n</div>'


def notes_part(notes: Sequence[str]) -> str:
    """Return what a reader has to know, as a list; nothing if there is nothing."""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2>\n<ul>\n{items}\n</ul>" if notes else ""


def table_part(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, which scrolls where it is wider than the screen; cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">\n{table}\n</div>'
