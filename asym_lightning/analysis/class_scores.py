"""Scores of a classifier by class, and how far its probabilities can be trusted: what is measured, and as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)
from torchmetrics.utilities import dim_zero_cat

from asym_lightning.core.markup import spreadsheet_text
from asym_lightning.core.private_names import calibration_bins

MOST_CONFUSED = 1000  # classes; a confusion matrix of more takes too much memory, and nobody reads it
TOP_5_FROM = 11  # classes; of fewer, five are half
Values = Mapping[str, Tensor]


def class_metrics(num_classes: int) -> MetricCollection:
    """Return what is measured of a classifier; it takes probabilities (batch, classes) and class numbers (batch,).

    | name                         | what it is                                                                    |
    |------------------------------|-------------------------------------------------------------------------------|
    | `precision`, `recall`, `f1`  | of each class; 0 where nothing can be said                                    |
    | `counts`                     | of each class: true and false positives, true and false negatives, samples    |
    | `macro_f1`                   | mean of F1 over the classes that there are samples or predictions of          |
    | `calibration_error`          | mean distance of confidence and accuracy in 15 bins of confidence (ECE)       |
    | `reliability`                | accuracy, mean confidence and share of the samples (3, bins) in those bins    |
    | `confusion`                  | number of samples by class and predicted class; up to 1,000 classes           |
    | `confusion_shares`           | the same as shares of each class                                              |
    | `top5_accuracy`              | share of the samples whose class is among the likeliest five; from 11 classes |

    Example:
        >>> import torch
        >>> metrics = class_metrics(2)
        >>> values = metrics(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), torch.tensor([0, 1, 0]))
        >>> values["recall"], values["confusion"]
        (tensor([0.5000, 1.0000]), tensor([[1, 1],
                [0, 1]]))
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "precision": MulticlassPrecision(num_classes, average=None),
        "recall": MulticlassRecall(num_classes, average=None),
        "f1": MulticlassF1Score(num_classes, average=None),
        "counts": MulticlassStatScores(num_classes, average=None),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        "calibration_error": MulticlassCalibrationError(num_classes),
        "reliability": ReliabilityBins(num_classes),
    }
    if num_classes <= MOST_CONFUSED:
        metrics["confusion"] = MulticlassConfusionMatrix(num_classes)
        metrics["confusion_shares"] = MulticlassConfusionMatrix(num_classes, normalize="true")
    if num_classes >= TOP_5_FROM:
        metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
    return MetricCollection(metrics)


class ReliabilityBins(MulticlassCalibrationError):  # noqa: N818  # an error of a model, not an exception
    """The bins that the calibration error is computed from.

    Example:
        >>> import torch
        >>> bins = ReliabilityBins(2, n_bins=2)
        >>> accuracy, confidence, share = bins(torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([0, 1]))
        >>> accuracy, confidence, share
        (tensor([0.0000, 0.5000, 0.0000]), tensor([0.0000, 0.7000, 0.0000]), tensor([0., 1., 0.]))
    """

    plot_upper_bound = 1.0

    def compute(self) -> Tensor:
        """Return accuracy, mean confidence and share of the samples (3, bins + 1); the last bin is confidence 1."""
        return calibration_bins(dim_zero_cat(self.confidences), dim_zero_cat(self.accuracies), self.n_bins)


def is_scalar(name: str) -> bool:
    """Whether a name of :func:`class_metrics` is that of one number, which loggers draw and callbacks watch."""
    return name in ("macro_f1", "calibration_error", "top5_accuracy")


def scores_csv(values: Values, names: Sequence[str]) -> str:
    """Return precision, recall, F1, number of samples and of predictions of each class, a line a class.

    >>> import torch
    >>> metrics = class_metrics(2)
    >>> values = metrics(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), torch.tensor([0, 1, 0]))
    >>> print(scores_csv(values, ["cat", "dog"]), end="")
    class,precision,recall,f1,samples,predicted
    cat,1.000000,0.500000,0.666667,2,1
    dog,0.500000,1.000000,0.666667,1,2
    """
    rows = []
    for number, name in enumerate(names):
        true_positives, false_positives, _, _, samples = values["counts"][number].tolist()
        scores = [f"{float(values[score][number]):.6f}" for score in ("precision", "recall", "f1")]
        rows.append([spreadsheet_text(name), *scores, samples, true_positives + false_positives])
    return _csv(["class", "precision", "recall", "f1", "samples", "predicted"], rows)


def confusion_csv(values: Values, names: Sequence[str]) -> str:
    """Return the number of samples, a line a class and a column a predicted class."""
    shown = list(map(spreadsheet_text, names))
    rows = [[name, *row] for name, row in zip(shown, values["confusion"].tolist(), strict=True)]
    return _csv(["class", *shown], rows)


def reliability_csv(values: Values) -> str:
    """Return mean confidence, accuracy and share of the samples, a line a bin that has some."""
    rows = [
        [f"{number:.6f}" for number in (confidence, accuracy, share)]
        for accuracy, confidence, share in values["reliability"].T.tolist()
        if share > 0
    ]
    return _csv(["confidence", "accuracy", "share"], rows)


def classes_without_sample(values: Values, names: Sequence[str]) -> list[str]:
    """Return the names of classes that no sample is of."""
    return [name for name, samples in zip(names, values["counts"][:, 4].tolist(), strict=True) if samples == 0]


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
