"""Counting without a look at numbers gives what torchmetrics gives."""

import pytest
import torch
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef

from asym_lightning.modules.metrics.class_metrics import Accuracy, MacroF1, MatthewsCorrelation, f1

CASES = {
    "accuracy": (Accuracy, lambda n: MulticlassAccuracy(n, average="micro")),
    "macro F1": (MacroF1, lambda n: MulticlassF1Score(n, average="macro")),
    "Matthews": (MatthewsCorrelation, MulticlassMatthewsCorrCoef),
    "F1": (lambda n: f1(), lambda n: BinaryF1Score()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("num_seen", [2, 4])
def test_equals_torchmetrics_over_batches(name, num_seen) -> None:
    num_classes = 2 if name == "F1" else 4  # of which 2 may never be seen
    ours, theirs = (make(num_classes) for make in CASES[name])
    generator = torch.Generator().manual_seed(0)
    for size in (1, 7, 20):
        predictions, labels = torch.randint(min(num_seen, num_classes), (2, size), generator=generator)
        ours.update(predictions, labels)
        theirs.update(predictions, labels)
    assert torch.equal(ours.compute(), theirs.compute())


@pytest.mark.parametrize(("ours", "average"), [(Accuracy, "micro"), (MacroF1, "macro")])
def test_what_has_no_class_is_left_out(ours, average) -> None:
    predictions, labels = torch.randint(3, (2, 4, 10), generator=torch.Generator().manual_seed(0))
    labels[:, ::3] = -100
    theirs = {"micro": MulticlassAccuracy, "macro": MulticlassF1Score}[average](3, average=average, ignore_index=-100)
    assert ours(3)(predictions, labels) == theirs(predictions, labels)


def test_accuracy_takes_logits() -> None:
    logits, labels = torch.tensor([[0.1, 2.0], [1.0, 0.5]]), torch.tensor([1, 1])
    assert Accuracy(2)(logits, labels) == 0.5


def test_counts_add_up_to_torchmetrics_own() -> None:
    predictions, labels = torch.randint(5, (2, 40), generator=torch.Generator().manual_seed(0))
    ours, theirs = MacroF1(5), MulticlassF1Score(5, average="macro")
    for metric in (ours, theirs):
        metric.update(predictions, labels)
    for name in ("tp", "fp", "tn", "fn"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_a_class_that_there_is_not_is_refused() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        MacroF1(2).update(torch.tensor([0, 1]), torch.tensor([0, 2]))
