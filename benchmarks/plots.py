"""How time and bytes grow along each axis, beside those of a perfect program where its arithmetic was counted."""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Row, group_rows, ratio_to

# The field of a cell that each axis varies: more layers are adapted where there are more targets.
AXES = {
    "rank": "rank", "depth": "depth", "width": "width", "length": "length", "batch": "batch", "layers": "targets",
    "processes": "processes",
}  # fmt: skip
FEWEST_TARGETS = 3  # for a line: two are what most suites have
Arms = dict[str, Row]


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        label: What it is, and its unit.
        value: Of a row, among the arms of its cell; ``None`` where it was not measured.
        perfect: The same of a perfect program, drawn as dots.
        is_log: Logarithmic, so that growth by a power is a line.
    """

    label: str
    value: Callable[[Row, Arms], float | None]
    perfect: Callable[[Row], float | None] = lambda row: None
    is_log: bool = False


def _over_floor(row: Row, arms: Arms) -> float | None:
    ratio = ratio_to(row, arms)
    return ratio.median if ratio else None


def _over_perfect(row: Row, arms: Arms) -> float | None:
    return statistics.median(row.step_seconds) / row.perfect_seconds if row.perfect_seconds else None


OVER_FLOOR = Panel("step time / floor", _over_floor)
SAVED = Panel(
    "saved for backward, MB", lambda row, _: (row.saved_bytes or 0) / 1e6, lambda row: (row.needed_bytes or 0) / 1e6
)
GROWTH = (
    Panel(
        "step, ms; dots: arithmetic alone",
        lambda row, _: 1000 * statistics.median(row.step_seconds),
        lambda row: 1000 * (row.perfect_seconds or 0),
        is_log=True,
    ),
    Panel("step time / arithmetic alone", _over_perfect),
    OVER_FLOOR,
    dataclasses.replace(SAVED, label="saved for backward, MB; dots: needed", is_log=True),
)


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


def _series(rows: Sequence[Row], axis: str) -> Iterator[tuple[str, list[Arms]]]:
    """Cells that differ in ``axis`` alone, under a title that says what they have in common."""
    blank = None if axis == "width" else "" if axis == "layers" else 0
    families: dict[tuple[Any, ...], list[Arms]] = {}
    for arms in group_rows(rows):
        cell, *rest = next(iter(arms.values())).group
        # Its own value, so that only this axis is blanked out.
        families.setdefault((dataclasses.replace(cell, **{AXES[axis]: blank}), *rest), []).append(arms)
    for (cell, device, precision, _), groups in families.items():
        is_suite_of_two = axis == "layers" and len(groups) < FEWEST_TARGETS
        if is_suite_of_two or not all(_at(arms, axis) for arms in groups):
            continue
        size = f"width {cell.width}, " if cell.width else ""
        targets = f"{cell.targets}, " if cell.targets else ""
        fixed = {"depth": cell.depth, "batch": cell.batch, "length": cell.length, "rank": cell.rank}
        words = ", ".join(f"{name} {value}" for name, value in fixed.items() if name != axis)
        title = f"{cell.model}, {size}{targets}{cell.mode}, {device} {precision}\n{words}"
        yield title, sorted(groups, key=lambda arms: _at(arms, axis))


def _at(arms: Arms, axis: str) -> int:
    """Where a cell is on an axis; 0 where it doesn't say."""
    return getattr(next(iter(arms.values())), axis) or 0


def _draw(lines: dict[str, list[Arms]], axis: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    has_arithmetic = all(row.flops for groups in lines.values() for arms in groups for row in arms.values())
    panels = GROWTH if has_arithmetic else (OVER_FLOOR, SAVED)
    height = len(lines) * len(panels) // 2
    figure = Figure(figsize=(11, 3.8 * height), layout="constrained")
    FigureCanvasAgg(figure)
    places = iter(figure.subplots(height, 2, squeeze=False).flat)
    for title, groups in lines.items():
        for panel in panels:
            place = next(places)
            _draw_panel(place, panel, groups, axis, has_log_axis=has_arithmetic or axis in ("rank", "length"))
            place.set_title(title, fontsize=9)
        place.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    with Image.open(path) as image:  # a palette takes a third of the bytes
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_panel(place: Any, panel: Panel, groups: Sequence[Arms], axis: str, *, has_log_axis: bool) -> None:
    from matplotlib.ticker import LogLocator

    for name in dict.fromkeys(name for arms in groups for name in arms):
        ran = [(arms[name], arms) for arms in groups if name in arms and arms[name].step_seconds]
        points = [(getattr(row, axis), y) for row, arms in ran if (y := panel.value(row, arms)) is not None]
        if not points:
            continue
        style = "-" if name.startswith("ours") else "--"
        (line,) = place.plot(*zip(*points, strict=True), label=name, marker="o", markersize=3, linestyle=style)
        perfect = [(getattr(row, axis), y) for row, _ in ran if (y := panel.perfect(row))]
        if perfect:
            place.plot(*zip(*perfect, strict=True), color=line.get_color(), linestyle=":")
    place.set(xlabel=axis, ylabel=panel.label)
    place.grid(alpha=0.3)
    if has_log_axis:
        place.set_xscale("log", base=2)
        at = sorted({_at(arms, axis) for arms in groups})
        place.set_xticks(at, [f"{x:,}" for x in at])
    if panel.is_log:
        place.set_yscale("log")
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter("{x:g}")
        place.yaxis.set_minor_formatter("")
    elif panel.label == SAVED.label:
        place.set_ylim(0, None)
