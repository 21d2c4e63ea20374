"""Metrics of classes that never wait for a GPU while they count."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef

from asym_lightning.core.tokens import IGNORED


def f1() -> Metric:
    """Return F1 of class 1, as GLUE has it."""
    metric = BinaryF1Score()
    metric.validate_args = False  # no look at each batch's values: the loss has refused classes that there are not
    return metric


def confusion(predictions: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Count samples (classes of targets, classes of predictions) whose target is not -100.

    `torch.bincount`, which torchmetrics counts with, asks a GPU for the greatest number first.

    Example:
        >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
        tensor([[1, 1],
                [0, 1]])
    """
    is_sample = (targets != IGNORED).flatten()
    cells = (targets.flatten() * num_classes + predictions.flatten()).long().where(is_sample, 0)
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=cells.device)
    return counts.scatter_add_(0, cells, is_sample.long()).view(num_classes, num_classes)


class Accuracy(MulticlassAccuracy):
    """Share of samples that are right; torchmetrics' default is the mean over classes.

    Takes class numbers or logits (samples, classes), and class numbers, or -100 for what is no sample.

    Example:
        >>> Accuracy(3)(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, -100]))
        tensor(0.6667)
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="micro")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count samples."""
        right = ((preds.argmax(dim=1) if preds.ndim > target.ndim else preds) == target).sum()
        wrong = (target != IGNORED).sum() - right
        self.tp, self.fp, self.fn = self.tp + right, self.fp + wrong, self.fn + wrong


class MacroF1(MulticlassF1Score):
    """Mean over classes of F1; takes class numbers, or -100.

    Example:
        >>> MacroF1(2)(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
        tensor(0.6667)
    """

    tp: Tensor
    fp: Tensor
    tn: Tensor
    fn: Tensor
    num_classes: int

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="macro")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count samples."""
        counts = confusion(preds, target, self.num_classes)
        right, predicted, true = counts.diag(), counts.sum(0), counts.sum(1)
        self.tp = self.tp + right
        self.fp = self.fp + predicted - right
        self.fn = self.fn + true - right
        self.tn = self.tn + counts.sum() - predicted - true + right


class MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Matthews correlation that is 0 when all predictions, or all labels, are of one class; takes class numbers.

    The coefficient is 0 / 0 there, and scikit-learn settles it as 0. torchmetrics replaces the fraction in the binary
    case, which gives a number that depends on the shares of the classes. It matters: arms that train too little
    do predict one class on CoLA.

    Example:
        >>> metric = MatthewsCorrelation(2)
        >>> metric(torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 0]))
        tensor(0.)
    """

    confmat: Tensor
    num_classes: int

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count samples."""
        self.confmat = self.confmat + confusion(preds, target, self.num_classes)

    def compute(self) -> Tensor:
        """Return the coefficient, in [-1, 1]."""
        counts = self.confmat.float()  # labels by predictions
        is_constant = any((counts.sum(dim) > 0).sum() <= 1 for dim in (0, 1))
        return counts.new_zeros(()) if is_constant else super().compute()
