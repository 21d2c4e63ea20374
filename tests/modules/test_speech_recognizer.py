"""SpeechRecognizer: its loss and its transcripts with CTC and with an encoder-decoder, and errors of transcripts."""

import pytest
import torch
import transformers as tf

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import SpeechRecognizer
from asym_lightning.modules.decoding import Decoding
from asym_lightning.modules.language_model import create_language_model
from asym_lightning.modules.transcript_errors import TranscriptErrors
from tests.adapters.models import perturb
from tests.audio_stand_ins import WORDS, letter_tokenizer, tiny_wav2vec2_config, tiny_whisper_config
from tests.language_models import word_tokenizer

MASK = torch.tensor([[1] * 1600, [1] * 900 + [0] * 700])
LABELS = torch.tensor([[5, 6, 6], [7, -100, -100]])
SPOKEN = {"input_values": torch.randn(2, 1600) * MASK, "attention_mask": MASK, "labels": LABELS, "file": ["a", "b"]}
SEEN = {"input_features": torch.randn(2, 16, 100), "labels": torch.tensor([[1, 5, 6, 2], [1, 7, 2, -100]]),
        "file": ["a", "b"]}  # fmt: skip


def with_ctc(tmp_path):
    torch.manual_seed(0)
    model = tf.Wav2Vec2ForCTC(tiny_wav2vec2_config(vocab_size=8, pad_token_id=0))
    module = SpeechRecognizer(model, AdapterConfig(rank=2))
    module.tokenizer = letter_tokenizer(tmp_path)
    return built(module)


def whisper(**options):
    torch.manual_seed(0)
    model = tf.WhisperForConditionalGeneration(tiny_whisper_config(vocab_size=9, init_std=0.3))
    module = SpeechRecognizer(model, AdapterConfig(rank=2), decoding=Decoding(max_new_tokens=6), **options)
    module.tokenizer = word_tokenizer(WORDS, encoder_decoder=True)
    return built(module)


def built(module):
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def test_ctc_takes_the_mean_over_clips_and_its_head_trains(tmp_path):
    module = with_ctc(tmp_path)
    inputs = {name: SPOKEN[name] for name in ("input_values", "attention_mask")}
    log_probabilities = module.backbone(**inputs).logits.float().log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([38, 20])
    expected = torch.nn.functional.ctc_loss(
        log_probabilities, torch.tensor([5, 6, 6, 7]), lengths, torch.tensor([3, 1]), blank=0
    )
    torch.testing.assert_close(module.step(SPOKEN).loss, expected)
    assert module.backbone.lm_head.weight.requires_grad and len(module.build_metrics()) == 0


def test_a_text_that_there_is_no_time_for_teaches_nothing(tmp_path):
    module = with_ctc(tmp_path)
    batch = {"input_values": torch.randn(1, 200), "labels": torch.full((1, 30), 5)}
    assert module.step(batch).loss.item() == 0


def test_with_ctc_each_step_says_its_likeliest_letter_until_the_clip_ends(tmp_path, monkeypatch):
    module = with_ctc(tmp_path)
    said = torch.zeros(2, 38, 8)
    for row in said:
        row[torch.arange(38), torch.tensor([5, 5, 0, 5, 4, 6] + [0] * 21 + [7] * 11)] = 1.0
    monkeypatch.setattr(module, "forward", lambda **inputs: tf.modeling_outputs.CausalLMOutput(logits=said))
    assert module.generate(module.prompts(SPOKEN)) == ["AA BC", "AA B"]  # the second one ends before


def test_an_encoder_decoder_learns_tokens_from_behind_its_start():
    module = whisper()
    batch = module.prepared(SEEN)
    assert batch["labels"].tolist() == [[5, 6, 2], [7, 2, -100]] and module.prepared(batch) is batch
    decoder = torch.tensor([[1, 5, 6], [1, 7, 2]])
    logits = module.backbone(input_features=SEEN["input_features"], decoder_input_ids=decoder).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    torch.testing.assert_close(module.step(batch).loss, expected)


def test_samples_are_what_the_model_writes_by_itself():
    module = whisper()
    rows = module.samples({**SEEN, "reference": ["ab", "bc"]})
    ids = module.backbone.generate(SEEN["input_features"], max_new_tokens=6)
    assert [row["transcript"] for row in rows] == module.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [(row["file"], row["reference"]) for row in rows] == [("a", "ab"), ("b", "bc")]
    assert {row["reference"] for row in module.samples(SEEN)} == {""}


def test_a_model_of_several_languages_writes_in_the_one_that_the_tokenizer_is_set_to():
    module = whisper()
    settings = module.backbone.generation_config
    settings.lang_to_id, settings.task_to_id = {"<|en|>": 5, "<|de|>": 6}, {"transcribe": 7, "translate": 8}
    settings.is_multilingual, settings.no_timestamps_token_id = True, 4
    module.tokenizer.language = "german"
    asked = []
    run = module.backbone.model.decoder.forward
    module.backbone.model.decoder.forward = lambda **inputs: asked.append(inputs["input_ids"].tolist()) or run(**inputs)
    module.generate(module.prompts(SEEN))
    assert asked[0] == [[1, 6, 7, 4]] * 2  # start, language, task, no times


def test_errors_are_counted_over_all_texts_and_never_nan():
    errors = TranscriptErrors()
    errors.update(["the cat", ""], ["the cat sat", "a"])
    assert {name: round(float(v), 4) for name, v in errors.compute().items()} == {"wer": 0.5, "cer": 0.4167}
    assert int(errors.num_texts) == 2
    errors.reset()
    errors.update(["said", ""], ["", ""])
    with pytest.warns(UserWarning, match="the reference transcripts are empty, so `wer` is not defined"):
        assert {name: float(value) for name, value in errors.compute().items()} == {"wer": 1.0, "cer": 1.0}
    errors.reset()
    errors.update([""], [""])
    with pytest.warns(UserWarning, match="not defined"):
        assert {name: float(value) for name, value in errors.compute().items()} == {"wer": 0.0, "cer": 0.0}


def test_a_model_of_text_is_refused(tmp_path):
    tf.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a bert, which is no speech model"):
        create_language_model(str(tmp_path), "speech")
