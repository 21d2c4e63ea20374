"""A comparison of adapters as Markdown, csv and a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from statistics import fmean

from asym_lightning.core.markup import markdown_sentence, markdown_text, spreadsheet_text
from asym_lightning.report.adapter_similarity import LayerSimilarity, PairKind
from asym_lightning.report.svg import Axis, Series, line_chart

FACTORS = ("A", "B")


def similarity_markdown(rows: Sequence[LayerSimilarity], notes: Sequence[str]) -> str:
    """Return means over layers for each kind of pairs, and the notes."""
    lines = ["| pairs | number | A | B | chance A | chance B |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for kind in _kinds(rows):
        of_kind = {factor: [row for row in rows if row.kind == kind and row.factor == factor] for factor in FACTORS}
        number = max(row.num_pairs for row in rows if row.kind == kind)
        cells = [_mean([row.similarity for row in of_kind[factor]]) for factor in FACTORS]
        cells += [_mean([row.chance for row in of_kind[factor]]) for factor in FACTORS]
        lines.append(f"| {markdown_text(kind)} | {number} | {' | '.join(cells)} |")
    legend = "CCA goodness of fit, mean over layers and pairs: 1 for one column space, chance for unrelated ones."
    return "\n".join(lines) + f"\n\n{legend}\n" + "".join(f"\n- {markdown_sentence(note)}" for note in notes)


def similarity_csv(rows: Sequence[LayerSimilarity]) -> str:
    """Return a line for each kind of pairs, layer and factor."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "same_task", "same_init", "layer", "factor", "similarity", "chance", "pairs"])
    for row in rows:
        kind = row.kind
        writer.writerow(
            [spreadsheet_text(kind.arm), kind.same_task, kind.same_init, spreadsheet_text(row.layer), row.factor,
             f"{row.similarity:.6f}", f"{row.chance:.6f}", row.num_pairs]
        )  # fmt: skip
    return out.getvalue()


def similarity_charts(rows: Sequence[LayerSimilarity]) -> list[str]:
    """Return one panel as SVG for each kind of pairs: A and B by layer, with the chance level."""
    charts = []
    for kind in _kinds(rows):
        series = []
        for factor in FACTORS:
            values = [row.similarity for row in rows if row.kind == kind and row.factor == factor]
            series.append(Series(factor, range(1, len(values) + 1), values))
        chances = [row.chance for row in rows if row.kind == kind and not math.isnan(row.chance)]
        charts.append(
            line_chart(
                str(kind), series, Axis("adapter, first layer to last"), Axis("similarity", low=0, high=1.05),
                chance=fmean(chances) if chances else None,
            )
        )  # fmt: skip
    return charts


def similarity_html(rows: Sequence[LayerSimilarity], notes: Sequence[str]) -> str:
    """Return a page with a panel for each kind of pairs."""
    figures = "\n".join(f"<figure>{chart}</figure>" for chart in similarity_charts(rows))
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Similarity of adapters</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.2rem; }}
figure {{ margin: 0; border: 1px solid #ddd; padding: .5rem; }} svg {{ display: block; width: 100%; height: auto; }}
</style></head><body><h1>Similarity of adapters</h1>
<p>CCA goodness of fit of the column spaces of B and of the transposed A, mean over pairs of adapters: 1 for one space,
the dotted line for unrelated ones.</p><main>{figures}</main><ul>{listed}</ul></body></html>
"""


def _kinds(rows: Sequence[LayerSimilarity]) -> list[PairKind]:
    return list(dict.fromkeys(row.kind for row in rows))


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{fmean(known):.3f}" if known else "unknown"
