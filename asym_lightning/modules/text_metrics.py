"""Metrics of text tasks whose degenerate cases are settled, and which of them each task reports."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef

from asym_lightning.core.messages import check_choice

TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mse"),
    "cola": ("matthews", "accuracy"),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
"""Metrics by task. The first is the one that papers quote: Matthews for CoLA, Pearson for STS-B, else accuracy."""

REGRESSION_TASKS = ("regression", "stsb")


def text_metrics(task: str, num_classes: int) -> MetricCollection:
    """Return the metrics of a task by name; they take class numbers, or scores in regression.

    Raises:
        ValueError: If the task is unknown, or has another number of classes.

    Example:
        >>> metrics = text_metrics("mrpc", num_classes=2)
        >>> metrics(torch.tensor([1, 1, 1]), torch.tensor([1, 0, 1]))
        {'accuracy': tensor(0.6667), 'f1': tensor(0.8000)}
    """
    check_text_task(task)
    if "f1" in TASK_METRICS[task] and num_classes != 2:
        raise ValueError(f"`task` {task!r} has 2 classes, not {num_classes}.")
    return MetricCollection({name: _metric(name, num_classes) for name in TASK_METRICS[task]})


def check_text_task(task: str) -> None:
    """Check that a task is known.

    Raises:
        ValueError: If it is not; the message suggests the nearest.
    """
    check_choice("task", task, TASK_METRICS)


def _metric(name: str, num_classes: int) -> Metric:
    if name == "accuracy":  # micro: the share of rows that are right. torchmetrics' default is the mean over classes.
        return MulticlassAccuracy(num_classes, average="micro")
    if name == "f1":  # of class 1, as GLUE has it
        return BinaryF1Score()
    if name == "macro_f1":
        return MulticlassF1Score(num_classes, average="macro")
    if name == "matthews":
        return MatthewsCorrelation(num_classes)
    return {"pearson": PearsonCorrelation, "spearman": SpearmanCorrelation, "mse": MeanSquaredError}[name]()


class MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Matthews correlation that is 0 when all predictions, or all labels, are of one class.

    The coefficient is 0 / 0 there, and scikit-learn settles it as 0. torchmetrics replaces the fraction in the binary
    case, which gives a number that depends on the shares of the classes. It matters: arms that train too little
    do predict one class on CoLA.

    Example:
        >>> metric = MatthewsCorrelation(2)
        >>> metric(torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 0]))
        tensor(0.)
    """

    def compute(self) -> Tensor:
        """Return the coefficient, in [-1, 1]."""
        confusion = self.confmat.float()  # labels by predictions
        is_constant = any((confusion.sum(dim) > 0).sum() <= 1 for dim in (0, 1))
        return confusion.new_zeros(()) if is_constant else super().compute()


class PearsonCorrelation(PearsonCorrCoef):
    """Pearson correlation that warns and is 0 where it is undefined, because predictions or labels are constant.

    NaN would stop a run whose early stopping or checkpoints watch the metric.

    Example:
        >>> metric = PearsonCorrelation()
        >>> metric(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
        tensor(1.)
    """

    def compute(self) -> Tensor:
        """Return the coefficient, in [-1, 1]."""
        return _defined("Pearson", super().compute)


class SpearmanCorrelation(SpearmanCorrCoef):
    """Spearman's rank correlation that warns and is 0 where it is undefined; see `PearsonCorrelation`."""

    def compute(self) -> Tensor:
        """Return the coefficient, in [-1, 1]."""
        return _defined("Spearman", super().compute)


def _defined(name: str, compute) -> Tensor:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics' own warning of the same, which does not say what follows
        value: Tensor = compute()
    if bool(torch.isfinite(value)):
        return value
    rank_zero_warn(f"the {name} correlation is undefined, for predictions or labels are all alike: reported as 0.")
    return torch.zeros_like(value)
