"""How often a text finds the one that belongs to it among all of a set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

ROWS = 1024
"""Texts that are compared with all others at one time."""


def recalls(numbers: Sequence[int]) -> MetricCollection:
    """Return `recall_at_1` and so on.

    >>> list(recalls([1, 5]))
    ['recall_at_1', 'recall_at_5']
    """
    return MetricCollection({f"recall_at_{k}": RetrievalRecall(k) for k in numbers})


class RetrievalRecall(Metric):
    """Share of texts whose own positive is among the k that are closest, of all positives and negatives of the set.

    It is torchmetrics' `RetrievalRecall` of one relevant text a query, without the matrix of all pairs that this takes.
    Of texts that are equally close half are taken to come first.

    Args:
        k: How many are looked at.

    Example:
        >>> recall = RetrievalRecall(1)
        >>> texts = torch.tensor([[[1.0, 0.0], [0.9, 0.1]], [[0.0, 1.0], [0.5, 0.5]], [[0.0, 1.0], [0.1, 0.9]]])
        >>> recall.update(texts, torch.zeros(3))
        >>> recall.compute()
        tensor(0.6667)
    """

    full_state_update = False
    embeddings: list[Tensor]

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("embeddings", [], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, targets: Tensor) -> None:
        """Add texts with their positives, and with negatives where there are some (texts, 2 or more, width)."""
        self.embeddings.append(F.normalize(embeddings.float(), dim=-1))

    def compute(self) -> Tensor:
        """Return the share; it warns where it is 1 for any embeddings."""
        queries, *others = dim_zero_cat(self.embeddings).unbind(dim=1)
        candidates = torch.cat(others)
        if len(candidates) <= self.k:
            rank_zero_warn(f"all of the {len(candidates)} texts are among the {self.k} that are closest: recall is 1.")
        ranks = []
        for rows in torch.arange(len(queries), device=queries.device).split(ROWS):
            cosines = queries[rows] @ candidates.T
            own = cosines.gather(1, rows[:, None])
            ranks.append((cosines > own).sum(dim=1) + ((cosines == own).sum(dim=1) - 1) / 2)
        return (torch.cat(ranks) < self.k).float().mean()
