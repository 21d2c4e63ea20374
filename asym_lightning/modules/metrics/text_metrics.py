"""Which metrics each text task reports."""

from __future__ import annotations

from collections.abc import Mapping

from torchmetrics import Metric, MetricCollection

from asym_lightning.core.messages import check_choice
from asym_lightning.modules.metrics.class_metrics import Accuracy, MacroF1, MatthewsCorrelation, f1
from asym_lightning.modules.metrics.regression_metrics import METRICS

TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mse", "mae", "r2"),
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
        >>> import torch
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
    return f1() if name == "f1" else METRICS[name]()
