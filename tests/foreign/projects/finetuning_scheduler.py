"""finetuning-scheduler: its callback, which thaws layers by a schedule, is refused; a module of BERT lives on."""

from __future__ import annotations

import torch
from finetuning_scheduler import FinetuningScheduler
from life import Project
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification


class Sentences(LightningModule):
    """A module as in its examples: a classifier of transformers as `model`."""

    def __init__(self):
        super().__init__()
        sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=16, num_labels=2))

    def training_step(self, batch, batch_index):
        loss = self.model(input_ids=batch[0], labels=batch[1]).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_index):
        self.log("val_loss", self.model(input_ids=batch[0], labels=batch[1]).loss)

    test_step = validation_step

    def predict_step(self, batch, batch_index):
        return self.model(input_ids=batch[0]).logits

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Client(Project):
    backbone = "model"
    heads = ("model.classifier",)
    adapter = {"targets": ["q", "v"]}
    refusal = "FinetuningScheduler freezes and unfreezes layers"

    def refused(self):
        return [FinetuningScheduler()]

    def module(self):
        return Sentences()

    def rows(self):
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(1, 30, (24, 6), generator=draw)
        return TensorDataset(tokens, tokens[:, 0] % 2)

    def train_data(self):
        return DataLoader(self.rows(), batch_size=6, shuffle=True)

    def other_data(self):
        return DataLoader(self.rows(), batch_size=6)
