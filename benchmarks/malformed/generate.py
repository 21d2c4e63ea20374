"""Cases of a strategy, the same ones for a seed."""

from __future__ import annotations

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import SearchStrategy

from benchmarks.malformed.case import Case


def generated(strategy: SearchStrategy[Case], count: int, seed: int) -> list[Case]:
    """Up to so many different cases, or fewer where there are no more."""
    found: dict[str, Case] = {}
    options = settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @hypothesis.seed(seed)
    @options
    @hypothesis.given(strategy)
    def collect(case: Case) -> None:
        found.setdefault(case.name, case)

    collect()
    return list(found.values())[:count]
