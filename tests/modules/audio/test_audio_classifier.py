"""AudioClassifier: its loss, its inputs and its rows of predictions."""

import pytest
import torch
import transformers as tf

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.modules import AudioClassifier
from tests.adapters.models import perturb
from tests.audio_stand_ins import tiny_wav2vec2_config

MASK = torch.tensor([[1] * 800, [1] * 500 + [0] * 300])
BATCH = {"input_values": torch.randn(2, 800) * MASK, "attention_mask": MASK, "labels": torch.tensor([2, 0])}


def whisper(**changes):
    config = tf.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=8, max_source_positions=50, classifier_proj_size=8,
        num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, vocab_size=60,
    )  # fmt: skip
    return tf.WhisperForAudioClassification(config)


def made(model=None, **options):
    torch.manual_seed(0)
    model = model or tf.Wav2Vec2ForSequenceClassification(tiny_wav2vec2_config(num_labels=3))
    module = AudioClassifier(model, adapter=AdapterConfig(rank=2), **options)
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def test_loss_is_the_model_s_own_and_its_head_trains():
    module = made()
    output = module.step(BATCH)
    torch.testing.assert_close(output.loss, module.backbone(**BATCH).loss)
    assert module.backbone.classifier.weight.requires_grad and module.backbone.projector.weight.requires_grad
    assert not module.backbone.wav2vec2.encoder.layers[0].attention.k_proj.weight.requires_grad


def test_whisper_s_encoder_takes_spectra_and_no_mask():
    module = made(whisper())
    batch = {"input_features": torch.randn(2, 8, 100), "attention_mask": torch.ones(2, 100)}
    expected = module.backbone(input_features=batch["input_features"]).logits
    torch.testing.assert_close(module.logits(batch), expected)
    assert set(adapter_layers(module.backbone)) == {f"encoder.layers.0.self_attn.{role}_proj" for role in "qkv"}


def test_rows_have_file_class_and_probabilities():
    module = made(label_names=["a", "b", "c"])
    prediction = module.predict_step(BATCH, 0)
    first, second = module.prediction_rows(prediction, BATCH, ["x.wav", "y.wav"])
    assert (first["id"], first["target"], second["target"]) == ("x.wav", "c", "a")
    assert sum(first[f"probability_{name}"] for name in "abc") == pytest.approx(1)
    assert max("abc", key=lambda name: second[f"probability_{name}"]) == second["label"]


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match="the backbone has 3 outputs, but AudioClassifier needs 2"):
        made(label_names=["a", "b"])
    with pytest.raises(ValueError, match="`class_weights` are 2, but there are 3 classes"):
        made(class_weights=[1.0, 2.0])
