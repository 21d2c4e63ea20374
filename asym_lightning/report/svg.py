"""Small charts as SVG: lines, points, bars and a heat map.

Written here and not drawn by a plot library: a page holds them inline, so it is one file of some 100 kB whose text
stays text and which scales with the screen, and a report needs nothing installed. Every series has its own dash and
marker beside its colour, so that black-and-white prints can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 40
FONT = 11
CHARACTER = 6.1  # mean width of one in pixels, to lay out legends without measuring
# Dark to light, told apart by the colour-blind, and by lightness when printed in grey.
COLOURS = ("#0b3866", "#c2410c", "#15803d", "#7c3aed", "#b07d00", "#0e7490", "#be185d", "#57534e")
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 2", "1 3", "12 3", "6 2 1 2 1 2")
MARKERS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>',
    lambda x, y: f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 4:.1f}l4 -7h-8z"/>',
    lambda x, y: f'<path d="M{x - 4:.1f} {y - 1.3:.1f}h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"/>',
)


@dataclass(frozen=True)
class Series:
    """Named points.

    Args:
        name: What the legend calls it.
        x: Positions.
        y: Values; those that are not finite are left out.
        error: Half the height of an error bar at each point; None for none.
        style: Number of its colour, dash and marker, so that one thing looks alike in all charts; None means its place.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    style: int | None = None


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        label: What it shows, with the unit.
        is_log: Logarithmic.
        low: Least value shown; None takes it from the data.
        high: Largest value shown; None takes it from the data.
    """

    label: str
    is_log: bool = False
    low: float | None = None
    high: float | None = None


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, *, chance: float | None = None) -> str:
    """Return lines, with markers where there are few points.

    Args:
        title: Title above the chart.
        series: The lines.
        x: Horizontal axis.
        y: Vertical axis.
        chance: A level to draw across, named "chance".

    Example:
        >>> svg = line_chart("loss", [Series("a", [0, 1], [1.0, 0.5])], Axis("step"), Axis("loss"))
        >>> svg.startswith("<svg"), "polyline" in svg
        (True, True)
    """
    return _chart(title, series, x, y, has_lines=True, chance=chance)


def scatter_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Return points with error bars."""
    return _chart(title, series, x, y, has_lines=False)


def bar_chart(title: str, names: Sequence[str], values: Sequence[float], form: str = "{:.3g}") -> str:
    """Return horizontal bars from zero, each with its name above and its value at its end."""
    row, top = 34, TOP + 6
    height = top + row * len(names) + 6
    longest = max([value for value in values if math.isfinite(value)], default=0) or 1
    room = WIDTH - 2 * RIGHT - 60
    parts = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = top + i * row
        length = max(1.0, value / longest * room) if math.isfinite(value) else 0
        parts.append(f'<text x="{RIGHT}" y="{y + 10}">{escape(name)}</text>')
        parts.append(f'<rect x="{RIGHT}" y="{y + 14}" width="{length:.1f}" height="12" fill="{COLOURS[0]}"/>')
        parts.append(f'<text x="{RIGHT + length + 5:.1f}" y="{y + 24}">{escape(form.format(value))}</text>')
    return _svg(title, height, parts)


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[float], values: Sequence[Sequence[float]], x_label: str
) -> str:
    """Return a grid of cells, white at 0 and dark at the largest value, with the scale below.

    Args:
        title: Title above the chart.
        rows: Names, top to bottom.
        columns: Positions, left to right.
        values: One row of values a name.
        x_label: What the columns are.
    """
    left = min(150, 14 + CHARACTER * max(map(len, rows)))
    cell = max(9, min(16, 200 // len(rows)))
    top, wide = TOP + 4, (WIDTH - left - RIGHT) / len(columns)
    bottom = top + cell * len(rows)
    largest = max((value for row in values for value in row if math.isfinite(value)), default=0) or 1
    parts = []
    every = max(1, math.ceil(10 / cell))  # leave out names where rows are lower than text
    for i, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + i * cell
        if i % every == 0:
            parts.append(f'<text x="{left - 5}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="end">{escape(name)}</text>')
        for j, value in enumerate(row):
            if math.isfinite(value):
                place = f'x="{left + j * wide:.1f}" y="{y}" width="{wide + 0.3:.1f}" height="{cell}"'
                parts.append(f'<rect {place} fill="{_shade(value / largest)}"/>')
    frame = f'x="{left}" y="{top}" width="{WIDTH - left - RIGHT}" height="{cell * len(rows)}"'
    parts.append(f'<rect {frame} fill="none" class="axis"/>')
    labelled = range(len(columns)) if len(columns) <= 6 else (0, len(columns) // 2, len(columns) - 1)
    for j in labelled:
        middle = left + (j + 0.5) * wide
        anchor = "end" if j == len(columns) - 1 and j else "middle"
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{columns[j]:g}</text>')
    parts.append(f'<text x="{left}" y="{bottom + 32}">{escape(x_label)}</text>')
    for k in range(20):
        place = f'x="{WIDTH - RIGHT - 140 + 5 * k}" y="{bottom + 23}" width="5.3" height="10"'
        parts.append(f'<rect {place} fill="{_shade(k / 19)}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT - 145}" y="{bottom + 32}" text-anchor="end">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT - 36}" y="{bottom + 32}">{largest:.3g}</text>')
    return _svg(title, bottom + 40, parts)


def _chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, has_lines: bool, chance: float | None = None
) -> str:
    points = [_finite(one) for one in series]
    xs = [point[0] for one in points for point in one]
    ys = [edge for one in points for _, value, error in one for edge in (value - error, value + error)]
    if chance is not None:
        ys.append(chance)
    if not xs:
        return _svg(title, 60, [f'<text x="{LEFT}" y="45">no data</text>'])
    to_x = _Scale(x, xs, LEFT, WIDTH - RIGHT)
    to_y = _Scale(y, ys, HEIGHT - BOTTOM, TOP + 6)
    parts = [_grid(to_x, to_y, x, y)]
    if chance is not None:
        at = to_y(chance)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" class="chance"/>')
    styles = [i if one.style is None else one.style for i, one in enumerate(series)]
    for one, style in zip(points, styles, strict=True):
        parts.append(_drawn(one, to_x, to_y, style, has_lines))
    legend, height = _legend([one.name for one in series], styles, has_lines, has_chance=chance is not None)
    return _svg(title, HEIGHT + height, [*parts, *legend])


def _drawn(points: Sequence[tuple[float, float, float]], to_x: _Scale, to_y: _Scale, i: int, has_lines: bool) -> str:
    colour, dash, marker = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
    parts = [f'<g stroke="{colour}" fill="{colour}">']
    if has_lines:
        path = " ".join(f"{to_x(px):.1f},{to_y(py):.1f}" for px, py, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke-width="1.8" stroke-dasharray="{dash}"/>')
    for px, py, error in points:
        if error:
            ends = f"M{to_x(px):.1f} {to_y(py - error):.1f}V{to_y(py + error):.1f}"
            parts.append(f'<path d="{ends}" fill="none" stroke-width="1.2"/>')
    step = 1 if not has_lines or len(points) <= 12 else math.ceil(len(points) / 6)
    parts += [marker(to_x(px), to_y(py)) for px, py, _ in points[i % step :: step]]
    return "".join([*parts, "</g>"])


def _grid(to_x: _Scale, to_y: _Scale, x: Axis, y: Axis) -> str:
    low = HEIGHT - BOTTOM
    parts = []
    for tick in to_y.ticks():
        at = to_y(tick)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in to_x.ticks():
        at = to_x(tick)
        parts.append(f'<path d="M{at:.1f} {low}v4" class="axis"/>')
        anchor = "end" if at > WIDTH - RIGHT - 8 else "middle"
        parts.append(f'<text x="{at:.1f}" y="{low + 16}" text-anchor="{anchor}">{_number(tick)}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{low}H{WIDTH - RIGHT}" class="axis" fill="none"/>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{low + 32}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text transform="translate(11 {(TOP + low) / 2}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _legend(names: Sequence[str], styles: Sequence[int], has_lines: bool, *, has_chance: bool) -> tuple[list[str], int]:
    if len(names) == 1 and not names[0] and not has_chance:
        return [], 0
    parts: list[str] = []
    x, y = float(RIGHT), HEIGHT + 8
    entries: list[tuple[int | None, str]] = [*zip(styles, names, strict=True), *([(None, "chance")] * has_chance)]
    for i, name in entries:
        width = 38 + CHARACTER * len(name)
        if x > RIGHT and x + width > WIDTH:
            x, y = float(RIGHT), y + 17
        parts.append(f'<path d="M{x:.1f} {y}h26" class="chance"/>' if i is None else _key(x, y, i, has_lines))
        parts.append(f'<text x="{x + 31:.1f}" y="{y + 4}">{escape(name)}</text>')
        x += width + 8
    return parts, y - HEIGHT + 12


def _key(x: float, y: float, i: int, has_lines: bool) -> str:
    colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
    line = f'<path d="M{x:.1f} {y}h26" stroke-width="1.8" fill="none" stroke-dasharray="{dash}"/>'
    mark = MARKERS[i % len(MARKERS)](x + 13, y)
    return f'<g stroke="{colour}" fill="{colour}">{line if has_lines else ""}{mark}</g>'


class _Scale:
    """Maps values of an axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self.is_log = axis.is_log and min(values) > 0
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        low, high = self._transformed(low), self._transformed(high)
        margin = 0.04 * (high - low) or 0.5 * (1 if self.is_log else abs(high) or 1)
        self.low = low - (margin if axis.low is None else 0)
        self.high = high + (margin if axis.high is None else 0)
        self.start, self.end = start, end

    def _transformed(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def __call__(self, value: float) -> float:
        share = (self._transformed(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.is_log and len(ticks := _log_ticks(self.low, self.high)) > 1:
            return ticks
        low, high = (10**self.low, 10**self.high) if self.is_log else (self.low, self.high)
        step = _nice_step((high - low) / 4)
        return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _nice_step(rough: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten.

    >>> _nice_step(0.13), _nice_step(37)
    (0.2, 50.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 6)] if ticks else []


def _number(value: float) -> str:
    """Write a tick's value shortly.

    >>> [_number(value) for value in (0, 0.30000000000000004, 2500, 3e6, 1e-5)]
    ['0', '0.3', '2,500', '3M', '1e-05']
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.6g}k"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _shade(share: float) -> str:
    """Return a colour from white to dark blue, ever darker, so that it reads in grey too."""
    share = max(0.0, min(1.0, share))
    return "#" + "".join(f"{round(255 + (dark - 255) * share):02x}" for dark in (8, 38, 84))


def _finite(series: Series) -> list[tuple[float, float, float]]:
    errors = series.error or [0.0] * len(series.y)
    return [
        (x, y, error if math.isfinite(error) else 0.0)
        for x, y, error in zip(series.x, series.y, errors, strict=True)
        if math.isfinite(y)
    ]


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    style = (
        f"text{{font:{FONT}px system-ui,sans-serif;fill:#222}}.title{{font-weight:600;font-size:13px}}"
        ".axis{stroke:#444}.grid{stroke:#ddd}.chance{stroke:#444;stroke-dasharray:3 3;fill:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{RIGHT}" y="16" class="title">{escape(title)}</text>{"".join(parts)}</svg>'
    )
