"""What is new in a model for a task is trained in full, and what a checkpoint brings is not."""

import pytest
import timm
import torch
import transformers as tf
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.targets.heads import find_heads

_SPEECH = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
           "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2,
           "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 20}  # fmt: skip
_ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
_TEXT = {"vocab_size": 40, **_ENCODER}
_GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2}
HEADS = [
    (tf.BertForQuestionAnswering, tf.BertConfig(**_TEXT), ["qa_outputs"]),
    (tf.GPT2ForTokenClassification, tf.GPT2Config(**_GPT2), ["classifier"]),
    (tf.GPT2ForQuestionAnswering, tf.GPT2Config(**_GPT2), ["qa_outputs"]),
    (tf.FalconForTokenClassification, tf.FalconConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1,
                                                      num_attention_heads=2), ["classifier"]),
    (tf.T5ForTokenClassification, tf.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2),
     ["classifier"]),
    (tf.XLNetForSequenceClassification, tf.XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=24),
     ["sequence_summary", "logits_proj"]),
    (tf.ElectraForMultipleChoice, tf.ElectraConfig(**_TEXT), ["sequence_summary", "classifier"]),
    (tf.Wav2Vec2ForCTC, tf.Wav2Vec2Config(**_SPEECH), ["lm_head"]),
    (tf.SegformerForSemanticSegmentation, tf.SegformerConfig(), ["decode_head"]),
    (tf.UperNetForSemanticSegmentation, tf.UperNetConfig(use_auxiliary_head=False), ["decode_head"]),
    # Trained with the base model, hence nothing new.
    (tf.LlamaForCausalLM, tf.LlamaConfig(**_TEXT, num_key_value_heads=2), []),
    (tf.BertForMaskedLM, tf.BertConfig(**_TEXT), []),
    (tf.ElectraForMaskedLM, tf.ElectraConfig(**_TEXT), []),
    (tf.RwkvForCausalLM, tf.RwkvConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2), []),
    (tf.Aimv2VisionModel, tf.Aimv2VisionConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                               intermediate_size=24, use_head=True), []),
    (tf.WhisperForConditionalGeneration, tf.WhisperConfig(d_model=16, encoder_attention_heads=2,
                                                        decoder_attention_heads=2), []),
]  # fmt: skip
if hasattr(tf, "EuroBertForSequenceClassification"):  # of later transformers
    _EURO_BERT = tf.EuroBertConfig(**_TEXT, num_key_value_heads=2, pad_token_id=0)
    HEADS.append((tf.EuroBertForSequenceClassification, _EURO_BERT, ["dense", "classifier"]))
if hasattr(tf, "ParakeetForCTC"):
    HEADS.append((tf.ParakeetForCTC, tf.ParakeetCTCConfig(vocab_size=20, encoder_config=_ENCODER), ["ctc_head"]))


@pytest.mark.parametrize(("cls", "config", "heads"), HEADS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_lies_beside_the_base_model_is_a_head(cls, config, heads):
    with torch.device("meta"):
        model = cls(config)
    assert find_heads(model, None) == heads


def test_all_that_timm_leaves_out_of_a_checkpoint_of_other_classes_is_a_head():
    with torch.device("meta"):
        volo = timm.create_model("volo_d1_224", num_classes=3)
        assert find_heads(volo, None) == ["aux_head", "head"]
        assert find_heads(timm.create_model("volo_d1_224", num_classes=0), None) == ["head"]  # which is no layer
        assert find_heads(timm.create_model("convnext_atto", num_classes=3), None) == ["head.fc"]
        assert find_heads(timm.create_model("crossvit_9_240", num_classes=3), None) == ["head"]  # a list of two


def test_the_report_shows_heads_and_they_train():
    model = tf.BertForQuestionAnswering(tf.BertConfig(**_TEXT))
    report = inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))
    assert report.heads == ("qa_outputs",) and "trained in full: qa_outputs" in str(report)
    assert all(p.requires_grad for p in model.qa_outputs.parameters())


def test_a_second_tower_beside_the_base_model_is_no_head():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(4, 4)

    class TwoTowers(tf.PreTrainedModel):
        config_class, base_model_prefix = tf.BertConfig, "bert"

        def __init__(self, config):
            super().__init__(config)
            self.bert, self.image, self.classifier = nn.Linear(4, 4), nn.Sequential(Attention()), nn.Linear(4, 2)

    assert find_heads(TwoTowers(tf.BertConfig(**_TEXT)), None) == ["classifier"]
