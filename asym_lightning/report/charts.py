"""The charts of a comparison, drawn from its table and its runs' files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from asym_lightning.core.run_files import read_curve
from asym_lightning.report.chart import Axis, BarChart, Figure, Look, PointChart, Series
from asym_lightning.report.statistics import estimate
from asym_lightning.report.table import Cell, Column, ResultsTable


def column_figures(table: ResultsTable, column: Column) -> Iterator[Figure]:
    """Return the charts of one task."""
    cells = _cells(table, column)
    metric = next(iter(cells.values())).runs[0].metric
    looks, colours = table.looks, [table.looks[arm].colour for arm in cells]
    yield Figure(
        PointChart(
            "Learning curves", [_learning_curve(arm, cell, looks[arm]) for arm, cell in cells.items()],
            Axis("optimizer step"), Axis(f"validation {metric}"),
        ),
        "Mean over seeds at the chosen learning rate.",
    )  # fmt: skip
    if any(len(cell.rates) > 1 for cell in cells.values()):
        yield Figure(
            PointChart(
                "Choice of the learning rate", [_by_rate(arm, cell, looks[arm]) for arm, cell in cells.items()],
                Axis("learning rate", is_log=True), Axis(f"validation {metric}"),
            ),
            "Best validation score of each run, mean over seeds with its standard error. Each arm is reported at its "
            "own best rate: one rate for all would favour some.",
        )  # fmt: skip
    yield score_figure(table, column)
    yield _time(cells, colours)
    saved = [(cell.runs[0].record.get("saved_bytes") or math.nan) / 1e6 for cell in cells.values()]
    yield Figure(
        BarChart("Kept for the backward pass, MB", list(cells), saved, colours),
        "Activations of the first step, parameters left out.",
    )
    peaks = [(cell.runs[0].record.get("peak_bytes") or math.nan) / 1e6 for cell in cells.values()]
    if any(map(math.isfinite, peaks)):
        yield Figure(
            BarChart("Peak of GPU memory, MB", list(cells), peaks, colours), "Of the allocator, while fitting."
        )


def score_figure(table: ResultsTable, column: Column) -> Figure:
    """Return the chart of one column's test scores, all that differs between two test scores of the same runs."""
    series = [
        Series(arm, [cell.trained], [cell.score.mean], [cell.score.error], table.looks[arm])
        for arm, cell in _cells(table, column).items()
    ]
    x, y = Axis("trained parameters, head included", is_log=True), Axis(f"test {column[1]}")
    caption = "Mean over seeds with its standard error. Each parameter is counted once."
    return Figure(PointChart("Score against trained parameters", series, x, y, has_lines=False), caption)


def _cells(table: ResultsTable, column: Column) -> dict[str, Cell]:
    return {arm: cell for arm in table.arms if (cell := table.cells.get((arm, column)))}


def _time(cells: Mapping[str, Cell], colours: list[str]) -> Figure:
    """Return processor time where all runs were made on a processor, which others on the machine do not stretch."""
    records = [[run.record for run in cell.runs] for cell in cells.values()]
    on_processor = all(
        record.get("device") == "cpu" and "cpu_seconds" in record for of_arm in records for record in of_arm
    )
    key = "cpu_seconds" if on_processor else "seconds"
    seconds = [sum(record[key] for record in of_arm) / len(of_arm) for of_arm in records]
    title = "Processor time of fit, seconds" if on_processor else "Time of fit, seconds"
    return Figure(BarChart(title, list(cells), seconds, colours), "Mean over seeds, validation included.")


def _learning_curve(arm: str, cell: Cell, look: Look) -> Series:
    by_step: dict[float, list[float]] = {}
    for run in cell.runs:
        for step, value in read_curve(run.directory, f"val/{run.metric}"):
            by_step.setdefault(step, []).append(value)
    steps = [step for step in sorted(by_step) if len(by_step[step]) == len(cell.runs)]
    return Series(arm, steps, [estimate(by_step[step]).mean for step in steps], look=look)


def _by_rate(arm: str, cell: Cell, look: Look) -> Series:
    return Series(
        arm,
        list(cell.rates),
        [score.mean for score in cell.rates.values()],
        [score.error for score in cell.rates.values()],
        look,
    )
