"""`asym-lightning report`: run directories as a table and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asym_lightning.cli.report_options import add_report_options, asked_style, write_asked_figures
from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.files import write_text

if TYPE_CHECKING:
    from asym_lightning.report.table import Column, ResultsTable

DESCRIPTION = """Make a table and a page of finished runs: arms by tasks, each arm at the learning rate that validation
data chose, mean and standard error over seeds on test data. Writes report.html, table.md, table.csv and table.tex."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; without a finished run it fails and says what was found instead."""
    parser = ToolParser("report", description=DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="DIR", help="run directories, or directories that hold some")
    parser.add_argument("--out", help="directory of the report; default: the first DIR")
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME",
        help="test scores to report, such as rouge1 rouge2; default: the one that chose the checkpoint",
    )  # fmt: skip
    parser.add_argument("--compare", nargs=2, metavar=("ARM", "ARM"), help="print a paired test of two arms")
    parser.add_argument(
        "--soup", action="store_true",
        help="average the adapters of each arm's seeds, where they share A, and score the mean beside them",
    )  # fmt: skip
    add_report_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    from asym_lightning.cli.soups import scored_soups
    from asym_lightning.report.formats import csv_table, latex_table, markdown_table
    from asym_lightning.report.page import html_page, named_charts, page_sections
    from asym_lightning.report.runs import read_runs
    from asym_lightning.report.soups import html_soups, markdown_soups, soups_of
    from asym_lightning.report.table import results_table

    style = asked_style(options)
    found = read_runs(options.runs, options.metrics)
    table = results_table(found.runs, found.notes, style)
    first, second = map(style.name, options.compare or ("", ""))
    compared = [_comparison(table, first, second, column) for column in table.columns] if options.compare else []
    soups, refused = soups_of(table) if options.soup else ([], [])
    out = Path(options.out or options.runs[0])
    scored = scored_soups(soups, out)
    title = options.title or style.title or Path(options.runs[0]).resolve().name
    sections = page_sections(table)
    contents = {
        "report.html": html_page(table, sections, title, out, [html_soups(scored, refused)] if scored else []),
        "table.md": markdown_table(table),
        "table.csv": csv_table(table),
        "table.tex": latex_table(table),
        **({"soups.md": markdown_soups(scored, refused)} if scored else {}),
    }
    for name, content in contents.items():
        write_text(out / name, content)
    print("\n".join([contents["table.md"], *compared, *([contents["soups.md"]] if scored else [])]))
    print(f"page  {out / 'report.html'}")
    write_asked_figures(options, named_charts(sections), out)
    return 0


def _comparison(table: ResultsTable, first: str, second: str, column: Column) -> str:
    from asym_lightning.report.formats import p_text, score_text

    result = table.compare(first, second, column)
    p = p_text(result.p_value) or "needs two pairs"
    pairs = f"{result.difference.count} pairs, p of the paired t-test {p}"
    return f"{first} - {second} on {column[0]} ({column[1]}): {score_text(result.difference)} ({pairs})"
