"""Options of the tools that make pages with charts: how these look, and whether they are files as well."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.extras import check_installed

if TYPE_CHECKING:
    from asym_lightning.report.chart import Chart
    from asym_lightning.report.style import ReportStyle

FORMATS = ("pdf", "svg", "png")
FIGURES = "figures"  # folder beside the page


def add_report_options(parser: ToolParser) -> None:
    """Add them to a tool."""
    parser.add_argument("--title", help="title of the page; default: the style's, or one that says what it is of")
    parser.add_argument(
        "--style", metavar="FILE", help="YAML file with `title`, and with `name` and `colour` of `arms`, in their order"
    )
    parser.add_argument("--figures", choices=FORMATS, help="write each chart to a file, too, in the type of papers")


def asked_style(options: Namespace) -> ReportStyle:
    """Read the style, and check that figures can be drawn before anything is computed.

    Raises:
        ModuleNotFoundError: Figures are asked for and matplotlib is not installed.
        ValueError: The file is no style.
    """
    from asym_lightning.report.style import ReportStyle, read_style

    if options.figures:
        check_installed("matplotlib", "--figures")
    return read_style(options.style) if options.style else ReportStyle()


def write_asked_figures(options: Namespace, charts: Sequence[tuple[str, Chart]], out: Path) -> None:
    """Write charts by name to a folder of their own, and say where; without `--figures` none is wanted."""
    if not options.figures:
        return
    from asym_lightning.report.figure_files import write_figures

    write_figures(dict(charts), out / FIGURES, options.figures)
    print(f"figures  {out / FIGURES}")
