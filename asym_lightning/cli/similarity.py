"""`asym-lightning similarity`: Figure 1 of the paper from one's own adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asym_lightning.cli.report_options import add_report_options, asked_style, write_asked_figures
from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.files import write_text

DESCRIPTION = """Compare the As and the Bs of adapters, layer by layer: 1 means one column space, "chance" what
unrelated factors would have. Pairs are kept apart by whether task and draw of the factors are the same. Takes run
directories, those of a whole sweep, and adapter directories of ours or of peft; name the task of a bare adapter as
TASK=DIR."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; it fails if there is no pair to compare."""
    parser = ToolParser("similarity", description=DESCRIPTION)
    parser.add_argument("adapters", nargs="+", metavar="[TASK=]DIR", help="adapters, runs, or directories of runs")
    parser.add_argument("--arm", help="of a sweep's runs, only those of this arm")
    parser.add_argument("--out", help="directory for similarity.html, .md and .csv; without it the table is printed")
    add_report_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    from asym_lightning.report.adapter_similarity import compare_adapters
    from asym_lightning.report.similarity import (
        similarity_csv,
        similarity_figures,
        similarity_html,
        similarity_markdown,
    )
    from asym_lightning.report.trained_adapters import find_adapters

    if options.figures and not options.out:
        parser.error("`--figures` needs `--out`, the directory that they go to")
    style = asked_style(options)
    adapters, notes = find_adapters(options.adapters, options.arm, style)
    rows, of_pairs = compare_adapters(adapters)
    notes += of_pairs
    markdown = similarity_markdown(rows, notes)
    print(markdown)
    if options.out:
        out = Path(options.out)
        write_text(out / "similarity.md", markdown)
        write_text(out / "similarity.csv", similarity_csv(rows))
        title = options.title or style.title or "Similarity of adapters"
        write_text(out / "similarity.html", similarity_html(rows, notes, title))
        print(f"page  {out / 'similarity.html'}")
        charts = [(f"similarity {one.chart.title}", one.chart) for one in similarity_figures(rows)]
        write_asked_figures(options, charts, out)
    return 0
