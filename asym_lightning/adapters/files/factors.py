"""The factors of an adapter directory, of ours or of `peft`, without the model that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from asym_lightning.adapters.files.directory import SavedAdapter, read_adapter


@dataclass(frozen=True)
class Factors:
    """The factors of one layer, or of one slice of a fused layer.

    Args:
        A: (rank, d_in); None where a compact directory left it out.
        B: (d_out, rank).
        checksum: Of the A that was left out: equal where A is equal.
    """

    A: Tensor | None
    B: Tensor
    checksum: float | None = None


def read_factors(directory: Path | str) -> dict[str, Factors]:
    """Return the factors by layer, and by layer and slice where several slices of one layer have adapters.

    Args:
        directory: As :func:`read_adapter` takes it.

    Raises:
        FileNotFoundError: If there is no adapter.
        ValueError: If a file is damaged or holds what is no low-rank adapter.
    """
    return factors_by_slice(read_adapter(directory))


def factors_by_slice(saved: SavedAdapter) -> dict[str, Factors]:
    """Take the factors of fused layers apart.

    Their slices are stored as one block-diagonal B. The rows of a slice's B are those in which it is not zero. A
    directory that `peft` wrote has one pair of factors a layer.

    Args:
        saved: What was read.
    """
    factors: dict[str, Factors] = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in saved.factors):
        A, B = saved.factors.get(f"{name}.lora_A"), saved.factors[f"{name}.lora_B"]
        factors |= _by_slice(name, A if A is None else A.flatten(1), B.flatten(1), saved)
    return factors


def _by_slice(name: str, A: Tensor | None, B: Tensor, saved: SavedAdapter) -> dict[str, Factors]:
    if saved.is_compact:  # a key a slice, with A where it is trained
        return {name.removesuffix(".all"): Factors(A, B, saved.checksums.get(name))}
    ranks = {key: rank for key, rank in saved.ranks.items() if key.rpartition(".")[0] == name}
    if A is not None and saved.scaling is not None and ranks:  # padded to the largest rank of all layers
        shares_a = saved.config is not None and saved.config["share_a"]
        width = next(iter(ranks.values())) if shares_a else sum(ranks.values())
        A, B = A[:width], B[:, :width]
    if A is None or sum(ranks.values()) != B.shape[1] or len(ranks) < 2:
        return {name.removesuffix(".all"): Factors(A, B)}
    sizes = list(ranks.values())
    blocks = zip(ranks, A.split(sizes), B.split(sizes, dim=1), strict=True)
    return {key: Factors(of_A, of_B[of_B.any(dim=1)] if of_B.any() else of_B) for key, of_A, of_B in blocks}
