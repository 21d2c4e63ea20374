"""TokenClassifier: the loss and the scores of words."""

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import TokenClassifier
from tests.adapters.models import perturb
from tests.text_stand_ins import tiny_bert_config, write_tiny_bert

TAGS = ["O", "B-PER", "I-PER"]


def made(**options):
    torch.manual_seed(0)
    backbone = tf.BertForTokenClassification(tiny_bert_config(num_labels=3))
    module = TokenClassifier(backbone, **{"label_names": TAGS, "adapter": AdapterConfig(rank=2), **options})
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "token_type_ids": torch.zeros(2, 5, dtype=torch.long),
    "labels": torch.tensor([[-100, 1, -100, 2, -100], [-100, 0, -100, -100, -100]]),
}


def test_loss_is_the_cross_entropy_of_words():
    module = made()
    logits = module.backbone(**{name: BATCH[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    at = [(0, 1), (0, 3), (1, 1)]
    expected = F.cross_entropy(torch.stack([logits[i] for i in at]), torch.tensor([1, 2, 0]))
    output = module.step(BATCH)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.loss, module.backbone(**BATCH).loss)
    assert len(output.targets) == 2  # texts


def test_class_weights_and_smoothing_are_for_training():
    module = made(class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1)
    plain = module.step(BATCH).loss
    torch.testing.assert_close(plain, module.backbone(**BATCH).loss)
    module.training = True
    assert module.step(BATCH).loss != plain


def test_a_batch_without_a_word_costs_nothing():
    loss = made().step({**BATCH, "labels": torch.full((2, 5), -100)}).loss
    loss.backward()
    assert loss == 0


def test_tags_without_entities_have_other_scores():
    assert set(made().build_metrics()) == {"accuracy", "precision", "recall", "f1"}
    assert set(made(label_names=["NOUN", "VERB", "X"]).build_metrics()) == {"accuracy", "macro_f1"}


def test_accuracy_is_of_words():
    metrics = made().build_metrics()
    metrics.update(torch.tensor([[0, 1, 0, 0, 0]]), torch.tensor([[-100, 1, -100, 2, -100]]))
    assert metrics.compute()["accuracy"] == 0.5


def test_a_named_backbone_gets_a_head_of_its_tags_that_trains(tmp_path):
    module = TokenClassifier(str(write_tiny_bert(tmp_path)), TAGS, AdapterConfig(rank=2))
    module.configure_model()
    assert module.backbone.config.id2label == dict(enumerate(TAGS))
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "adapters" not in name} == {
        "backbone.classifier.weight", "backbone.classifier.bias"
    }  # fmt: skip


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the backbone has 3 outputs, but TokenClassifier needs 2, one for each of"):
        made(label_names=["O", "X"])
    with pytest.raises(ValueError, match="`class_weights` are 2, but there are 3 classes"):
        made(class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="`label_names` are neither given nor known to the data module"):
        TokenClassifier(str(write_tiny_bert(tmp_path))).configure_model()
    with pytest.raises(ValueError, match="sequences of 48 tokens, but the backbone allows 40"):
        made().step({name: value.repeat(1, 48)[:, :48] for name, value in BATCH.items()})
