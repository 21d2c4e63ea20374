"""MultiLabelTextClassifier: its loss and its scores."""

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import MultiLabelTextClassifier
from tests.adapters.models import perturb
from tests.text_stand_ins import tiny_bert_config

BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0], [2, 9, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]),
    "labels": torch.tensor([[2, 0], [1, -1], [-1, -1]]),
}
HOT = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]])


def made(**options):
    torch.manual_seed(0)
    backbone = tf.BertForSequenceClassification(tiny_bert_config(num_labels=3))
    module = MultiLabelTextClassifier(backbone, ["x", "y", "z"], AdapterConfig(rank=2), **options)
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def test_loss_is_the_binary_cross_entropy_of_all_classes_and_the_model_s_own():
    module = made()
    output = module.step(BATCH)
    inputs = {name: BATCH[name] for name in ("input_ids", "attention_mask")}
    found = module.backbone(**inputs, labels=HOT.float())
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(found.logits, HOT.float()))
    torch.testing.assert_close(output.loss, found.loss)  # whose config says what the task is
    assert torch.equal(output.targets, HOT)


def test_scores_are_counted_by_class_and_over_all():
    metrics = made().build_metrics()
    metrics.update(torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0]]), HOT)
    found = {name: float(value) for name, value in metrics.compute().items()}
    expected = {"macro_f1": (2 / 3 + 1 + 1) / 3, "micro_f1": 6 / 7, "exact_match": 2 / 3, "map": (1 / 2 + 1 + 1) / 3}
    assert found == pytest.approx(expected)


def test_what_is_of_a_class_counts_as_often_as_its_weight_says_in_training_alone():
    module = made(positive_weights=[3.0, 1.0, 0.5])
    logits = module.logits(BATCH)
    plain = F.binary_cross_entropy_with_logits(logits, HOT.float())
    weighted = F.binary_cross_entropy_with_logits(logits, HOT.float(), pos_weight=torch.tensor([3.0, 1.0, 0.5]))
    torch.testing.assert_close(module.step(BATCH).loss, plain)
    module.training = True
    torch.testing.assert_close(module.step(BATCH).loss, weighted)
    with pytest.raises(ValueError, match="`positive_weights` are 2, but there are 3 classes"):
        made(positive_weights=[1.0, 1.0])


def test_predictions_name_the_classes_from_the_threshold_on():
    module = made(threshold=0.3)
    rows = module.prediction_rows(torch.tensor([[0.3, 0.2, 0.9], [0.0, 0.1, 0.2], [0.5, 0, 0]]), BATCH, ["a", "b", "c"])
    assert [row["labels"] for row in rows] == [["x", "z"], [], ["x"]]
    assert [row.get("targets") for row in rows] == [["z", "x"], ["y"], None]
    assert rows[1]["id"] == "b" and set(rows[1]["probabilities"]) == {"x", "y", "z"}


def test_a_threshold_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\], not 1.5"):
        made(threshold=1.5)
