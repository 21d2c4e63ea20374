"""Charts of what the adapters became: their spectra at the end, and norms and ranks on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from asym_lightning.adapters.files.factors import read_factors
from asym_lightning.core.norms_file import TOTAL, NormsRow, read_norms
from asym_lightning.core.run_files import ADAPTER, NORMS
from asym_lightning.core.tall_matrices import Columns, singular_values
from asym_lightning.report.chart import Axis, Figure, HeatMap, Look, PointChart, Series
from asym_lightning.report.runs import Run
from asym_lightning.report.table import Cell, Column, ResultsTable

MAX_COLUMNS = 40  # of a heat map


def adapter_figures(table: ResultsTable, column: Column) -> Iterator[Figure]:
    """Return the charts of one task's adapters; none where its runs have no adapters."""
    cells = {arm: cell for arm in table.arms if (cell := table.cells.get((arm, column)))}
    looks = table.looks
    spectra = [series for arm, cell in cells.items() if (series := _spectrum(arm, cell.runs, looks[arm])) is not None]
    if spectra:
        yield Figure(
            PointChart(
                "Spectrum of the update", spectra, Axis("singular value number"), Axis("share of the largest", low=0)
            ),
            "Singular values of B A at the end, as shares of each layer's largest, mean over layers and seeds. "
            "A flat line uses the whole rank; a steep one would do with less.",
        )  # fmt: skip
    yield from _monitor_figures(cells, looks)


def _spectrum(arm: str, runs: Sequence[Run], look: Look) -> Series | None:
    shares = []
    for run in runs:
        if not (run.directory / ADAPTER).is_dir():
            return None
        for factors in read_factors(run.directory).values():
            if factors.A is None:
                continue
            values = singular_values(Columns.of(factors.B), Columns.of(factors.A.T))
            if values[0] > 0:
                shares.append(values / values[0])
    if not shares:
        return None
    longest = max(map(len, shares))
    mean = torch.stack([torch.nn.functional.pad(one, (0, longest - len(one))) for one in shares]).mean(0)
    return Series(arm, list(range(1, longest + 1)), mean.tolist(), look=look)


def _monitor_figures(cells: Mapping[str, Cell], looks: Mapping[str, Look]) -> Iterator[Figure]:
    """Return charts from the file of `BNormMonitor`, where there is one; norms by layer are those of the first seed."""
    ranks, norms = [], {}
    for arm, cell in cells.items():
        rows = [row for row in read_norms(cell.runs[0].directory / NORMS) if row["adapter"] != TOTAL]
        if not rows:
            continue
        if cell.runs[0].record.get("trained_B"):  # a frozen B has one norm for good
            norms[arm] = rows
        by_step: dict[int, list[float]] = {}
        for row in rows:
            by_step.setdefault(row["step"], []).append(len(row["singular_values"]))
        means = [sum(of_step) / len(of_step) for of_step in by_step.values()]
        ranks.append(Series(arm, list(by_step), means, look=looks[arm]))
    largest = max((row["B_frobenius"] for rows in norms.values() for row in rows), default=0) or 1
    for arm, rows in norms.items():
        yield _norm_map(arm, rows, largest)
    if any(len(set(series.y)) > 1 for series in ranks):  # constant unless a schedule is at work
        yield Figure(
            PointChart("Rank over time", ranks, Axis("optimizer step"), Axis("mean rank", low=0)),
            "Mean over adapters, first seed.",
        )


def _norm_map(arm: str, rows: Sequence[NormsRow], largest: float) -> Figure:
    steps = sorted({row["step"] for row in rows})
    steps = steps[:: -(-len(steps) // MAX_COLUMNS)]
    norms = {(row["adapter"], row["step"]): row["B_frobenius"] for row in rows}
    layers = list(dict.fromkeys(row["adapter"] for row in rows))
    values = [[norms.get((layer, step), float("nan")) for step in steps] for layer in layers]
    return Figure(
        HeatMap(f"Norm of B: {arm}", short_names(layers), steps, values, "optimizer step", "norm of B", largest),
        "Frobenius norm of B by layer and step, first seed; all arms have one scale.",
    )


def short_names(layers: Sequence[str]) -> list[str]:
    """Return names without the words that all have, which say nothing.

    >>> short_names(["blocks.0.attn.qkv.q", "blocks.1.attn.qkv.q", "blocks.1.attn.qkv.v"])
    ['0.q', '1.q', '1.v']
    """
    split = [layer.split(".") for layer in layers]
    if len(layers) == 1 or len({len(words) for words in split}) > 1:
        return list(layers)
    telling = [i for i in range(len(split[0])) if len({words[i] for words in split}) > 1]
    return [".".join(words[i] for i in telling) for words in split]
