"""The loss of classifiers, whatever they classify."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class ClassLoss:
    """Cross-entropy, in training with weights of the classes and smoothed labels.

    Args:
        class_weights: Weight of each class; None weighs all alike.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1].

    Example:
        >>> loss, logits, labels = ClassLoss([1.0, 3.0]), torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
        >>> loss(logits, labels, is_training=True), loss(logits, labels, is_training=False)
        (tensor(0.2685), tensor(0.4100))
    """

    def __init__(self, class_weights: Sequence[float] | None, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        # No buffer, which DDP would send around in each step; it goes to the logits' device once.
        self._weights = None if class_weights is None else torch.tensor(list(class_weights))

    def __call__(self, logits: Tensor, labels: Tensor, *, is_training: bool) -> Tensor:
        """Return the mean over logits (batch, classes) and class numbers (batch,)."""
        if not is_training:
            return F.cross_entropy(logits, labels)
        if self._weights is not None:
            self._weights = self._weights.to(logits)
        return F.cross_entropy(logits, labels, self._weights, label_smoothing=self.label_smoothing)

    def check_classes(self, num_classes: int) -> None:
        """Check that there is a weight for each class.

        Raises:
            ValueError: If there is not.
        """
        if self._weights is not None and len(self._weights) != num_classes:
            raise ValueError(f"`class_weights` are {len(self._weights)}, but there are {num_classes} classes.")
