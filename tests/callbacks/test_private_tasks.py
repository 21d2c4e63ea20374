"""Private training of this package's modules: classifiers train, instruction tuning is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers as tf
from lightning.pytorch import LightningDataModule, seed_everything
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.callbacks import PrivateTraining
from asym_lightning.data import DigitsDataModule
from asym_lightning.modules import ImageClassifier, InstructionTuner, TextClassifier
from tests.callbacks.foreign import trainer
from tests.language_models import byte_tokenizer, tiny_llama
from tests.text_stand_ins import tiny_bert_config

pytest.importorskip("opacus")

ADAPTER = AdapterConfig(rank=2, targets=["q", "v"])


def fit(path, module, data):
    seed_everything(0, verbose=False)
    private = PrivateTraining(8.0, 1e-3, accountant="rdp")
    trainer(path, private, max_steps=2, limit_val_batches=0).fit(module, data)
    assert private.spent() > 7.9
    adapters = adapters_by_name(module)
    assert adapters and all(adapter.B.any() for adapter in adapters.values())


def texts(*, with_labels: bool = True):
    """Thirty-two texts of different lengths, padded to the longest of their batch."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 40, (length % 7 + 3,), generator=generator) for length in range(32)]

    def collate(numbers):
        ids = torch.nn.utils.rnn.pad_sequence([rows[n] for n in numbers], batch_first=True)
        labels = torch.tensor([n % 2 for n in numbers]) if with_labels else ids.masked_fill(ids == 0, -100)
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}

    return DataLoader(range(32), batch_size=16, shuffle=True, collate_fn=collate)


@pytest.mark.slow
def test_images_are_classified(tmp_path):
    options = {"optimizer": partial(torch.optim.AdamW, lr=0.01)}
    fit(tmp_path, ImageClassifier("vit_digits", num_classes=10, adapter=ADAPTER, **options), DigitsDataModule())


def test_mixup_is_refused(tmp_path):
    module = ImageClassifier("vit_digits", num_classes=10, adapter=ADAPTER, mixup=0.5)
    with pytest.raises(ValueError, match="without weights of classes, mixup"):
        fit(tmp_path, module, DigitsDataModule())


@pytest.mark.slow
def test_texts_are_classified(tmp_path):
    backbone = tf.BertForSequenceClassification(tiny_bert_config(vocab_size=40))
    fit(tmp_path, TextClassifier(backbone, adapter=ADAPTER), texts())


def test_instruction_tuning_is_refused(tmp_path):
    class Data(LightningDataModule):
        tokenizer = byte_tokenizer()

        def train_dataloader(self):
            return texts(with_labels=False)

    module = InstructionTuner(tiny_llama(320), adapter=ADAPTER)
    with pytest.raises(ValueError, match="so its samples can't be told apart"):
        fit(tmp_path, module, Data())
