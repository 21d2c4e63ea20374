"""The bounds of all three arms of an adapter, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from asym_lightning.adapters import LowRankAdapter
from asym_lightning.adapters.files.factors import Factors
from asym_lightning.analysis.bounds import AdapterShape, Trained, affordable_rank, generalization_bound

ARMS: tuple[Trained, ...] = ("B", "A", "both")


def shapes_of_model(adapters: Mapping[str, LowRankAdapter]) -> list[AdapterShape]:
    """Return the shapes of a model's adapters; an A that slices share counts once."""
    shapes: list[AdapterShape] = []
    seen: set[int] = set()
    for name, adapter in adapters.items():
        owns_A = id(adapter.factor_A) not in seen
        seen.add(id(adapter.factor_A))
        shapes.append(AdapterShape(name.removesuffix(".all"), adapter.d_out, adapter.d_in, adapter.rank, owns_A))
    return shapes


def shapes_of_factors(factors: Mapping[str, Factors]) -> list[AdapterShape]:
    """Return the shapes of a directory's adapters.

    Raises:
        ValueError: If the directory leaves out A, so that d_in is not known.
    """
    for name, of_layer in factors.items():
        if of_layer.A is None:
            raise ValueError(f"the adapter leaves out A of {name}, so its d_in is not known: use `--config` instead.")
    return [
        AdapterShape(name, d_out=len(one.B), d_in=one.A.shape[1], rank=one.B.shape[1])
        for name, one in factors.items()
        if one.A is not None
    ]


def bounds_text(shapes: Sequence[AdapterShape], num_samples: int, bits: float, sigma: float) -> str:
    """Return a table of the layers, the bound of each arm, their ratio and the rank that B-only may afford."""
    lines = [
        "| layer | d_out x d_in | rank | B trains | A trains | both train |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shape in shapes:
        numbers = " | ".join(f"{shape.num_trained(arm):,}" for arm in ARMS)
        lines.append(f"| {shape.name} | {shape.d_out} x {shape.d_in} | {shape.rank} | {numbers} |")
    totals = {arm: sum(shape.num_trained(arm) for shape in shapes) for arm in ARMS}
    lines.append(f"| total | | | {' | '.join(f'{total:,}' for total in totals.values())} |")
    bounds = {arm: generalization_bound(shapes, num_samples, arm, bits=bits, sigma=sigma) for arm in ARMS}
    lines.append(f"| bound | | | {' | '.join(f'{bound:.4g}' for bound in bounds.values())} |")
    factor = affordable_rank(shapes)
    ranks = sorted({shape.rank for shape in shapes})
    afforded = ", ".join(f"{rank} -> {math.floor(rank * factor + 1e-9)}" for rank in ranks)
    too_large = [shape for shape in shapes if shape.rank * factor > min(shape.d_out, shape.d_in)]
    text = "\n".join(lines) + (
        f"\n\nBound on |test loss - training loss| for {num_samples:,} samples, {bits:g} bits a number and a loss that "
        f"is {sigma:g}-sub-Gaussian.\n"
        f"ratio          {bounds['both'] / bounds['B']:.4f} (both trained over B trained), "
        f"{bounds['A'] / bounds['B']:.4f} (A trained over B trained)\n"
        f"equal bound    B-only may have {factor:.3g} times the rank of both trained: {afforded}\n"
    )
    if too_large:
        text += f"note           {too_large[0].name} allows at most rank {min(too_large[0].d_out, too_large[0].d_in)}\n"
    return text
