"""The callbacks in a Lightning project that knows nothing of adapters.

`Classifier` and `Digits` stand for your own module and data: an ordinary module, its optimizer made from
`self.parameters()`. Nothing in them is for this library's sake.

    python examples/foreign_project.py                                                          # in Python
    python examples/foreign_project.py fit --config configs/callbacks/foreign_project.yaml      # in YAML

It needs scikit-learn for the images (`pip install 'asym-lightning[demo]'`) and takes seconds.
"""

from __future__ import annotations

import sys

import timm
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from asym_lightning.adapters import AdapterConfig
from asym_lightning.callbacks import (
    AdapterCheckpoint,
    AdapterInjection,
    BNormMonitor,
    FreezeA,
    Milestones,
    RankScheduler,
)


class Classifier(LightningModule):
    """A small vision transformer with a head of its own."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=8,
            patch_size=2,
            in_chans=1,
            embed_dim=48,
            depth=4,
            num_heads=3,
            num_classes=0,
        )
        self.head = nn.Linear(48, 10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, logged."""
        loss = self._loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same on other data."""
        self.log("val/loss", self._loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An ordinary optimizer of all parameters."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.head(self.backbone(images)), labels)


class Digits(LightningDataModule):
    """Handwritten digits."""

    def setup(self, stage: str) -> None:
        """Split the images."""
        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
        whole = TensorDataset(images, torch.as_tensor(digits.target))
        self.train, self.val = random_split(whole, [1500, len(whole) - 1500], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader:
        """Training batches, shuffled."""
        return DataLoader(self.train, batch_size=50, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Validation batches."""
        return DataLoader(self.val, batch_size=300)


def main() -> None:
    """Train with every callback."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=CSVLogger("runs", name="foreign_project"),
        callbacks=[
            AdapterInjection(AdapterConfig(rank=8, targets=["q", "k", "v"]), backbone="backbone", heads=["head"]),
            RankScheduler(Milestones({0: 2, 20: 8})),
            FreezeA(),
            BNormMonitor(every_n_steps=20),
            AdapterCheckpoint(filename="best", monitor="val/loss", save_last=True),
        ],
    )
    trainer.fit(Classifier(), Digits())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        LightningCLI(Classifier, Digits, trainer_defaults={"accelerator": "cpu", "max_epochs": 2})
    else:
        main()
