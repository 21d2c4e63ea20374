"""Metrics of numbers that are predicted, whose degenerate cases are settled."""

from __future__ import annotations

import warnings

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import (
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    MetricCollection,
    PearsonCorrCoef,
    R2Score,
    SpearmanCorrCoef,
)


def regression_metrics(*names: str) -> MetricCollection:
    """Return metrics by name: `mae`, `mse`, `r2`, `pearson`, `spearman`.

    Example:
        >>> regression_metrics("mae", "r2")(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
        {'mae': tensor(0.5000), 'r2': tensor(0.5000)}
    """
    return MetricCollection({name: METRICS[name]() for name in names})


class R2(R2Score):
    """Share of the variance that is explained; it warns and is 0 where labels are all alike, which have no variance.

    NaN would stop a run whose early stopping or checkpoints watch the metric.

    Example:
        >>> R2()(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]))
        tensor(0.7857)
    """

    sum_squared_error: Tensor
    sum_error: Tensor
    residual: Tensor
    total: Tensor

    def compute(self) -> Tensor:
        """Return the share, at most 1; below 0 is worse than to predict the mean."""
        spread = self.sum_squared_error - self.sum_error**2 / self.total
        if bool(spread > 0):
            return 1 - self.residual / spread
        rank_zero_warn("R2 is undefined, for labels are all alike: reported as 0.")
        return torch.zeros_like(self.residual)


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


METRICS: dict[str, type[Metric]] = {
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "r2": R2,
    "pearson": PearsonCorrelation,
    "spearman": SpearmanCorrelation,
}
