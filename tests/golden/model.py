"""The model that golden files are of; it must not change, or they say nothing of the format any more."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.callbacks import AdapterInjection

CONFIG = {"rank": 2, "alpha": 3, "targets": ["one", "two"], "heads": ["head"], "seed": 5, "rank_pattern": {"two": 3}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(5, 3)
        # Numbers that no generator draws, which may be another one some day.
        for parameter in self.parameters():
            values = torch.arange(parameter.numel(), dtype=torch.float32)
            parameter.data = torch.sin(values * 1.7 + parameter.ndim).reshape(parameter.shape) / 2

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def training_step(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01)


def inputs():
    return torch.cos(torch.arange(48, dtype=torch.float32)).reshape(8, 6)


def adapted():
    """Adapted, with B's that are not zero."""
    model = Net()
    inject_adapters(model, AdapterConfig(**CONFIG))
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if name.endswith("factor_B"):
            values = torch.arange(parameter.numel(), dtype=torch.float32)
            parameter.data = torch.cos(values + number).reshape(parameter.shape)
    return model


def fit(folder, epochs, checkpoint=None):
    """Train for some epochs, from a checkpoint or from the beginning; returns module and trainer."""
    torch.manual_seed(0)
    module = Module()
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[AdapterInjection(AdapterConfig(**CONFIG), backbone="net")],
    )  # fmt: skip
    data = TensorDataset(inputs(), torch.arange(8) % 3)
    trainer.fit(module, DataLoader(data, batch_size=4, shuffle=True), ckpt_path=checkpoint)
    return module, trainer
