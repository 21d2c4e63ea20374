"""MultiLabelImageClassifier: its classes, its loss and its predictions."""

import pytest
import torch
import torch.nn.functional as F

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import MultiLabelImageClassifier

TARGETS = torch.tensor([[1, 0, 1], [0, 0, 0]])


def made(**options):
    torch.manual_seed(0)
    module = MultiLabelImageClassifier("vit_digits", ["x", "y", "z"], AdapterConfig(rank=2), **options)
    module.configure_model()
    return module.eval()


def test_loss_is_the_binary_cross_entropy_of_all_classes():
    module, images = made(), torch.randn(2, 1, 8, 8)
    output = module.step((images, TARGETS))
    logits = module(images)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(logits, TARGETS.float()))
    torch.testing.assert_close(output.predictions, logits.sigmoid())


def test_predictions_name_the_classes_with_or_without_targets():
    module, images = made(threshold=0.3), torch.randn(2, 1, 8, 8)
    probabilities = torch.tensor([[0.3, 0.2, 0.9], [0.0, 0.1, 0.2]])
    rows = module.prediction_rows(probabilities, (images, TARGETS), ["a", "b"])
    assert [(row["id"], row["labels"], row.get("targets")) for row in rows] == [
        ("a", ["x", "z"], ["x", "z"]), ("b", [], None)
    ]  # fmt: skip
    assert all("targets" not in row for row in module.prediction_rows(probabilities, images, ["a", "b"]))
    assert torch.equal(module.predict_step(images, 0), module.predict_step((images, TARGETS), 0))


def test_classes_have_to_be_known():
    with pytest.raises(ValueError, match="`label_names` are neither given nor known to the data module"):
        MultiLabelImageClassifier("vit_digits").configure_model()
