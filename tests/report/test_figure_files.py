"""Charts as files: every kind in every format, in serif type, the same to the byte when made again."""

import math

import pytest

pytest.importorskip("matplotlib")

from asym_lightning.report.chart import Axis, BarChart, HeatMap, PointChart, Series
from asym_lightning.report.figure_files import file_name, write_figures

STARTS = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}
SERIES = [Series(f"arm $_{i}<&>", [10, 100, 1000], [0.1 * i, 0.5, math.nan], [0.01, math.nan, 0.0]) for i in range(10)]
CHANCES = [Series("A", [1, 2], [0.3, 0.4], chance=0.1), Series("B", [1, 2], [0.5, 0.6])]
CHARTS = {
    "lines": PointChart("lines", SERIES, Axis("x", is_log=True), Axis("y")),
    "chances": PointChart("chances", CHANCES, Axis("x"), Axis("y")),
    "points": PointChart("points", SERIES, Axis("x"), Axis("y", low=0, high=1), has_lines=False),
    "nothing": PointChart("nothing", [Series("a", [], [])], Axis("x", is_log=True), Axis("y")),
    "bars": BarChart("bars", ["a$", "b"], [1.5, math.nan]),
    "heat": HeatMap("heat", [f"layer {i}" for i in range(40)], [1, 2], [[0.0, math.nan]] * 40, "step", "norm", 1.0),
    "one cell": HeatMap("one", ["a"], [1], [[0.5]], "step", "norm", 1.0),
}


@pytest.mark.parametrize("suffix", STARTS)
def test_every_chart_is_a_file(tmp_path, suffix, recwarn):
    paths = write_figures(CHARTS, tmp_path, suffix)
    assert [path.name for path in paths] == [f"{file_name(name)}.{suffix}" for name in CHARTS]
    assert all(path.read_bytes().startswith(STARTS[suffix]) for path in paths)
    # matplotlib 3.8 calls pyparsing by old names.
    assert not [warning for warning in recwarn if not issubclass(warning.category, DeprecationWarning)]


def test_a_pdf_has_the_type_of_papers_as_text(tmp_path):
    (path,) = write_figures({"lines": CHARTS["lines"]}, tmp_path, "pdf")
    assert b"STIXGeneral" in path.read_bytes() and b"DejaVu" not in path.read_bytes()


@pytest.mark.parametrize("suffix", STARTS)
def test_a_file_made_again_is_the_same(tmp_path, suffix):
    charts = {name: CHARTS[name] for name in ("lines", "heat")}
    first, second = (write_figures(charts, tmp_path / name, suffix) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
