"""lightly: SimCLR as its examples write it, on `pytorch_lightning`, with its own head and loss."""

from __future__ import annotations

import pytorch_lightning
import torch
import torchvision
from life import Project
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Views(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, number):
        image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number))
        return [image + 0.1 * torch.rand(3, 32, 32), image + 0.1 * torch.rand(3, 32, 32)], number


class SimCLR(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
        self.projection_head = SimCLRProjectionHead(512, 32, 16)
        self.criterion = NTXentLoss()

    def forward(self, x):
        return self.projection_head(self.backbone(x).flatten(start_dim=1))

    def training_step(self, batch, batch_index):
        (x0, x1), _ = batch
        return self.criterion(self(x0), self(x1))

    def test_step(self, batch, batch_index):
        self.log("test/loss", self.training_step(batch, batch_index))

    def predict_step(self, batch, batch_index):
        return self.backbone(batch[0][0]).flatten(start_dim=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.06, momentum=0.9)


class Client(Project):
    lightning = pytorch_lightning
    backbone = "backbone"
    heads = ("projection_head",)
    adapter = {"targets": ["all-conv"]}

    def module(self):
        return SimCLR()

    def train_data(self):
        return DataLoader(Views(), batch_size=6, shuffle=True)

    def other_data(self):
        return DataLoader(Views(), batch_size=6)

    def fit(self, trainer, module, checkpoint):
        trainer.fit(module, self.train_data(), ckpt_path=checkpoint)
        return module
