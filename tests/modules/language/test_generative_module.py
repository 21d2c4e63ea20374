"""Texts that are generated in batches of rows of like length."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Trainer

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import AlpacaDataModule, LoaderOptions, SummarizationDataModule
from asym_lightning.modules import InstructionTuner, Summarizer
from asym_lightning.modules.language.decoding import Decoding
from tests.adapters.models import perturb
from tests.language_models import byte_tokenizer, tiny_bart, tiny_llama, write_jsonl

TEXTS = [("word " * length).strip() + f" {length}" for length in (2, 11, 5, 1, 8, 3, 9)]


def tuner(tokenizer, **options):
    return InstructionTuner(tiny_llama(len(tokenizer), initializer_range=0.2), **options), AlpacaDataModule


def summarizer(tokenizer, **options):
    return Summarizer(tiny_bart(len(tokenizer), init_std=0.5), **options), SummarizationDataModule


@pytest.mark.parametrize("num_beams", [1, 2])
@pytest.mark.parametrize("make", [tuner, summarizer])
def test_each_row_gets_in_a_batch_what_it_gets_alone_in_the_order_of_the_data(make, num_beams, tmp_path) -> None:
    tokenizer = byte_tokenizer()
    rows = [{"instruction": text, "output": "a", "document": text, "summary": "a"} for text in TEXTS]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    written, lengths = [], []
    for size in (1, 3):
        torch.manual_seed(0)
        decoding = Decoding(max_new_tokens=6, num_beams=num_beams)
        module, kind = make(tokenizer, adapter=AdapterConfig(rank=2), decoding=decoding)
        module.configure_model()
        perturb(module.backbone)
        options = {"num_val": 0} if kind is AlpacaDataModule else {}
        data = kind(predict=file, val=file, tokenizer=tokenizer, cache_dir=tmp_path / "cache",
                    loader=LoaderOptions(1, size), **options)  # fmt: skip
        folder = tmp_path / str(size)
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                          default_root_dir=folder)  # fmt: skip
        trainer.predict(module, data)
        lengths += [len(batch["row"]) for batch in data.predict_dataloader()[0]]
        (val,) = trainer.validate(module, data, verbose=False)
        lines = (folder / module.predictions_file).read_text().splitlines()
        written.append(([json.loads(line) for line in lines], {k: pytest.approx(v, abs=1e-5) for k, v in val.items()}))
    assert lengths == [1] * 7 + [3, 3, 1]
    alone, together = written
    assert together == alone
    given, _, generated = module.sample_keys
    assert all(text in row[given] for text, row in zip(TEXTS, alone[0], strict=True))
    assert len({row[generated] for row in alone[0]}) > 3  # else an exchange of rows would not show
