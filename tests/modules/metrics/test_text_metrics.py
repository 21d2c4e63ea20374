import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef

from asym_lightning.modules.metrics.class_metrics import MatthewsCorrelation
from asym_lightning.modules.metrics.text_metrics import TASK_METRICS, text_metrics


def predictions(count=200, classes=2):
    random = np.random.default_rng(0)
    return random.integers(0, classes, count), random.integers(0, classes, count)


@pytest.mark.parametrize("task", TASK_METRICS)
def test_task_reports_the_metrics_of_the_benchmark(task):
    expected = {"cola": {"matthews"}, "mrpc": {"accuracy", "f1"}, "qqp": {"accuracy", "f1"}}
    expected |= {"stsb": {"pearson", "spearman"}, "regression": {"pearson", "spearman"}}
    assert expected.get(task, {"accuracy"}) <= set(text_metrics(task, 2))


def test_accuracy_is_the_share_of_rows_not_the_mean_over_classes():
    metrics = text_metrics("mnli", 3)
    values = metrics(torch.tensor([0, 0, 0, 1, 2, 0]), torch.tensor([0, 0, 0, 1, 1, 2]))
    assert values["accuracy"] == pytest.approx(4 / 6)


def test_f1_and_matthews_equal_scikit_learns():
    predicted, labels = predictions()
    f1 = text_metrics("mrpc", 2)(torch.tensor(predicted), torch.tensor(labels))["f1"]
    assert float(f1) == pytest.approx(f1_score(labels, predicted))
    matthews = MatthewsCorrelation(2)
    for part in np.array_split(np.arange(200), 7):  # over batches
        matthews.update(torch.tensor(predicted[part]), torch.tensor(labels[part]))
    assert float(matthews.compute()) == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-6)


@pytest.mark.parametrize("shares", [(721, 322), (4, 2)])
@pytest.mark.parametrize("constant", [0, 1])
def test_matthews_of_constant_predictions_is_0(shares, constant):
    labels = torch.tensor([1] * shares[0] + [0] * shares[1])
    predicted = torch.full_like(labels, constant)
    assert MatthewsCorrelation(2)(predicted, labels) == 0 == matthews_corrcoef(labels, predicted)
    assert MatthewsCorrelation(2)(labels, predicted) == 0  # constant labels


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"`task` must be one of classification, .*, not 'STS-B': did you mean stsb\?"):
        text_metrics("STS-B", 1)
    with pytest.raises(ValueError, match="'mrpc' has 2 classes, not 3"):
        text_metrics("mrpc", 3)
