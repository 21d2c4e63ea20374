"""Figure 1 of the paper: how alike the As and the Bs of several adapters are, layer by layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from asym_lightning.adapters.files.factors import Factors
from asym_lightning.analysis.similarity import cca_similarity, chance_similarity, column_basis


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter with what is known of how it came about.

    Args:
        name: What messages call it, usually its directory.
        task: What it was trained for.
        arm: How it was trained; only adapters of one arm are compared.
        init_seed: Seed of its factors' draw; None if it is not known.
        factors: Factors by layer and slice.
    """

    name: str
    task: str
    arm: str
    init_seed: int | None
    factors: Mapping[str, Factors]


@dataclass(frozen=True)
class PairKind:
    """What two adapters have in common.

    Args:
        arm: Arm of both.
        same_task: Whether they were trained for one task.
        same_init: Whether their factors were drawn with one seed; None if that is not known.
    """

    arm: str
    same_task: bool
    same_init: bool | None

    def __str__(self) -> str:
        task = "same task" if self.same_task else "different tasks"
        init = {True: "same init", False: "different init", None: "unknown init"}[self.same_init]
        return f"{self.arm}: {task}, {init}"


@dataclass(frozen=True)
class LayerSimilarity:
    """Similarity of one factor in one layer, mean over the pairs of a kind.

    Args:
        kind: What the pairs have in common.
        layer: Layer and slice.
        factor: "A" or "B".
        similarity: Mean `cca_similarity`; NaN if no pair has one.
        chance: What unrelated factors would have.
        num_pairs: Number of pairs.
    """

    kind: PairKind
    layer: str
    factor: str
    similarity: float
    chance: float
    num_pairs: int


def compare_adapters(adapters: Sequence[TrainedAdapter]) -> tuple[list[LayerSimilarity], list[str]]:
    """Compare every pair of adapters of one arm, and average over pairs that have the same in common.

    Returns:
        A row for each kind of pairs, layer and factor, and notes on what could not be compared.

    Raises:
        ValueError: If there is no pair to compare; the message says why.
    """
    notes: list[str] = []
    values: dict[tuple[PairKind, str, str], list[tuple[float, float]]] = {}
    for first, second in itertools.combinations(adapters, 2):
        if first.arm != second.arm:
            continue
        if reason := _why_incomparable(first, second):
            notes.append(f"`{first.name}` and `{second.name}` are left out: {reason}.")
            continue
        kind = _kind(first, second)
        for layer, factors in first.factors.items():
            for factor, pair in _pair(factors, second.factors[layer]).items():
                values.setdefault((kind, layer, factor), []).append(pair)
    if not values:
        why = " ".join(notes) or "it takes two adapters of one arm."
        raise ValueError(f"there is no pair of adapters to compare: {why}")
    arms = list(dict.fromkeys(adapter.arm for adapter in adapters))
    if len(arms) > 1:
        notes.append(f"adapters of different arms were not compared with each other: {', '.join(arms)}.")
    rows = []
    for (kind, layer, factor), pairs in values.items():
        known = [pair for pair in pairs if not math.isnan(pair[0])]
        if len(known) < len(pairs):
            notes.append(
                f"{kind}: {factor} of {layer} is zero or left out of the file in {len(pairs) - len(known)} of "
                f"{len(pairs)} pairs."
            )
        similarity, chance = (fmean(column) for column in zip(*known, strict=True)) if known else (math.nan, math.nan)
        rows.append(LayerSimilarity(kind, layer, factor, similarity, chance, len(known)))
    return rows, notes


def _pair(first: Factors, second: Factors) -> dict[str, tuple[float, float]]:
    """Similarity and chance level of both factors."""
    pairs = {"B": (cca_similarity(first.B, second.B), chance_similarity(*_ranks_and_dim(first.B, second.B)))}
    if first.A is not None and second.A is not None:
        A, other = first.A.T, second.A.T
        pairs["A"] = (cca_similarity(A, other), chance_similarity(*_ranks_and_dim(A, other)))
    elif first.checksum is not None and first.checksum == second.checksum:
        pairs["A"] = (1.0, math.nan)  # left out of both files, but the same
    else:
        pairs["A"] = (math.nan, math.nan)
    return pairs


def _ranks_and_dim(first: Tensor, second: Tensor) -> tuple[int, int, int]:
    return column_basis(first).shape[1], len(first), column_basis(second).shape[1]


def _kind(first: TrainedAdapter, second: TrainedAdapter) -> PairKind:
    is_known = first.init_seed is not None and second.init_seed is not None
    return PairKind(first.arm, first.task == second.task, first.init_seed == second.init_seed if is_known else None)


def _why_incomparable(first: TrainedAdapter, second: TrainedAdapter) -> str | None:
    only = sorted(first.factors.keys() ^ second.factors.keys())
    if only:
        return f"only one of them adapts {only[0]}, so they are adapters of different backbones or targets"
    for layer, factors in first.factors.items():
        other = second.factors[layer]
        for name, one, two in (("B", factors.B, other.B), ("A", factors.A, other.A)):
            if one is None or two is None:
                continue
            dims = (len(one), len(two)) if name == "B" else (one.shape[1], two.shape[1])
            if dims[0] != dims[1]:
                return f"{name} of {layer} has dimensions {dims[0]} and {dims[1]}, so their backbones differ"
    return None
