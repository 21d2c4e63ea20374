"""Metrics of classes that do not exclude one another; they never wait for a GPU while they count."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelExactMatch, MultilabelF1Score
from torchmetrics.functional.classification import multilabel_average_precision
from torchmetrics.utilities import dim_zero_cat


def multi_label_metrics(num_classes: int, threshold: float) -> MetricCollection:
    """Return the metrics by name; they take probabilities, and 0 or 1 of each class, which are not looked at first.

    Args:
        num_classes: Number of classes.
        threshold: Probability from which something is of a class.

    Example:
        >>> metrics = multi_label_metrics(2, threshold=0.5)
        >>> metrics(torch.tensor([[0.5, 0.2], [0.9, 0.1]]), torch.tensor([[1, 0], [0, 1]]))["micro_f1"]
        tensor(0.5000)
    """
    decided: dict[str, Any] = {"num_labels": num_classes, "threshold": threshold, "validate_args": False}
    return MetricCollection(
        {
            "macro_f1": MultiLabelF1(average="macro", **decided),
            "micro_f1": MultiLabelF1(average="micro", **decided),
            "exact_match": ExactMatchOfClasses(**decided),
            "map": MeanAveragePrecision(num_classes),
        }
    )


class _OfDecisions(Metric):
    """Decides before it counts: torchmetrics looks at all numbers first, and leaves the threshold itself out."""

    threshold: float

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count decisions."""
        super().update((preds >= self.threshold).long(), target)  # type: ignore[safe-super]  # of the class beside it


class MultiLabelF1(_OfDecisions, MultilabelF1Score):
    """F1 of what reaches the threshold."""


class ExactMatchOfClasses(_OfDecisions, MultilabelExactMatch):
    """Share of samples that reach the threshold of the right classes and of no others."""


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean over classes of average precision, which no threshold decides.

    Classes without a sample have none and are left out, with a warning that counts them; with no class left it is 0,
    for NaN would stop a run whose early stopping or checkpoints watch the metric.

    Example:
        >>> MeanAveragePrecision(2)(torch.tensor([[0.9, 0.2], [0.4, 0.8]]), torch.tensor([[1, 1], [0, 0]]))
        tensor(0.7500)
    """

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep probabilities and targets."""
        self.preds.append(preds)
        self.target.append(target)

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics' own does so too
        """Return the mean, in [0, 1]."""
        probabilities, targets = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        has_samples = targets.bool().any(dim=0)
        num_with, num_without = int(has_samples.sum()), int((~has_samples).sum())
        if not num_with:
            rank_zero_warn("the mean average precision is undefined, for nothing is of any class: reported as 0.")
            return torch.zeros((), device=has_samples.device)
        if num_without:
            rank_zero_warn(f"the mean average precision leaves out {num_without} classes of which there is no sample.")
        with_samples = probabilities[:, has_samples], targets[:, has_samples]
        return multilabel_average_precision(*with_samples, num_labels=num_with, validate_args=False)
