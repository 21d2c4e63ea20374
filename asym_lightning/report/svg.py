"""Small charts as SVG: lines, points, bars and a heat map.

Written here and not drawn by a plot library: a page holds them inline, so it is one file of some 100 kB whose text
stays text and which scales with the screen, and a report needs nothing installed. Every series has its own dash and
marker beside its colour, so that black-and-white prints can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from asym_lightning.report.chart import Axis, BarChart, Chart, HeatMap, Look, PointChart, Series

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 40
FONT = 11
CHARACTER = 6.1  # mean width of one in pixels, to lay out legends without measuring
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 2", "1 3", "12 3", "6 2 1 2 1 2")
MARKERS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>',
    lambda x, y: f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 4:.1f}l4 -7h-8z"/>',
    lambda x, y: f'<path d="M{x - 4:.1f} {y - 1.3:.1f}h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"/>',
)


def svg(chart: Chart) -> str:
    """Return a chart as SVG.

    Example:
        >>> text = svg(PointChart("loss", [Series("a", [0, 1], [1.0, 0.5])], Axis("step"), Axis("loss")))
        >>> text.startswith("<svg"), "polyline" in text
        (True, True)
    """
    if isinstance(chart, PointChart):
        return _points(chart)
    return _bars(chart) if isinstance(chart, BarChart) else _heat_map(chart)


def _bars(chart: BarChart) -> str:
    row, top = 34, TOP + 6
    height = top + row * len(chart.names) + 6
    longest = max([value for value in chart.values if math.isfinite(value)], default=0) or 1
    room = WIDTH - 2 * RIGHT - 60
    parts = []
    for i, (name, value) in enumerate(zip(chart.names, chart.values, strict=True)):
        y = top + i * row
        length = max(1.0, value / longest * room) if math.isfinite(value) else 0
        parts.append(f'<text x="{RIGHT}" y="{y + 10}">{escape(name)}</text>')
        parts.append(f'<rect x="{RIGHT}" y="{y + 14}" width="{length:.1f}" height="12" fill="{chart.colour(i)}"/>')
        parts.append(f'<text x="{RIGHT + length + 5:.1f}" y="{y + 24}">{value:.3g}</text>')
    return _svg(chart.title, height, parts)


def _heat_map(chart: HeatMap) -> str:
    rows, columns = chart.rows, chart.columns
    left = min(150, 14 + CHARACTER * max(map(len, rows)))
    cell = max(9, min(16, 200 // len(rows)))
    top, wide = TOP + 4, (WIDTH - left - RIGHT) / len(columns)
    bottom = top + cell * len(rows)
    parts = []
    every = max(1, math.ceil(10 / cell))  # leave out names where rows are lower than text
    for i, (name, row) in enumerate(zip(rows, chart.values, strict=True)):
        y = top + i * cell
        if i % every == 0:
            parts.append(f'<text x="{left - 5}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="end">{escape(name)}</text>')
        for j, value in enumerate(row):
            if math.isfinite(value):
                place = f'x="{left + j * wide:.1f}" y="{y}" width="{wide + 0.3:.1f}" height="{cell}"'
                parts.append(f'<rect {place} fill="{_shade(value / chart.largest)}"/>')
    frame = f'x="{left}" y="{top}" width="{WIDTH - left - RIGHT}" height="{cell * len(rows)}"'
    parts.append(f'<rect {frame} fill="none" class="axis"/>')
    labelled = range(len(columns)) if len(columns) <= 6 else (0, len(columns) // 2, len(columns) - 1)
    for j in labelled:
        middle = left + (j + 0.5) * wide
        anchor = "end" if j == len(columns) - 1 and j else "middle"
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{columns[j]:g}</text>')
    parts.append(f'<text x="{left}" y="{bottom + 32}">{escape(chart.x_label)}</text>')
    for k in range(20):
        place = f'x="{WIDTH - RIGHT - 140 + 5 * k}" y="{bottom + 23}" width="5.3" height="10"'
        parts.append(f'<rect {place} fill="{_shade(k / 19)}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT - 145}" y="{bottom + 32}" text-anchor="end">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT - 36}" y="{bottom + 32}">{chart.largest:.3g}</text>')
    return _svg(chart.title, bottom + 40, parts)


def _points(chart: PointChart) -> str:
    series, x, y = chart.series, chart.x, chart.y
    points = [_finite(one) for one in series]
    xs = [point[0] for one in points for point in one]
    ys = [edge for one in points for _, value, error in one for edge in (value - error, value + error)]
    ys += [level for level, _ in chart.chances]
    if not xs:
        return _svg(chart.title, 60, [f'<text x="{LEFT}" y="45">no data</text>'])
    to_x = _Scale(x, xs, LEFT, WIDTH - RIGHT)
    to_y = _Scale(y, ys, HEIGHT - BOTTOM, TOP + 6)
    parts = [_grid(to_x, to_y, x, y)]
    for level, look in chart.chances:
        path = f"M{LEFT} {to_y(level):.1f}H{WIDTH - RIGHT}"
        parts.append(f'<path d="{path}" class="chance" style="stroke:{look.colour}"/>')
    for one, look in zip(points, chart.looks, strict=True):
        parts.append(_drawn(one, to_x, to_y, look, chart.has_lines))
    legend, height = _legend(chart)
    return _svg(chart.title, HEIGHT + height, [*parts, *legend])


def _drawn(
    points: Sequence[tuple[float, float, float]], to_x: _Scale, to_y: _Scale, look: Look, has_lines: bool
) -> str:
    dash, marker = DASHES[look.number % len(DASHES)], MARKERS[look.number % len(MARKERS)]
    parts = [f'<g stroke="{look.colour}" fill="{look.colour}">']
    if has_lines:
        path = " ".join(f"{to_x(px):.1f},{to_y(py):.1f}" for px, py, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke-width="1.8" stroke-dasharray="{dash}"/>')
    for px, py, error in points:
        if error:
            ends = f"M{to_x(px):.1f} {to_y(py - error):.1f}V{to_y(py + error):.1f}"
            parts.append(f'<path d="{ends}" fill="none" stroke-width="1.2"/>')
    step = 1 if not has_lines or len(points) <= 12 else math.ceil(len(points) / 6)
    parts += [marker(to_x(px), to_y(py)) for px, py, _ in points[look.number % step :: step]]
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


def _legend(chart: PointChart) -> tuple[list[str], int]:
    names, has_chance = [one.name for one in chart.series], bool(chart.chances)
    if len(names) == 1 and not names[0] and not has_chance:
        return [], 0
    parts: list[str] = []
    x, y = float(RIGHT), HEIGHT + 8
    entries: list[tuple[Look | None, str]] = [*zip(chart.looks, names, strict=True), *([(None, "chance")] * has_chance)]
    for look, name in entries:
        width = 38 + CHARACTER * len(name)
        if x > RIGHT and x + width > WIDTH:
            x, y = float(RIGHT), y + 17
        line = f'<path d="M{x:.1f} {y}h26" class="chance"/>'
        parts.append(line if look is None else _key(x, y, look, chart.has_lines))
        parts.append(f'<text x="{x + 31:.1f}" y="{y + 4}">{escape(name)}</text>')
        x += width + 8
    return parts, y - HEIGHT + 12


def _key(x: float, y: float, look: Look, has_lines: bool) -> str:
    dash = DASHES[look.number % len(DASHES)]
    line = f'<path d="M{x:.1f} {y}h26" stroke-width="1.8" fill="none" stroke-dasharray="{dash}"/>'
    mark = MARKERS[look.number % len(MARKERS)](x + 13, y)
    return f'<g stroke="{look.colour}" fill="{look.colour}">{line if has_lines else ""}{mark}</g>'


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
