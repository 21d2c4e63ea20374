"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from asym_lightning.report.adapter_charts import adapter_figures
from asym_lightning.report.charts import column_figures, figures_html, score_figure
from asym_lightning.report.formats import LEGEND, p_text, score_text
from asym_lightning.report.table import Cell, Column, ResultsTable

TEMPLATE = Path(__file__).with_name("page.html")


def html_page(table: ResultsTable, title: str) -> str:
    """Return the page: table, comparisons, notes, and the charts of each task.

    Args:
        table: The results.
        title: Title of the page.
    """
    num_runs = len({run.directory for cell in table.cells.values() for run in cell.runs})
    num_tasks = len({task for task, _ in table.columns})
    summary = (
        f"{len(table.arms)} arms on {num_tasks} task{'s' if num_tasks > 1 else ''}, {num_runs} runs "
        "at the learning rates that validation data chose for each arm."
    )
    sections = []
    drawn: set[Path] = set()
    for column in table.columns:
        of_column = {run.directory for (_, of), cell in table.cells.items() if of == column for run in cell.runs}
        if of_column <= drawn:  # another test score of the same runs
            heading, figures = table.column_name(column), [score_figure(table, column)]
        else:
            heading, figures = column[0], [*column_figures(table, column), *adapter_figures(table, column)]
        drawn |= of_column
        sections.append(f'<h2>{escape(heading)}</h2>\n<div class="figures">\n{figures_html(figures)}\n</div>')
    return Template(TEMPLATE.read_text()).substitute(
        title=escape(title),
        summary=summary,
        table=_results(table),
        legend=escape(LEGEND),
        comparisons=_comparisons(table),
        notes=_notes(table),
        sections="\n".join(sections),
    )


def _results(table: ResultsTable) -> str:
    has_published = any(cell.published for cell in table.cells.values())
    header = ["arm", *(f"{task}<br><small>{metric}</small>" for task, metric in map(_escaped, table.columns))]
    header += ["trained", "rate", "seeds", *(["published %"] if has_published else [])]
    rows = []
    for arm in table.arms:
        cells = [cell for column in table.columns if (cell := table.cells.get((arm, column)))]
        row = [escape(arm), *(_score(table.cells.get((arm, column))) for column in table.columns)]
        for attribute, form in (("trained", "{:,}"), ("learning_rate", "{:g}")):
            row.append(" / ".join(dict.fromkeys(form.format(getattr(cell, attribute)) for cell in cells)))
        row.append(" / ".join(dict.fromkeys(str(cell.score.count) for cell in cells)))
        if has_published:
            row.append(" / ".join(f"{c.published.value:g} <small>({escape(c.published.source)})</small>"
                                  for c in cells if c.published))  # fmt: skip
        rows.append(row)
    return _table(header, rows)


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
    return f'<div class="scroll">\n{_table(header, rows)}\n</div>'


def _notes(table: ResultsTable) -> str:
    if not table.notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f"<h2>Notes</h2>\n<ul>\n{items}\n</ul>"


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _escaped(column: Column) -> Column:
    return escape(column[0]), escape(column[1])
