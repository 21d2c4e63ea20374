"""LightningModules that know nothing of adapters."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.callbacks import AdapterInjection


class Net(nn.Module):
    """A backbone with two square layers and a normalisation."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.2)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.norm(self.first(x)))))


def build_net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Net()


class Project:
    """Someone's project but for the Lightning that it imports: `net`, `head` and an `aux` that is not trained.

    Args:
        form: Where they are built: `__init__`, `setup` or `configure_model`.
        lr: Learning rate of the AdamW made from `self.parameters()`.
    """

    def __init__(self, form: str = "__init__", lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.form = form
        self.lr = lr
        self.losses: list[float] = []
        if form == "__init__":
            self.build()

    def build(self) -> None:
        if hasattr(self, "net"):
            return
        with torch.random.fork_rng():
            torch.manual_seed(8)
            self.net = build_net()
            self.head = nn.Linear(12, 3)
            self.aux = nn.Linear(3, 3)

    def setup(self, stage: str) -> None:
        if self.form == "setup":
            self.build()

    def configure_model(self) -> None:
        if self.form == "configure_model":
            self.build()

    def forward(self, x: Tensor) -> Tensor:
        return self.aux(self.head(self.net(x)))

    def training_step(self, batch, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", F.cross_entropy(self(x), y))

    test_step = validation_step

    def predict_step(self, batch, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Foreign(Project, LightningModule):
    """It imports `lightning`."""


def loader(num: int = 40, *, shuffle: bool = False, batch_size: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(num, 12, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=shuffle)


def injection(**options) -> AdapterInjection:
    config = {"rank": 2, "targets": ["first", "second"], **options.pop("adapter", {})}
    return AdapterInjection(AdapterConfig(**config), **{"backbone": "net", "heads": ["head"], **options})


def trainer(path, *callbacks: Callback, kind: type[Trainer] = Trainer, **options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "default_root_dir": path,
    }
    return kind(callbacks=list(callbacks), **{**defaults, **options})
