"""How time and saved bytes grow with rank, depth, length and batch."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Row, group_rows, ratio_to

AXES = ("rank", "depth", "length", "batch")


def write_plots(rows: Sequence[Row], stem: Path) -> list[Path]:
    """One file for every axis along which at least two cells were run, all else being equal.

    Args:
        rows: The results.
        stem: Path without suffix; ``-rank.png`` and so on are added.

    Returns:
        The files written; none where matplotlib is not installed or nothing varies.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    written = []
    for axis in AXES:
        lines = {title: groups for title, groups in _series(rows, axis) if len(groups) > 1}
        if lines:
            path = stem.with_name(f"{stem.name}-{axis}.png")
            _draw(lines, axis, path)
            written.append(path)
    return written


def _series(rows: Sequence[Row], axis: str) -> Iterator[tuple[str, list[dict[str, Row]]]]:
    """Cells that differ in ``axis`` alone, under a title that says what they have in common."""
    families: dict[tuple[Any, ...], list[dict[str, Row]]] = {}
    for arms in group_rows(rows):
        cell, *rest = next(iter(arms.values())).group
        # Its own value, so that only this axis is blanked out.
        families.setdefault((dataclasses.replace(cell, **{axis: 0}), *rest), []).append(arms)
    for (cell, device, precision, _), groups in families.items():
        size = f"width {cell.width}, " if cell.width else ""
        fixed = {"depth": cell.depth, "batch": cell.batch, "length": cell.length, "rank": cell.rank}
        words = ", ".join(f"{name} {value}" for name, value in fixed.items() if name != axis)
        title = f"{cell.model}, {size}{cell.targets}, {cell.mode}, {device} {precision}\n{words}"
        yield title, sorted(groups, key=lambda arms: getattr(next(iter(arms.values())), axis))


def _draw(lines: dict[str, list[dict[str, Row]]], axis: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(lines), 2, squeeze=False)
    for (time, saved), (title, groups) in zip(panels, lines.items(), strict=True):
        for name in dict.fromkeys(name for arms in groups for name in arms):
            ran = [(arms[name], arms) for arms in groups if name in arms and arms[name].step_seconds]
            if not ran:
                continue
            x = [getattr(row, axis) for row, _ in ran]
            style = {"marker": "o", "markersize": 3, "linestyle": "-" if name.startswith("ours") else "--"}
            ratios = [
                (x_, ratio.median) for x_, (row, arms) in zip(x, ran, strict=True) if (ratio := ratio_to(row, arms))
            ]
            time.plot(*zip(*ratios, strict=True), label=name, **style)
            saved.plot(x, [(row.saved_bytes or 0) / 1e6 for row, _ in ran], label=name, **style)
        time.set(title=title, ylabel="step time / floor")
        saved.set(title=title, ylabel="saved for backward, MB", ylim=(0, None))
        for panel in (time, saved):
            panel.title.set_fontsize(9)
            panel.set_xlabel(axis)
            panel.grid(alpha=0.3)
            if axis in ("rank", "length"):
                panel.set_xscale("log", base=2)
        saved.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=90, metadata={"Software": None})
