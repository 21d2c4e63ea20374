"""Summarizer: adapted parts, loss, decoding, and its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rouge_score.rouge_scorer import RougeScorer

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.data import LoaderOptions, SummarizationDataModule
from asym_lightning.modules import Summarizer
from asym_lightning.modules.language.decoding import Decoding
from tests.adapters.models import perturb
from tests.language_models import tiny_bart, word_tokenizer, write_jsonl

DOCUMENTS = ["the cat sat on the mat and slept", "a dog ran in the park", "rain fell on the town all day"]
SUMMARIES = ["the cat slept", "a dog ran", "rain all day"]


@pytest.fixture
def tokenizer() -> tf.PreTrainedTokenizerFast:
    return word_tokenizer([*DOCUMENTS, *SUMMARIES], encoder_decoder=True)


@pytest.fixture
def data(tmp_path, tokenizer) -> SummarizationDataModule:
    records = [{"document": d, "summary": s} for d, s in zip(DOCUMENTS, SUMMARIES, strict=True)]
    file = write_jsonl(tmp_path / "pairs.jsonl", records)
    return SummarizationDataModule(
        train=file, val=file, test=file, tokenizer=tokenizer, loader=LoaderOptions(2, 2), cache_dir=tmp_path
    )


def trainer(tmp_path: Path, **arguments) -> Trainer:
    settings = {"default_root_dir": tmp_path, "logger": False, "accelerator": "cpu", "enable_progress_bar": False,
                "enable_checkpointing": False, "enable_model_summary": False}  # fmt: skip
    return Trainer(**{**settings, **arguments})


PARTS = {"encoder": "encoder.layers.0.self_attn", "decoder": "decoder.layers.0.self_attn",
         "cross": "decoder.layers.0.encoder_attn"}  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "exclude", "parts"),
    [
        (["q", "k", "v"], [], ["encoder", "decoder", "cross"]),
        (["q", "k", "v"], ["encoder_attn.*"], ["encoder", "decoder"]),
        (["q", "k", "v"], ["self_attn.*"], ["cross"]),
        ([f"encoder.layers.*.self_attn.{letter}_proj" for letter in "qkv"], [], ["encoder"]),
    ],
)
def test_each_attention_can_be_selected(targets, exclude, parts, tokenizer) -> None:
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2, targets=targets, exclude=exclude))
    module.configure_model()
    names = {name.removeprefix("model.") for name in adapter_layers(module.backbone)}
    assert names == {f"{PARTS[part]}.{letter}_proj" for part in parts for letter in "qkv"}


@pytest.mark.parametrize("family", ["bart", "t5", "pegasus"])
def test_loss_is_the_model_s_own(family, tokenizer) -> None:
    torch.manual_seed(0)
    models = {
        "bart": lambda: tiny_bart(len(tokenizer)),
        "t5": lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4,
                        decoder_start_token_id=0)
        ),
        "pegasus": lambda: tf.PegasusForConditionalGeneration(
            tf.PegasusConfig(vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1,
                             encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4,
                             decoder_attention_heads=4)
        ),
    }  # fmt: skip
    module = Summarizer(models[family](), AdapterConfig(rank=2))
    module.configure_model()
    perturb(module.backbone)
    module.eval()
    batch = {"input_ids": torch.randint(4, 20, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long),
             "labels": torch.tensor([[5, 6, 2, -100], [7, 8, 9, 2]])}  # fmt: skip
    output = module.step(batch)
    torch.testing.assert_close(output.loss, module.backbone(**batch).loss)
    assert len(output.targets) == 7


def test_looking_for_labels_before_a_step_changes_nothing_and_warns_of_nothing(data, tmp_path, tokenizer, recwarn):
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2))
    trainer(tmp_path, fast_dev_run=True).fit(module, datamodule=data)
    assert not [warning for warning in recwarn if "on_before_batch_transfer" in str(warning.message)]
    batch = next(iter(data.train_dataloader()))
    prepared = module.eval().on_before_batch_transfer(batch, 0)
    assert prepared.keys() - batch.keys() == {"label_positions"}
    assert torch.equal(module.step(prepared).loss, module.step(batch).loss)


def test_scores_are_of_what_the_model_generates(data, tmp_path, tokenizer) -> None:
    decoding = Decoding(num_beams=3, max_new_tokens=6, min_new_tokens=2, length_penalty=2.0, no_repeat_ngram_size=2)
    module = Summarizer(tiny_bart(len(tokenizer), init_std=0.5), AdapterConfig(rank=2), decoding=decoding)
    (metrics,) = trainer(tmp_path).test(module, datamodule=data, verbose=False)
    model = tiny_bart(len(tokenizer), init_std=0.5)
    expected = []
    for document, summary in zip(DOCUMENTS, SUMMARIES, strict=True):
        given = tokenizer(document, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(
            **given, num_beams=3, max_length=7, min_length=3, length_penalty=2.0,
            no_repeat_ngram_size=2, do_sample=False, early_stopping=False,
        )  # fmt: skip
        written = tokenizer.decode(ids[0], skip_special_tokens=True)
        expected.append(RougeScorer(["rougeLsum"], use_stemmer=True).score(summary, written)["rougeLsum"].fmeasure)
    assert metrics["test/rougeLsum"] == pytest.approx(sum(expected) / 3, abs=1e-6)
    assert {"test/loss", "test/token_accuracy", "test/rouge1", "test/rouge2", "test/rougeL"} <= metrics.keys()


def test_validation_generates_a_bounded_sample_and_testing_all(data, tmp_path, tokenizer) -> None:
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2), num_val_samples=1)
    run = trainer(tmp_path, max_epochs=1, logger=CSVLogger(tmp_path), num_sanity_val_steps=0)
    run.fit(module, datamodule=data)
    run.test(module, datamodule=data, verbose=False)
    samples = Path(run.log_dir) / "samples"
    counts = {file.name: len(file.read_text().splitlines()) for file in samples.iterdir()}
    assert counts == {"val_step_2.jsonl": 1, "test_step_2.jsonl": 3}


def test_predict_writes_sources_references_and_summaries_in_order(data, tmp_path, tokenizer) -> None:
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2))
    trainer(tmp_path).predict(module, datamodule=data)
    written = [json.loads(line) for line in (tmp_path / "summaries.jsonl").read_text().splitlines()]
    assert [(w["source"], w["reference"]) for w in written] == list(zip(DOCUMENTS, SUMMARIES, strict=True))
    assert all(isinstance(w["summary"], str) for w in written)


def test_samples_go_to_loggers_that_show_text(data, tmp_path, tokenizer) -> None:
    logger = TensorBoardLogger(tmp_path)
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2))
    trainer(tmp_path, logger=logger).validate(module, datamodule=data, verbose=False)
    logger.finalize("success")
    events = next(Path(logger.log_dir).glob("events*")).read_bytes()
    assert b"val/samples" in events
    assert b"the cat sat on the mat" in events


def test_empty_summaries_score_zero_and_are_counted(data, tmp_path, tokenizer) -> None:
    module = Summarizer(tiny_bart(len(tokenizer)), AdapterConfig(rank=2))
    module.generate = lambda inputs: [""] * len(inputs["input_ids"])
    with pytest.warns(UserWarning, match="3 of 3 texts generated in test are empty and score 0"):
        (metrics,) = trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert metrics["test/rouge1"] == 0.0


def test_bad_input_is_refused(data, tmp_path, tokenizer) -> None:
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\]"):
        Summarizer("x", label_smoothing=2)
    for arguments, message in {
        ("num_beams", 0): "`num_beams` must be at least 1",
        ("min_new_tokens", 65): "between 0 and `max_new_tokens` .64.",
        ("no_repeat_ngram_size", -1): "must be at least 0, not -1",
        ("top_p", 0.0): r"`top_p` must be in \(0, 1\]",
    }.items():
        with pytest.raises(ValueError, match=message):
            Decoding(**dict([arguments]))
    with pytest.raises(ValueError, match="tokens, but the backbone has embeddings for 10: give the data module"):
        trainer(tmp_path).test(Summarizer(tiny_bart(10), AdapterConfig(rank=2)), datamodule=data)


def test_without_rouge_score_nothing_is_built(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(ModuleNotFoundError, match=r"`Summarizer` needs rouge-score: pip install 'asym-lightning\[text"):
        Summarizer("x")


def test_backbones_that_do_not_suit_are_refused(tmp_path) -> None:
    config = tf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)
    config.save_pretrained(tmp_path)
    for arguments, message in (
        ({"backbone": str(tmp_path), "backbone_options": {"pretrained": False}}, r"is no encoder-decoder \(gpt2\)"),
        ({"backbone": str(tmp_path / "none")}, "there is no backbone"),
        (
            {"backbone": str(tmp_path), "backbone_options": {"model_args": {"n_layers": 2}}},
            "no field of the config .*: did you mean n_layer",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Summarizer(**arguments).configure_model()
