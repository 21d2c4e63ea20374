"""torchgeo: its ClassificationTask, which builds a timm model in `__init__`."""

from __future__ import annotations

import torch
from life import Project
from torch.utils.data import DataLoader, Dataset
from torchgeo.trainers import ClassificationTask


class Images(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        return {"image": torch.rand(3, 160, 160, generator=generator), "label": torch.tensor(number % 3)}


class Client(Project):
    backbone = "model"
    heads = ("head",)
    adapter = {"targets": ["q", "k", "v", "mlp"]}

    def module(self):
        return ClassificationTask("test_vit", num_classes=3, lr=1e-2)

    def train_data(self):
        return DataLoader(Images(), batch_size=4, shuffle=True)

    def other_data(self):
        return DataLoader(Images(), batch_size=4)
