"""Weights of classes and smoothed labels, in training alone."""

import pytest
import torch
import torch.nn.functional as F

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import ImageClassifier
from asym_lightning.modules.heads.class_loss import ClassLoss


def test_weights_and_smoothing_count_in_training_alone():
    logits, labels = torch.randn(6, 3), torch.arange(6) % 3
    loss = ClassLoss([1.0, 2.0, 0.5], 0.1)
    expected = F.cross_entropy(logits, labels, torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    assert torch.equal(loss(logits, labels, is_training=True), expected)
    assert torch.equal(loss(logits, labels, is_training=False), F.cross_entropy(logits, labels))


def test_weights_take_the_dtype_of_the_logits():
    logits, labels = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    expected = F.cross_entropy(logits, labels, torch.tensor([1.0, 3.0]).double())
    assert torch.equal(ClassLoss([1.0, 3.0])(logits, labels, is_training=True), expected)


def test_an_image_classifier_weighs_classes_in_training_alone():
    batch = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    modules = []
    for weights in (None, [1.0, 1.0, 9.0]):
        torch.manual_seed(0)
        module = ImageClassifier("vit_digits", 3, AdapterConfig(rank=2), class_weights=weights)
        module.configure_model()
        modules.append(module)
    plain, weighed = modules
    logits = weighed.eval()(batch[0])
    assert torch.equal(weighed.step(batch).loss, plain.eval().step(batch).loss)
    expected = F.cross_entropy(logits, batch[1], torch.tensor([1.0, 1.0, 9.0]))
    assert torch.allclose(weighed.train().step(batch).loss, expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "`class_weights` are 2, but there are 3 classes"),
        ([1.0, 2.0, -1.0], r"`class_weights\[2\]` must be"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier("vit_digits", 3, class_weights=weights)
