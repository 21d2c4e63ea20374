"""Generalization bounds of adapters from the numbers that they train: Lemma 4.5."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from asym_lightning.core.messages import check_choice

Trained = Literal["A", "B", "both"]


@dataclass(frozen=True)
class AdapterShape:
    """Shape of one adapter: A is (rank, d_in), B is (d_out, rank).

    Args:
        name: Layer and slice, such as `blocks.0.attn.qkv.q`.
        d_out: Rows of the adapted weight, or of the slice of a fused one.
        d_in: Columns of it.
        rank: Rank.
        owns_A: False for a slice that reads the A of another slice, which is counted there.
    """

    name: str
    d_out: int
    d_in: int
    rank: int
    owns_A: bool = True

    def num_trained(self, trained: Trained) -> int:
        """Return how many numbers train, with `trained` one of "A", "B" and "both"."""
        of_A = self.rank * self.d_in if self.owns_A else 0
        of_B = self.rank * self.d_out
        return {"A": of_A, "B": of_B, "both": of_A + of_B}[trained]


def generalization_bound(
    layers: Iterable[AdapterShape],
    num_samples: int,
    trained: Trained = "B",
    *,
    bits: float = 32,
    sigma: float = 1.0,
) -> float:
    """Bound the expected gap between training and test loss by the information that the trained numbers can hold.

    With the rank r and D = d_out (B trained), d_in (A trained) or d_in + d_out (both) of each layer it is

        sqrt(2 sigma^2 q ln(2) / n * sum over layers of r D)

    The bound is loose, often above the largest loss there is. What it tells is the *ratio* of the arms: for
    square layers B-only may have twice the rank of both at an equal bound. Layers that are not square, as grouped-query
    k and v, shift it, which is why each counts with its true shape.

    Args:
        layers: The adapters.
        num_samples: Number n of independent training samples.
        trained: Which factors train: "B", "A" or "both".
        bits: Bits q that each trained number holds once training is done: 32 for float32, 16 for bfloat16.
        sigma: The loss is sub-Gaussian with this sigma; a loss in [a, b] is with (b - a) / 2.

    Raises:
        ValueError: If there are no layers, a number is not positive, or `trained` is none of the three.

    Example:
        >>> square = [AdapterShape("q", d_out=1024, d_in=1024, rank=8)]
        >>> round(generalization_bound(square, num_samples=100_000, bits=16), 3)
        1.348
        >>> both = generalization_bound(square, num_samples=100_000, trained="both", bits=16)
        >>> round(both / generalization_bound(square, num_samples=100_000, bits=16), 4)  # the square root of 2
        1.4142

    Source: Zhu et al. 2024, Lemma 4.5, with Xu and Raginsky 2017 for the step from information to the gap. The
    lemma has one rank; here each layer has its own.
    """
    layers = list(layers)
    if not layers:
        raise ValueError("there are no adapters to bound.")
    check_choice("trained", trained, get_args(Trained))
    for name, value in (("num_samples", num_samples), ("bits", bits), ("sigma", sigma)):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, not {value}.")
    num_trained = sum(layer.num_trained(trained) for layer in layers)
    return sigma * math.sqrt(2 * bits * math.log(2) * num_trained / num_samples)


def affordable_rank(layers: Sequence[AdapterShape], trained: Trained = "B", than: Trained = "both") -> float:
    """Return the factor by which an arm's ranks may be multiplied until its bound reaches another arm's.

    The bound grows with the square root of rank, whatever samples, bits and sigma are, so they do not matter here.

    Args:
        layers: The adapters.
        trained: The arm whose rank is raised.
        than: The arm whose bound it may reach at the ranks of `layers`.

    Example:
        >>> affordable_rank([AdapterShape("q", 1024, 1024, rank=8)])
        2.0
        >>> grouped_query = [AdapterShape("q", 4096, 4096, 8), AdapterShape("v", 1024, 4096, 8)]
        >>> affordable_rank(grouped_query)
        2.6
    """
    return sum(layer.num_trained(than) for layer in layers) / sum(layer.num_trained(trained) for layer in layers)
