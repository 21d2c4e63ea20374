import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

from asym_lightning.modules.metrics.regression_metrics import (
    R2,
    PearsonCorrelation,
    SpearmanCorrelation,
    regression_metrics,
)


def test_error_and_explained_variance_equal_scikit_learns_over_batches():
    random = np.random.default_rng(0)
    labels, values = random.normal(size=60).astype(np.float32), random.normal(size=60).astype(np.float32)
    metrics = regression_metrics("mae", "r2")
    for part in np.array_split(np.arange(60), 7):
        metrics.update(torch.tensor(values[part]), torch.tensor(labels[part]))
    found = {name: float(value) for name, value in metrics.compute().items()}
    expected = {"mae": mean_absolute_error(labels, values), "r2": r2_score(labels, values)}
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("labels", [[2.0], [2.0, 2.0, 2.0]])
def test_labels_without_variance_are_reported_and_give_a_number(labels):
    metric = R2()
    metric.update(torch.ones(len(labels)), torch.tensor(labels))
    with pytest.warns(UserWarning, match="R2 is undefined, for labels are all alike: reported as 0"):
        assert metric.compute() == 0


@pytest.mark.parametrize("metric", [PearsonCorrelation, SpearmanCorrelation])
def test_undefined_correlation_is_reported_and_is_a_number(metric):
    undefined = metric()
    undefined.update(torch.full((5,), 2.0), torch.arange(5.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert undefined.compute() == 0
    if metric is PearsonCorrelation:  # Spearman's is 0 already
        assert any("undefined" in str(warning.message) for warning in caught)
    defined = metric()
    assert defined(torch.arange(5.0), 2 * torch.arange(5.0)) == pytest.approx(1)
