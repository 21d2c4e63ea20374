"""The paper's numbers, to stand beside one's own where there are any.

They were taken from notes on the paper and not from its tables; check them against the paper before quoting them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from asym_lightning.report.runs import Run


@dataclass(frozen=True)
class Published:
    """A number of the paper.

    Args:
        value: The score, in percent.
        source: Where it is from, with metric and backbone.
    """

    value: float
    source: str


def published_score(run: Run) -> Published | None:
    """Return the published score for a run's task, score, trained factors and rank, or None."""
    record = run.record
    trained = {(True, True): "both", (True, False): "A", (False, True): "B"}.get(
        (bool(record.get("trained_A")), bool(record.get("trained_B")))
    )
    ranks = set((record.get("ranks") or {}).values())
    if trained is None or len(ranks) != 1:
        return None
    return _published().get((run.task.lower(), run.test_metric, trained, ranks.pop()))


@cache
def _published() -> dict[tuple[str, str, str, int], Published]:
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        return {
            (row["task"], row["metric"], row["trained"], int(row["rank"])): Published(
                float(row["value"]), row["source"]
            )
            for row in csv.DictReader(file)
        }
