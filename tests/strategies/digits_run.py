"""A small run that is the same in one process and in two."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import ImageClassifier

GLOBAL_BATCH, NUM_STEPS = 8, 6
ARMS = {
    "b_only": AdapterConfig(rank=4, targets=["q", "k", "v", "o"]),
    "lora": AdapterConfig(rank=4, targets=["q", "k", "v", "o"], scheme="hB_zero_hA_he"),
    "full": None,
}


def classifier(arm: str, **adapter) -> ImageClassifier:
    config = ARMS[arm]
    # Not Adam, which blows up gradients that are zero but for rounding, such as that of k's bias in an attention.
    return ImageClassifier(
        "vit_digits",
        num_classes=10,
        adapter=config and AdapterConfig(**{**config.to_dict(), **adapter}),
        train_backbone=config is None,
        optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )


def digits() -> DataLoader:
    """Noise and labels, of which the global batches are the same ones in one process and in two."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(GLOBAL_BATCH * NUM_STEPS, 1, 8, 8, generator=generator)
    dataset = TensorDataset(images, torch.randint(0, 10, (len(images),), generator=generator))
    # A sampler that is not given would be Lightning's, which shuffles.
    sampler = DistributedSampler(dataset, num_processes(), int(os.environ.get("RANK", 0)), shuffle=False)
    return DataLoader(dataset, batch_size=GLOBAL_BATCH // num_processes(), sampler=sampler)


def num_processes() -> int:
    return 2 if "RANK" in os.environ else 1


def fit(folder: Path, module, *callbacks: Callback, ckpt_path=None, strategy="ddp", **options) -> Trainer:
    """Train on all processes of this run: one in the test itself, two, which need the strategy, in what it starts."""
    defaults = {"max_epochs": 1, "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
    trainer = Trainer(
        accelerator="cpu",
        devices=num_processes(),
        strategy=strategy if num_processes() > 1 else "auto",
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**defaults, **options},
    )
    seed_everything(0, verbose=False)
    trainer.fit(module, digits(), ckpt_path=ckpt_path, weights_only=True)
    return trainer
