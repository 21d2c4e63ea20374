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
from asym_lightning.report.chart import Axis, Figure, PointChart, Series
from asym_lightning.report.document import document, figures_part, notes_part, table_part

FACTORS = ("A", "B")


def similarity_markdown(rows: Sequence[LayerSimilarity], notes: Sequence[str]) -> str:
    """Return means over layers for each kind of pairs, and the notes."""
    lines = ["| pairs | number | A | B | chance A | chance B |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [f"| {markdown_text(cells[0])} | {' | '.join(cells[1:])} |" for cells in _table_rows(rows)]
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


def similarity_figures(rows: Sequence[LayerSimilarity]) -> list[Figure]:
    """Return a chart for each kind of pairs: A and B by layer, each with its chance level."""
    figures = []
    for kind in _kinds(rows):
        series = []
        for factor in FACTORS:
            layers = [row for row in rows if row.kind == kind and row.factor == factor]
            chances = [row.chance for row in layers if not math.isnan(row.chance)]
            places, values = range(1, len(layers) + 1), [row.similarity for row in layers]
            series.append(Series(factor, places, values, chance=fmean(chances) if chances else None))
        pairs = max(row.num_pairs for row in rows if row.kind == kind)
        figures.append(
            Figure(
                PointChart(
                    str(kind), series, Axis("adapter, first layer to last"), Axis("similarity", low=0, high=1.05),
                ),
                f"Mean over {pairs} pair{'s' if pairs > 1 else ''} of adapters.",
            )
        )  # fmt: skip
    return figures


def similarity_html(
    rows: Sequence[LayerSimilarity], notes: Sequence[str], title: str = "Similarity of adapters"
) -> str:
    """Return a page with a table, and a chart for each kind of pairs."""
    summary = (
        "CCA goodness of fit of the column spaces of B and of the transposed A, mean over pairs of adapters: 1 for one "
        "space, the dotted line of a factor's colour for unrelated ones."
    )
    header = ["pairs", "number", "A", "B", "chance A", "chance B"]
    table = table_part(header, [[escape(cells[0]), *cells[1:]] for cells in _table_rows(rows)])
    return document(title, summary, [table, figures_part(similarity_figures(rows)), notes_part(notes)])


def _table_rows(rows: Sequence[LayerSimilarity]) -> list[list[str]]:
    """Kind and number of pairs, and means over layers of similarity and chance of both factors."""
    lines = []
    for kind in _kinds(rows):
        of_kind = {factor: [row for row in rows if row.kind == kind and row.factor == factor] for factor in FACTORS}
        number = max(row.num_pairs for row in rows if row.kind == kind)
        cells = [_mean([row.similarity for row in of_kind[factor]]) for factor in FACTORS]
        cells += [_mean([row.chance for row in of_kind[factor]]) for factor in FACTORS]
        lines.append([str(kind), str(number), *cells])
    return lines


def _kinds(rows: Sequence[LayerSimilarity]) -> list[PairKind]:
    return list(dict.fromkeys(row.kind for row in rows))


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{fmean(known):.3f}" if known else "unknown"
