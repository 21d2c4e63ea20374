"""Charts as files for a paper: serif type, a column wide, without the title that a caption takes the place of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asym_lightning.core.files import atomic_file
from asym_lightning.report.chart import BarChart, Chart, HeatMap, Look, PointChart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.25, 2.3  # inches: a column of a paper in two columns
DASHES: tuple[Any, ...] = (
    "-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (2.4, 1.2)), (0, (0.8, 1.8)), (0, (7, 1.5)),
    (0, (4, 1.2, 0.8, 1.2, 0.8, 1.2)),
)  # fmt: skip
MARKERS = "os^DvP"
# STIX is a Times that comes with matplotlib, so that files look alike on all machines; letters stay text in a PDF.
RC: dict[Any, Any] = {
    "font.family": "STIXGeneral", "mathtext.fontset": "stix", "font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "grid.linewidth": 0.4, "pdf.fonttype": 42,
    "lines.linewidth": 1.2, "lines.markersize": 3.5, "axes.unicode_minus": True, "svg.hashsalt": "asym-lightning",
}  # fmt: skip


def write_figures(charts: Mapping[str, Chart], folder: Path, suffix: str) -> list[Path]:
    """Write each chart to a file by its name, and return them.

    Args:
        charts: By name, from which a file's name is made.
        folder: Where they go.
        suffix: `pdf`, `svg` or `png`.
    """
    paths = []
    for name, chart in charts.items():
        path = folder / f"{file_name(name)}.{suffix}"
        with atomic_file(path) as staging:
            write_chart(chart, staging, suffix)
        paths.append(path)
    return paths


def file_name(name: str) -> str:
    """A name as that of a file.

    >>> file_name("Norm of B: b_only_r8")
    'norm_of_b_b_only_r8'
    """
    return re.sub(r"[^\w]+", "_", name.lower(), flags=re.ASCII).strip("_") or "figure"


def write_chart(chart: Chart, path: Path, suffix: str) -> None:
    """Draw a chart and write it to a file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, _height(chart)), layout="constrained")
        axes = figure.subplots()
        if isinstance(chart, PointChart):
            _draw_points(chart, axes)
        elif isinstance(chart, BarChart):
            _draw_bars(chart, axes)
        else:
            _draw_heat_map(chart, axes)
        # Files of the same runs are the same to the byte.
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
        figure.savefig(path, format=suffix, dpi=300, metadata=metadata)


def _height(chart: Chart) -> float:
    if isinstance(chart, BarChart):
        return 0.5 + 0.24 * len(chart.names)
    if isinstance(chart, HeatMap):
        return 0.9 + max(0.055, min(0.13, 2.2 / len(chart.rows))) * len(chart.rows)
    return HEIGHT + 0.15 * math.ceil(len(chart.series) / 2)


def _draw_points(chart: PointChart, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for series, look in zip(chart.series, chart.looks, strict=True):
        places = [place for place, value in enumerate(series.y) if math.isfinite(value)]
        errors = [_error(series.error, place) for place in places]
        axes.errorbar(
            [series.x[place] for place in places], [series.y[place] for place in places],
            yerr=errors if any(errors) else None, color=look.colour, label=series.name, elinewidth=0.7, capsize=1.5,
            **_strokes(look, len(places), chart.has_lines),
        )  # fmt: skip
    dotted: dict[str, Any] = {"linewidth": 0.7, "linestyle": (0, (2, 2))}
    for level, look in chart.chances:
        axes.axhline(level, color=look.colour, **dotted)
    if chart.chances:
        axes.plot([], [], color="#444444", label="chance", **dotted)
    xs = [x for series in chart.series for x in series.x]
    if chart.x.is_log and xs and min(xs) > 0:
        _make_log(axes, max(xs) / min(xs))
    elif all(float(x).is_integer() for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel=chart.x.label, ylabel=chart.y.label)
    axes.set_ylim(chart.y.low, chart.y.high)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if any(labels):
        legend = axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _make_log(axes: Axes, ratio: float) -> None:
    """Make the horizontal axis logarithmic, with so many ticks that few decades have some and many have room."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 100 else (1.0,)))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(math.inf, math.inf)))
    axes.xaxis.set_minor_locator(NullLocator())


def _strokes(look: Look, num_points: int, has_lines: bool) -> dict[str, Any]:
    if not has_lines:
        return {"marker": MARKERS[look.number % len(MARKERS)], "linestyle": "none"}
    step = 1 if num_points <= 12 else math.ceil(num_points / 6)
    marked = (look.number % step, step)  # elsewhere than on other lines, which may lie below
    dash = DASHES[look.number % len(DASHES)]
    return {"marker": MARKERS[look.number % len(MARKERS)], "linestyle": dash, "markevery": marked}


def _error(errors: Sequence[float] | None, place: int) -> float:
    return errors[place] if errors is not None and math.isfinite(errors[place]) else 0.0


def _draw_bars(chart: BarChart, axes: Axes) -> None:
    places = range(len(chart.names))
    values = [value if math.isfinite(value) else 0.0 for value in chart.values]
    bars = axes.barh(places, values, height=0.6, color=[chart.colour(place) for place in places])
    axes.bar_label(bars, [f"{value:.3g}" for value in chart.values], padding=2, fontsize=7)
    axes.set_yticks(places, list(chart.names), parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(chart.title)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_heat_map(chart: HeatMap, axes: Axes) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#082654"])
    image = axes.imshow(chart.values, cmap=shades, vmin=0, vmax=chart.largest, aspect="auto", interpolation="nearest")
    every = max(1, math.ceil(len(chart.rows) / 20))
    axes.set_yticks(range(0, len(chart.rows), every), list(chart.rows)[::every], fontsize=6, parse_math=False)
    last = len(chart.columns) - 1
    labelled = sorted({0, last // 3, 2 * last // 3, last})
    axes.set_xticks(labelled, [f"{chart.columns[place]:g}" for place in labelled])
    axes.set_xlabel(chart.x_label)
    axes.figure.colorbar(image, ax=axes, aspect=30, pad=0.02, label=chart.value_label)
