"""The loss of classifiers whose classes do not exclude one another, whatever they classify."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class MultiLabelLoss:
    """The mean of the classes' binary cross-entropies, in training with weights of what is of a class.

    Args:
        positive_weights: How many times what is of a class counts, for each class; None counts it once.

    Example:
        >>> loss, logits, targets = MultiLabelLoss([3.0, 1.0]), torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> loss(logits, targets, is_training=True), loss(logits, targets, is_training=False)
        (tensor(1.3863), tensor(0.6931))
    """

    def __init__(self, positive_weights: Sequence[float] | None) -> None:
        # No buffer, which DDP would send around in each step; it goes to the logits' device once.
        self._weights = None if positive_weights is None else torch.tensor(list(positive_weights))

    def __call__(self, logits: Tensor, targets: Tensor, *, is_training: bool) -> Tensor:
        """Return the mean over logits (batch, classes) and 0 or 1 of each class (batch, classes)."""
        if self._weights is not None:
            self._weights = self._weights.to(logits)
        weights = self._weights if is_training else None
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=weights)

    def check_classes(self, num_classes: int) -> None:
        """Check that there is a weight for each class.

        Raises:
            ValueError: If there is not.
        """
        if self._weights is not None and len(self._weights) != num_classes:
            raise ValueError(f"`positive_weights` are {len(self._weights)}, but there are {num_classes} classes.")
