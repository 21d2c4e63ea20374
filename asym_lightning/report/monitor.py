"""The file that `BNormMonitor` leaves in a run's directory: a row an adapter and logged step."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

MONITOR, TOTAL = "b_norms.csv", "total"


@dataclass(frozen=True)
class MonitorRow:
    """One adapter at one step.

    Args:
        step: Optimizer step.
        layer: Layer and slice.
        rank: Active rank, the number of singular values.
        B_norm: Frobenius norm of B.
    """

    step: int
    layer: str
    rank: int
    B_norm: float


def read_monitor(directory: Path) -> list[MonitorRow]:
    """Return the rows of a run, the totals left out; none if it was not monitored."""
    path = directory / MONITOR
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            MonitorRow(int(row["step"]), row["adapter"], len(row["singular_values"].split()), float(row["B_frobenius"]))
            for row in csv.DictReader(file)
            if row["adapter"] != TOTAL
        ]
