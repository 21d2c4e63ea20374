"""Whether a monitored metric has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor


class StallDetector:
    """Counts how often in a row a metric was looked at without having got better.

    Args:
        monitor: Name under which the metric is logged.
        mode: `min` if less is better, `max` if more is.
        patience: Number of looks in a row without an improvement that make a stall, at least 1.
        min_delta: Smallest change that counts as an improvement.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> detector = StallDetector("val/loss", patience=2)
        >>> [detector.has_stalled({"val/loss": loss}) for loss in (3.0, 2.0, 2.5, 2.0)]
        [False, False, False, True]
    """

    def __init__(
        self, monitor: str, *, mode: Literal["min", "max"] = "min", patience: int = 3, min_delta: float = 0.0
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1, got {patience}.")
        if min_delta < 0:
            raise ValueError(f"`min_delta` must not be negative, got {min_delta}.")
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.reset()

    def reset(self) -> None:
        """Forget what was seen, as after acting on a stall."""
        self.best = math.inf
        self.num_waited = 0

    def has_stalled(self, metrics: Mapping[str, Tensor | float]) -> bool:
        """Look at the metric once more.

        Raises:
            RuntimeError: It is not among the metrics; the message lists those that are.
        """
        if self.monitor not in metrics:
            logged = ", ".join(sorted(metrics)) or "none"
            raise RuntimeError(f"`monitor` {self.monitor!r} was never logged; logged are: {logged}.")
        value = float(metrics[self.monitor]) * (1 if self.mode == "min" else -1)
        if value < self.best - self.min_delta:
            self.best, self.num_waited = value, 0
        else:
            self.num_waited += 1
        return self.num_waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What was seen."""
        return {"best": self.best, "num_waited": self.num_waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what was seen."""
        self.best, self.num_waited = state["best"], state["num_waited"]
