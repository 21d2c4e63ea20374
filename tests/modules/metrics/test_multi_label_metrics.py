import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from asym_lightning.modules.metrics.multi_label_metrics import MeanAveragePrecision, multi_label_metrics


def test_scores_equal_scikit_learns_over_batches():
    random = np.random.default_rng(0)
    probabilities, targets = random.random((60, 4)).astype(np.float32), random.integers(0, 2, (60, 4))
    metrics = multi_label_metrics(4, threshold=0.3)
    for part in np.array_split(np.arange(60), 7):
        metrics.update(torch.tensor(probabilities[part]), torch.tensor(targets[part]))
    decided = probabilities >= 0.3
    expected = {f"{kind}_f1": f1_score(targets, decided, average=kind) for kind in ("macro", "micro")}
    expected["exact_match"] = (decided == targets).all(axis=1).mean()
    expected["map"] = average_precision_score(targets, probabilities, average="macro")
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(expected, abs=1e-6)


def test_a_probability_that_is_the_threshold_is_enough():
    found = multi_label_metrics(1, threshold=0.5)(torch.tensor([[0.5]]), torch.tensor([[1]]))
    assert found["exact_match"] == found["macro_f1"] == 1


def test_classes_without_a_sample_are_reported_and_left_out():
    metric = MeanAveragePrecision(3)
    metric.update(torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]]), torch.tensor([[1, 1, 0], [0, 0, 0]]))
    with pytest.warns(UserWarning, match="leaves out 1 classes of which there is no sample"):
        assert metric.compute() == pytest.approx((1 + 1 / 2) / 2)


def test_without_any_sample_of_a_class_it_is_reported_and_a_number():
    metric = MeanAveragePrecision(2)
    metric.update(torch.tensor([[0.9, 0.2]]), torch.tensor([[0, 0]]))
    with pytest.warns(UserWarning, match="is undefined, for nothing is of any class: reported as 0"):
        assert metric.compute() == 0
