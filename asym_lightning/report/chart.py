"""Charts as what they show, whatever draws them: a page, or a file for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Dark to light, told apart by the colour-blind, and by lightness when printed in grey.
COLOURS = ("#0b3866", "#c2410c", "#15803d", "#7c3aed", "#b07d00", "#0e7490", "#be185d", "#57534e")


class Look(NamedTuple):
    """How a series is told from others.

    Attributes:
        colour: As `#rrggbb`.
        number: Of its dash and its marker, by which black-and-white prints can be read.
    """

    colour: str
    number: int


LOOKS = tuple(Look(colour, number) for number, colour in enumerate(COLOURS))


@dataclass(frozen=True)
class Series:
    """Named points.

    Args:
        name: What the legend calls it.
        x: Positions.
        y: Values; those that are not finite are left out.
        error: Half the height of an error bar at each point; None for none.
        look: How it looks, so that one thing looks alike in all charts; None goes by its place.
        chance: The value that chance gives, a dotted line across in its colour; None for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    look: Look | None = None
    chance: float | None = None


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


@dataclass(frozen=True)
class PointChart:
    """Lines, with markers where there are few points, or points alone; both may have error bars.

    Args:
        title: Title above the chart.
        series: The lines.
        x: Horizontal axis.
        y: Vertical axis.
        has_lines: Whether points are joined.
    """

    title: str
    series: Sequence[Series]
    x: Axis
    y: Axis
    has_lines: bool = True

    @property
    def looks(self) -> list[Look]:
        """How each series looks."""
        return [one.look or LOOKS[place % len(LOOKS)] for place, one in enumerate(self.series)]

    @property
    def chances(self) -> list[tuple[float, Look]]:
        """What chance gives for each series where that is known, and how the series looks."""
        looks = zip(self.series, self.looks, strict=True)
        return [(one.chance, look) for one, look in looks if one.chance is not None]


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars from zero, each with its name and its value.

    Args:
        title: Title above the chart.
        names: Names, top to bottom.
        values: One a name; those that are not finite have no bar.
        colours: One a name; None gives all the same.
    """

    title: str
    names: Sequence[str]
    values: Sequence[float]
    colours: Sequence[str] | None = None

    def colour(self, place: int) -> str:
        """Colour of a bar."""
        return COLOURS[0] if self.colours is None else self.colours[place]


@dataclass(frozen=True)
class HeatMap:
    """A grid of cells, white at 0 and dark at the largest value, with the scale below.

    Args:
        title: Title above the chart.
        rows: Names, top to bottom.
        columns: Positions, left to right.
        values: One row of values a name.
        x_label: What the columns are.
        value_label: What the values are.
        largest: Value at the end of the scale, one for all maps that stand side by side.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[float]
    values: Sequence[Sequence[float]]
    x_label: str
    value_label: str
    largest: float


Chart = PointChart | BarChart | HeatMap


@dataclass(frozen=True)
class Figure:
    """A chart with what there is to know about it.

    Args:
        chart: The chart.
        caption: One or two sentences.
    """

    chart: Chart
    caption: str
