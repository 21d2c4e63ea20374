"""The results table as Markdown, csv and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from asym_lightning.core.markup import latex_text, markdown_sentence, markdown_text, one_line, spreadsheet_text
from asym_lightning.report.statistics import Estimate
from asym_lightning.report.table import Cell, ResultsTable

LEGEND = "Mean over seeds ± standard error on test data; best in bold, * within one standard error of it."


def markdown_table(table: ResultsTable) -> str:
    """Return the table, a legend and the notes as Markdown."""
    columns = (markdown_text(f"{task} ({metric})") for task, metric in table.columns)
    header = ["arm", *columns, "trained", "rate", "seeds"]
    if _has_published(table):
        header.append("published %")
    lines = [markdown_row(header), markdown_row(["---"] + ["---:"] * (len(header) - 1))]
    for arm in table.arms:
        cells = [table.cells.get((arm, column)) for column in table.columns]
        row = [markdown_text(arm), *(_marked(cell, "**{}**", "{} *") for cell in cells)]
        row += [_distinct(cells, "trained", "{:,}"), _distinct(cells, "learning_rate", "{:g}"), _seeds(cells)]
        if _has_published(table):
            row.append(_published(cells))
        lines.append(markdown_row(row))
    notes = "".join(f"- {markdown_sentence(note)}\n" for note in table.notes)
    return "\n".join(lines) + f"\n\n{LEGEND}\n" + (f"\n{notes}" if notes else "")


def csv_table(table: ResultsTable) -> str:
    """Return one line for each arm and task, with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["task", "metric", "arm", "learning_rate", "seeds", "test_mean", "test_error", "validation_mean", "trained",
         "total", "seconds", "cpu_seconds", "saved_bytes", "is_best", "is_tied", "published"]
    )  # fmt: skip
    for (arm, (task, metric)), cell in table.cells.items():
        seeds = " ".join(str(run.seed) for run in cell.runs)
        writer.writerow(
            [*map(spreadsheet_text, (task, metric, arm)), cell.learning_rate, seeds, cell.score.mean,
             _blank(cell.score.error), cell.rates[cell.learning_rate].mean, cell.trained, cell.runs[0].record["total"],
             _mean_of_record(cell, "seconds"), _mean_of_record(cell, "cpu_seconds"),
             cell.runs[0].record.get("saved_bytes"), cell.is_best, cell.is_tied,
             cell.published.value if cell.published else ""]
        )  # fmt: skip
    return out.getvalue()


def latex_table(table: ResultsTable) -> str:
    """Return a `tabular` with booktabs rules, and the notes as comments."""
    header = ["arm", *map(table.column_name, table.columns), "trained"]
    lines = [
        *(f"% {one_line(note)}" for note in table.notes),
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(map(latex_text, header)) + r" \\",
        r"\midrule",
    ]
    for arm in table.arms:
        cells = [table.cells.get((arm, column)) for column in table.columns]
        scores = (_marked(cell, r"\textbf{{{}}}", "{}$^*$").replace(" ± ", r" $\pm$ ") for cell in cells)
        row = [latex_text(arm), *scores, _distinct(cells, "trained", "{:,}")]
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {LEGEND}"]) + "\n"


def score_text(score: Estimate) -> str:
    """Return mean ± error with as many digits as the error makes sense of.

    >>> score_text(Estimate(0.84625, 0.0041, 5)), score_text(Estimate(0.8, float("nan"), 1))
    ('0.846 ± 0.004', '0.8000')
    """
    if math.isnan(score.error):
        return f"{score.mean:.4f}"
    fewest = 3 if abs(score.mean) < 2 else 1  # accuracies are compared in thousandths, percentages in tenths
    digits = fewest if score.error == 0 else min(6, max(fewest, -math.floor(math.log10(score.error))))
    return f"{score.mean:.{digits}f} ± {score.error:.{digits}f}"


def markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a table in Markdown.

    >>> markdown_row(["arm", "score"])
    '| arm | score |'
    """
    return f"| {' | '.join(cells)} |"


def p_text(p_value: float) -> str:
    """Return a p-value with three decimals; nothing where there is none.

    >>> p_text(0.0312), p_text(0.00004), p_text(float("nan"))
    ('0.031', '< 0.001', '')
    """
    if math.isnan(p_value):
        return ""
    return f"{p_value:.3f}" if p_value >= 0.0005 else "< 0.001"


def _marked(cell: Cell | None, best: str, tied: str) -> str:
    if cell is None:
        return "n/a"
    text = score_text(cell.score)
    return best.format(text) if cell.is_best else tied.format(text) if cell.is_tied else text


def _distinct(cells: list[Cell | None], attribute: str, form: str) -> str:
    values = dict.fromkeys(getattr(cell, attribute) for cell in cells if cell)
    return " / ".join(form.format(value) for value in values)


def _seeds(cells: list[Cell | None]) -> str:
    return " / ".join(dict.fromkeys(str(cell.score.count) for cell in cells if cell))


def _published(cells: list[Cell | None]) -> str:
    return " / ".join(f"{cell.published.value:g}" for cell in cells if cell and cell.published)


def _mean_of_record(cell: Cell, name: str) -> str:
    values = [run.record.get(name) for run in cell.runs]
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if len(known) == len(values) else ""


def _has_published(table: ResultsTable) -> bool:
    return any(cell.published for cell in table.cells.values())


def _blank(value: float) -> float | str:
    return "" if math.isnan(value) else value
