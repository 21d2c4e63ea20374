"""Metrics of text tasks whose degenerate cases are settled, and which of them each task reports."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection, PearsonCorrCoef, SpearmanCorrCoef

from asym_lightning.core.messages import check_choice
from asym_lightning.modules.class_metrics import Accuracy, MacroF1, MatthewsCorrelation, f1

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
    of_classes = {"accuracy": Accuracy, "macro_f1": MacroF1, "matthews": MatthewsCorrelation}
    if name in of_classes:
        return of_classes[name](num_classes)
    return {"f1": f1, "pearson": PearsonCorrelation, "spearman": SpearmanCorrelation, "mse": MeanSquaredError}[name]()


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
