"""All that can be done with some adapters, by the names of options."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.adapters.arithmetic.join import concatenation, projection
from asym_lightning.adapters.arithmetic.linear import checked_weights, mean, weighted_sum, weights_of_mean
from asym_lightning.adapters.arithmetic.space import check_one_space
from asym_lightning.adapters.arithmetic.sparsify import dropped, sign_election, trimmed
from asym_lightning.adapters.files.directory import SavedAdapter
from asym_lightning.core.messages import check_choice

METHODS = ("mean", "sum", "ties")
JOINS = ("concatenate", "project")
_KEPT_BY_TIES = 0.2


def combined(
    adapters: Sequence[SavedAdapter],
    method: str = "mean",
    *,
    weights: Sequence[float] | None = None,
    keep: float | None = None,
    drop: float = 0.0,
    seed: int = 0,
    join: str | None = None,
    rank: int | None = None,
    heads_of: int | None = None,
) -> SavedAdapter:
    """Combine adapters as options say.

    Args:
        adapters: What was read.
        method: ``mean``, ``sum``, or ``ties``, by which each entry has the sign that an election gives it.
        weights: One each; ``None`` means equal ones.
        keep: Share of the largest entries of each adapter that stay; ``None`` means 0.2 for ``ties`` and else all.
        drop: Probability with which an entry is dropped, the others being scaled up (DARE).
        seed: Seed of these drops; each adapter has its own.
        join: What to do where A's or ranks differ: ``concatenate`` or ``project``; ``None`` refuses that.
        rank: Rank to project to; ``None`` means the first adapter's.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages them.

    Raises:
        ValueError: Options don't go together, or adapters differ in what must be the same; the message says in what.
    """
    check_choice("method", method, METHODS)
    if join is None:
        if rank is not None:
            raise ValueError("`rank` is what is projected to: it goes with `join: project`.")
        check_one_space(adapters)
        if keep is not None or method == "ties":
            adapters = [trimmed(adapter, _KEPT_BY_TIES if keep is None else keep) for adapter in adapters]
        if drop:
            adapters = [dropped(adapter, drop, seed=seed + number) for number, adapter in enumerate(adapters)]
        function = {"mean": mean, "sum": weighted_sum, "ties": sign_election}[method]
        return function(adapters, weights, heads_of=heads_of)
    check_choice("join", join, JOINS)
    if method == "ties" or keep is not None or drop:
        raise ValueError(
            "Trimming, dropping and election compare entries of B, which need one A: they go without `join`."
        )
    weights = weights_of_mean(adapters, weights) if method == "mean" else checked_weights(adapters, weights)
    if join == "concatenate":
        if rank is not None:
            raise ValueError("`rank` goes with `join: project`; concatenation has the sum of all ranks.")
        return concatenation(adapters, weights, heads_of=heads_of)
    return projection(adapters, rank, weights, heads_of=heads_of)
