"""Share of generated texts that say exactly what they should."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ExactMatch(Metric):
    """Share of texts that equal their reference, spaces around them aside.

    >>> match = ExactMatch()
    >>> match.update([" Paris", "Rome."], ["Paris", "Rome"])
    >>> match.compute()
    {'exact_match': tensor(0.5000)}
    """

    full_state_update = False
    num_equal: Tensor
    num_texts: Tensor
    num_empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("num_equal", "num_texts", "num_empty"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add texts."""
        pairs = zip(predictions, references, strict=True)
        self.num_equal += sum(prediction.strip() == reference.strip() for prediction, reference in pairs)
        self.num_empty += sum(not prediction.strip() for prediction in predictions)
        self.num_texts += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """Return the share."""
        return {"exact_match": self.num_equal / self.num_texts.clamp(min=1)}
