import math
import re
from xml.etree import ElementTree

import pytest

from asym_lightning.report.chart import COLOURS, LOOKS, Axis, BarChart, HeatMap, PointChart, Series
from asym_lightning.report.svg import DASHES, svg

SERIES = [Series(f"arm {i} <&>", [10, 100, 1000], [0.1 * i, 0.5, math.nan], [0.01, math.nan, 0.0]) for i in range(10)]
CHANCES = [Series("A", [1, 2], [0.3, 0.4], chance=0.1), Series("B", [1, 2], [0.5, 0.6], chance=0.2)]
ROWS = [f"layer {i}" for i in range(40)]
CHARTS = {
    name: svg(chart)
    for name, chart in {
        "lines": PointChart("a <title>", SERIES, Axis("x", is_log=True), Axis("y")),
        "chances": PointChart("chances", CHANCES, Axis("x"), Axis("y")),
        "flat": PointChart("flat", [Series("a", [1, 2], [0.5, 0.5])], Axis("x"), Axis("y")),
        "point": PointChart("one", [Series("a", [5], [3])], Axis("x", is_log=True), Axis("y"), has_lines=False),
        "nothing": PointChart("empty", [Series("a", [], [])], Axis("x"), Axis("y")),
        "bars": BarChart("bars", ["a", "b"], [1.5, math.nan]),
        "heat": HeatMap("heat", ROWS, [1, 2, 3], [[0.0, 1.0, math.nan]] * 40, "step", "norm", 1.0),
    }.items()
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_well_formed_and_have_no_stray_numbers(name):
    root = ElementTree.fromstring(CHARTS[name])
    assert root.get("aria-label")
    assert "nan" not in CHARTS[name].replace("nan\n", "").lower().split("<text")[0]
    for element in root.iter():
        for attribute in ("x", "y", "cx", "cy", "width", "height"):
            value = element.get(attribute)
            assert value is None or value == "100%" or math.isfinite(float(value))


def luminance(colour):
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_series_are_told_apart_without_colour():
    assert len(set(DASHES)) == len(DASHES) == len(COLOURS)
    assert all(luminance(colour) < 0.55 for colour in COLOURS)  # dark enough on white


def test_a_style_goes_with_its_series():
    both = svg(PointChart("t", [Series("a", [0, 1], [0, 1]), Series("b", [0, 1], [0, 1])], Axis("x"), Axis("y")))
    alone = svg(PointChart("t", [Series("b", [0, 1], [0, 1], look=LOOKS[1])], Axis("x"), Axis("y")))
    assert COLOURS[1] in both
    assert COLOURS[1] in alone
    assert COLOURS[0] not in alone


def test_each_series_has_a_chance_of_its_own_in_its_colour():
    lines = re.findall(r'd="M\d+ ([\d.]+)H\d+" class="chance" style="stroke:(#\w+)"', CHARTS["chances"])
    assert [colour for _, colour in lines] == list(COLOURS[:2])
    assert float(lines[0][0]) > float(lines[1][0])  # 0.1 lies below 0.2
    assert CHARTS["chances"].count(">chance<") == 1 and ">chance<" not in CHARTS["lines"]
