"""Share of tokens that are predicted right, given all before them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from asym_lightning.core.tokens import IGNORED


class TokenAccuracy(Metric):
    """Share of labelled positions whose most likely token is the label; needs no number of classes.

    >>> accuracy = TokenAccuracy()
    >>> accuracy.update(torch.tensor([3, 4, 5]), torch.tensor([3, 9, -100]))
    >>> accuracy.compute()
    tensor(0.5000)
    """

    full_state_update = False
    num_right: Tensor
    num_tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("num_right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_tokens", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add tokens; both of one shape, labels of -100 do not count."""
        is_labelled = labels != IGNORED
        self.num_right += ((predictions == labels) & is_labelled).sum()
        self.num_tokens += is_labelled.sum()

    def compute(self) -> Tensor:
        """Return the share."""
        return self.num_right / self.num_tokens.clamp(min=1)
