"""What figures around the step are meant to be, and why one is not where it isn't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.command_start import COMMANDS, FIT_LIMIT, FIT_STEP, FLOOR_START
from benchmarks.targets import Verdict


@dataclass(frozen=True)
class FigureTarget:
    """The most that a figure may be.

    Attributes:
        name: Of the figure.
        limit: The most, in the figure's unit, or as a ratio.
        over: Figure that it is divided by; None where it stands for itself.
        reason: Why it is missed where it is.
    """

    name: str
    limit: float
    over: str | None = None
    reason: str = ""


TARGETS = (
    *(FigureTarget(f"`{name}`, s", limit) for name, (_, limit) in COMMANDS.items()),
    FigureTarget(FIT_STEP, FIT_LIMIT, FLOOR_START),
    # As fast as torchvision's own, within what runs differ by.
    FigureTarget("training images, s", 1.05, "training images by torchvision, s"),
    FigureTarget("validation images, s", 1.05, "validation images by torchvision, s"),
    # Memory that does not grow with the rows.
    FigureTarget("10,000,000 rows: written, MB of memory", 1.1, "1,000,000 rows: written, MB of memory"),
    FigureTarget(
        "10,000,000 rows: read, MB of memory",
        1.1,
        "1,000,000 rows: read, MB of memory",
        "rows are read where they lie, and their order and lengths take 4 bytes a row each",
    ),
    FigureTarget("10,000,000 rows: read, MB of memory", 0.15, "10,000,000 rows: the file, MB"),
    FigureTarget("AdamW, fused, ms a step", 0.5, "AdamW, loop, ms a step"),
    FigureTarget("a run, a log every step, ms a step", 1.05, "a run, without a log, ms a step"),
    FigureTarget(
        "a run, a log and norms every step, ms a step",
        1.1,
        "a run, without a log, ms a step",
        "36 spectra a step beside as few as 8 small images; `BNormMonitor` looks every 50 steps unless it is told to",
    ),
    FigureTarget("a checkpoint, ms", 1.0, "a run, without a log, ms a step"),
)


def check_figures(figures: Mapping[str, float]) -> Iterator[Verdict]:
    """Every target that the figures have something to say about, in their order."""
    for target in TARGETS:
        if target.name in figures and (target.over is None or target.over in figures):
            over = 1.0 if target.over is None else figures[target.over]
            what = target.name if target.over is None else f"{target.name} / {target.over}"
            yield Verdict(what, figures[target.name] / over, target.limit, reason=target.reason)
