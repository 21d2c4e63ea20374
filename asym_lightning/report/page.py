"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from asym_lightning.report.adapter_charts import adapter_figures
from asym_lightning.report.chart import Chart, Figure
from asym_lightning.report.charts import column_figures, score_figure
from asym_lightning.report.document import document, figures_part, notes_part, table_part
from asym_lightning.report.formats import LEGEND, p_text, score_text
from asym_lightning.report.table import Cell, Column, ResultsTable


class Section(NamedTuple):
    """The charts of one task.

    Attributes:
        heading: The task.
        figures: Its charts.
    """

    heading: str
    figures: Sequence[Figure]


def page_sections(table: ResultsTable) -> list[Section]:
    """Return the charts of each task; of further test scores of the same runs only what differs."""
    sections = []
    drawn: set[Path] = set()
    for column in table.columns:
        of_column = {run.directory for (_, of), cell in table.cells.items() if of == column for run in cell.runs}
        if of_column <= drawn:
            sections.append(Section(table.column_name(column), [score_figure(table, column)]))
        else:
            figures = [*column_figures(table, column), *adapter_figures(table, column)]
            sections.append(Section(column[0], figures))
        drawn |= of_column
    return sections


def named_charts(sections: Sequence[Section]) -> list[tuple[str, Chart]]:
    """Return all charts by their titles, with the task before them where there are several."""
    return [
        (f"{section.heading} {figure.chart.title}" if len(sections) > 1 else figure.chart.title, figure.chart)
        for section in sections
        for figure in section.figures
    ]


def html_page(
    table: ResultsTable, sections: Sequence[Section], title: str, folder: Path, further: Sequence[str] = ()
) -> str:
    """Return the page: table, comparisons, further parts, notes, and the charts of each task.

    Args:
        table: The results.
        sections: Charts, as :func:`page_sections` returns them.
        title: Title of the page.
        folder: Where the page is going to be, from which links lead to the runs.
        further: Further parts, as HTML.
    """
    num_runs = len({run.directory for cell in table.cells.values() for run in cell.runs})
    num_tasks = len({task for task, _ in table.columns})
    summary = (
        f"{len(table.arms)} arms on {num_tasks} task{'s' if num_tasks > 1 else ''}, {num_runs} runs "
        "at the learning rates that validation data chose for each arm."
    )
    results = ["<h2>Results</h2>", _results(table, folder), f"<p><small>{escape(LEGEND)}</small></p>"]
    charts = [f"<h2>{escape(section.heading)}</h2>\n{figures_part(section.figures)}" for section in sections]
    return document(title, summary, [*results, _comparisons(table), *further, notes_part(table.notes), *charts])


def _results(table: ResultsTable, folder: Path) -> str:
    has_published = any(cell.published for cell in table.cells.values())
    header = ["arm", *(f"{task}<br><small>{metric}</small>" for task, metric in map(_escaped, table.columns))]
    header += ["trained", "rate", "runs by seed", *(["published %"] if has_published else [])]
    rows = []
    for arm in table.arms:
        cells = [cell for column in table.columns if (cell := table.cells.get((arm, column)))]
        row = [escape(arm), *(_score(table.cells.get((arm, column))) for column in table.columns)]
        for attribute, form in (("trained", "{:,}"), ("learning_rate", "{:g}")):
            row.append(" / ".join(dict.fromkeys(form.format(getattr(cell, attribute)) for cell in cells)))
        row.append(" / ".join(dict.fromkeys(_links(cell, folder) for cell in cells)))
        if has_published:
            row.append(" / ".join(f"{c.published.value:g} <small>({escape(c.published.source)})</small>"
                                  for c in cells if c.published))  # fmt: skip
        rows.append(row)
    return table_part(header, rows)


def _links(cell: Cell, folder: Path) -> str:
    """The seeds of an arm, each of which leads to its run."""
    start = folder.resolve()
    return " ".join(
        f'<a href="{escape(quote(Path(os.path.relpath(run.directory.resolve(), start)).as_posix()))}/">{run.seed}</a>'
        for run in cell.runs
    )


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "n/a"
    text = score_text(cell.score)
    return f"<b>{text}</b>" if cell.is_best else f"{text} *" if cell.is_tied else text


def _comparisons(table: ResultsTable) -> str:
    tables = [text for column in table.columns if (text := _against_best(table, column))]
    if not tables:
        return ""
    legend = "Paired over seeds, two-sided t-test. With several arms compared, some p are small by chance."
    return "\n".join(["<h2>Against the best arm</h2>", *tables, f"<p><small>{legend}</small></p>"])


def _against_best(table: ResultsTable, column: Column) -> str:
    best = table.best_arm(column)
    rows = []
    for arm in table.arms:
        if arm == best or (arm, column) not in table.cells:
            continue
        try:
            result = table.compare(arm, best, column)
        except ValueError:  # no seed in common
            continue
        p = escape(p_text(result.p_value))
        rows.append([escape(arm), score_text(result.difference), str(result.difference.count), p])
    if not rows:
        return ""
    header = [escape(table.column_name(column)), f"difference to {escape(best)}", "pairs", "p"]
    return table_part(header, rows)


def _escaped(column: Column) -> Column:
    return escape(column[0]), escape(column[1])
