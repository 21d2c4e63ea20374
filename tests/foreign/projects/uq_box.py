"""uq-box (lightning-uq-box): regression with Monte Carlo dropout, which draws in prediction too."""

from __future__ import annotations

import torch
from life import Project
from lightning_uq_box.models import MLP
from lightning_uq_box.uq_methods import MCDropoutRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Curve(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, number):
        x = torch.tensor([number / 4.0])
        return {"input": x, "target": x.sin()}


class Client(Project):
    backbone = "model"
    heads = ("model.6",)
    adapter = {"targets": ["all-linear"]}

    def module(self):
        net = MLP(dropout_p=0.2, n_hidden=[16, 16], n_outputs=1, activation_fn=nn.Tanh())
        return MCDropoutRegression(net, num_mc_samples=5, loss_fn=nn.MSELoss())

    def train_data(self):
        return DataLoader(Curve(), batch_size=6, shuffle=True)

    def other_data(self):
        return DataLoader(Curve(), batch_size=6)

    def predict(self, trainer, module):
        return trainer.predict(module, DataLoader(torch.arange(24.0).unsqueeze(1) / 4, batch_size=6))

    def kept(self, module, folder):
        return None  # its checkpoints do not say of what model they are
