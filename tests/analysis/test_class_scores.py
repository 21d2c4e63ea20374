"""Scores by class against scikit-learn's, and what becomes of classes and bins that have nothing in them."""

import csv

import pytest
import torch

from asym_lightning.analysis.class_scores import (
    class_metrics,
    classes_without_sample,
    confusion_csv,
    reliability_csv,
    scores_csv,
)

sklearn = pytest.importorskip("sklearn.metrics")


def scored(num_classes, *, without=(), count=400):
    generator = torch.Generator().manual_seed(num_classes)
    left = torch.tensor([number for number in range(num_classes) if number not in without])
    labels = left[torch.randint(len(left), (count,), generator=generator)]
    logits = torch.randn(count, num_classes, generator=generator)
    logits[torch.arange(count), labels] += 2
    probabilities = logits.softmax(-1)
    return class_metrics(num_classes)(probabilities, labels), probabilities, labels


@pytest.mark.parametrize("num_classes", [2, 7, 40])
def test_scores_and_confusion_are_those_of_scikit_learn(num_classes):
    values, probabilities, labels = scored(num_classes)
    predicted = probabilities.argmax(-1)
    expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=range(num_classes), zero_division=0)
    for name, of_sklearn in zip(("precision", "recall", "f1"), expected, strict=False):
        assert torch.allclose(values[name].double(), torch.from_numpy(of_sklearn)), name
    confusion = sklearn.confusion_matrix(labels, predicted, labels=range(num_classes))
    assert torch.equal(values["confusion"], torch.from_numpy(confusion))
    macro = sklearn.f1_score(labels, predicted, average="macro")
    assert float(values["macro_f1"]) == pytest.approx(macro)
    assert ("top5_accuracy" in values) == (num_classes > 10)
    if num_classes > 10:
        top = sklearn.top_k_accuracy_score(labels, probabilities, k=5, labels=range(num_classes))
        assert float(values["top5_accuracy"]) == pytest.approx(top)


def test_calibration_error_is_the_sum_over_the_bins_shown():
    values, probabilities, labels = scored(7)
    accuracy, confidence, share = values["reliability"]
    assert float(values["calibration_error"]) == pytest.approx(float(((accuracy - confidence).abs() * share).sum()))
    confidences, predicted = probabilities.max(-1)
    inside = (confidences >= 0.8) & (confidences < 13 / 15)  # the thirteenth of fifteen bins
    assert float(accuracy[12]) == pytest.approx(float((predicted == labels)[inside].float().mean()))
    assert float(confidence[12]) == pytest.approx(float(confidences[inside].mean()))
    assert float(share[12]) == pytest.approx(int(inside.sum()) / len(labels))


def test_a_class_without_a_sample_is_named_and_nothing_is_nan():
    values, _, _ = scored(4, without=[2])
    names = ["a", "b", "c", "d"]
    assert classes_without_sample(values, names) == ["c"]
    assert all(bool(torch.isfinite(value).all()) for value in values.values())
    rows = list(csv.DictReader(scores_csv(values, names).splitlines()))
    assert [row["class"] for row in rows] == names
    assert (rows[2]["samples"], rows[2]["recall"]) == ("0", "0.000000")


def test_tables_hold_what_was_measured_by_name():
    values, probabilities, labels = scored(3)
    names = ["=cat", "dog", "bird"]
    rows = list(csv.DictReader(scores_csv(values, names).splitlines()))
    assert [int(row["samples"]) for row in rows] == torch.bincount(labels).tolist()
    assert [int(row["predicted"]) for row in rows] == torch.bincount(probabilities.argmax(-1)).tolist()
    table = list(csv.reader(confusion_csv(values, names).splitlines()))
    assert table[0] == ["class", "'=cat", "dog", "bird"]  # no spreadsheet takes the name for a formula
    assert [[int(cell) for cell in row[1:]] for row in table[1:]] == values["confusion"].tolist()
    bins = list(csv.DictReader(reliability_csv(values).splitlines()))
    assert sum(float(row["share"]) for row in bins) == pytest.approx(1, abs=1e-4)
    assert all(float(row["share"]) > 0 for row in bins)


def test_a_matrix_of_very_many_classes_is_left_out():
    assert "confusion" in class_metrics(1000)
    assert "confusion" not in class_metrics(1001)
