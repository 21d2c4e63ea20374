"""Soups: of each arm on each task the mean of its runs' adapters, which is exact where they share A."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from asym_lightning.adapters.arithmetic.linear import mean
from asym_lightning.adapters.files.directory import SavedAdapter, read_adapter
from asym_lightning.core.markup import markdown_sentence, markdown_text
from asym_lightning.core.run_files import ADAPTER
from asym_lightning.report.document import table_part
from asym_lightning.report.formats import markdown_row, score_text
from asym_lightning.report.runs import Run
from asym_lightning.report.statistics import Estimate, estimate
from asym_lightning.report.table import Cell, ResultsTable

HEADER = ["arm", "task (metric)", "seeds", "validation", "of the soup", "test", "of the soup"]
LEGEND = "A soup is the mean of the adapters of an arm's seeds; before its scores stand its members' means."


@dataclass(frozen=True)
class Soup:
    """The mean of the adapters of an arm on a task, at the rate that was chosen.

    Args:
        arm: Name of the arm.
        cells: What its members came to, once for each test score.
        adapter: The mean.
    """

    arm: str
    cells: Sequence[Cell]
    adapter: SavedAdapter

    @property
    def runs(self) -> Sequence[Run]:
        """Its members."""
        return self.cells[0].runs

    @property
    def name(self) -> str:
        """Task and arm."""
        return f"{self.runs[0].task} {self.arm}"


ScoredSoup = tuple[Soup, Mapping[str, float]]
"""A soup and its metrics, by the names that they are logged under."""


def soups_of(table: ResultsTable) -> tuple[list[Soup], list[str]]:
    """Return the soups of a table's runs, and why there is none of some arms; nothing is written.

    Raises:
        ValueError: If there is none at all.
    """
    members: dict[tuple[str, tuple[Path, ...]], list[Cell]] = {}
    for (arm, _), cell in table.cells.items():
        members.setdefault((arm, tuple(run.directory for run in cell.runs)), []).append(cell)
    soups, refused = [], []
    for (arm, directories), cells in members.items():
        try:
            adapters = [read_adapter(directory / ADAPTER) for directory in directories]
            soups.append(Soup(arm, cells, mean(adapters)))
        except (FileNotFoundError, ValueError) as error:
            refused.append(f"no soup of arm {arm} on {cells[0].runs[0].task}: {error}")
    if not soups:
        raise ValueError(refused[0])
    return soups, refused


def markdown_soups(scored: Sequence[ScoredSoup], refused: Sequence[str]) -> str:
    """Return soups beside their members, and what was refused, as Markdown."""
    lines = [HEADER, ["---", "---", *["---:"] * (len(HEADER) - 2)]]
    lines += [list(map(markdown_text, row)) for row in _rows(scored)]
    notes = "".join(f"- {markdown_sentence(sentence)}\n" for sentence in refused)
    return "\n".join(map(markdown_row, lines)) + f"\n\n{LEGEND}\n" + (f"\n{notes}" if notes else "")


def html_soups(scored: Sequence[ScoredSoup], refused: Sequence[str]) -> str:
    """Return the same as a part of the page."""
    rows = [list(map(escape, row)) for row in _rows(scored)]
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in refused)
    legend = f"<p><small>{LEGEND}</small></p>"
    return "\n".join(["<h2>Soups</h2>", table_part(HEADER, rows), legend, f"<ul>{notes}</ul>" if notes else ""])


def _rows(scored: Sequence[ScoredSoup]) -> Iterator[list[str]]:
    for soup, metrics in scored:
        for cell in soup.cells:
            run = cell.runs[0]
            yield [
                soup.arm,
                f"{run.task} ({run.test_metric})",
                " ".join(str(run.seed) for run in cell.runs),
                score_text(estimate([run.validation for run in cell.runs])),
                _alone(metrics[f"val/{run.metric}"]),
                score_text(cell.score),
                _alone(metrics[f"test/{run.test_metric}"]),
            ]


def _alone(score: float) -> str:
    return score_text(Estimate(score, math.nan, 1))
