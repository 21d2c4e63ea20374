import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from asym_lightning.modules.metrics.iou import MeanIoU


def test_it_is_that_of_scikit_learn_over_batches_without_what_does_not_count():
    random = np.random.default_rng(0)
    predicted, targets = random.integers(0, 4, (6, 5, 5)), random.integers(0, 4, (6, 5, 5))
    targets[random.random(targets.shape) < 0.2] = -100
    metric = MeanIoU(4)
    for part in np.array_split(np.arange(6), 4):
        metric.update(torch.tensor(predicted[part]), torch.tensor(targets[part]))
    counts = targets != -100
    expected = jaccard_score(targets[counts], predicted[counts], average=None)
    assert float(metric.compute()) == pytest.approx(expected.mean(), abs=1e-6)
    assert metric.of_classes("abcd") == pytest.approx(dict(zip("abcd", expected, strict=True)), abs=1e-6)


def test_classes_that_are_nowhere_are_left_out():
    metric = MeanIoU(3)
    metric.update(torch.tensor([[0, 0]]), torch.tensor([[0, 0]]))
    assert metric.compute() == 1 and metric.of_classes("abc") == {"a": 1.0}


def test_without_a_pixel_that_counts_it_is_reported_and_a_number():
    metric = MeanIoU(3)
    metric.update(torch.tensor([[0, 1]]), torch.tensor([[-100, -100]]))
    with pytest.warns(UserWarning, match="the mean IoU is undefined, for no pixel is of a class: reported as 0"):
        assert metric.compute() == 0
    assert metric.of_classes("abc") == {}
