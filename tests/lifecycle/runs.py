"""Small runs that are resumed from every checkpoint they wrote, and compared with themselves uninterrupted."""

from __future__ import annotations

import dataclasses
import pickle
import random
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError

from asym_lightning.adapters import AdapterConfig
from asym_lightning.callbacks import AdapterInjection
from asym_lightning.core.random_state import random_state
from asym_lightning.modules import AdapterModule, StepOutput, WarmupSchedule

WIDTH = 6
ADAPTER = AdapterConfig(rank=2, targets=["first", "second"], heads=["head"], dropout=0.2)


class Noisy(Dataset):
    """Rows that are drawn at, with every generator there is, each time one is read, as augmentation does."""

    def __init__(self, num_rows: int = 20) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(num_rows, WIDTH, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand(WIDTH) + random.random() + float(np.random.rand())
        x = self.x[row] + 0.1 * noise
        return x, x.sum(dim=0, keepdim=True)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.dropout(self.norm(self.first(x)).relu())).relu())


def build_backbone() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Backbone()


class Own(AdapterModule):
    """A task of this package."""

    def __init__(self, scheduler: Any = None, **adapter: Any) -> None:
        super().__init__(
            "backbone",
            dataclasses.replace(ADAPTER, **adapter),
            optimizer=partial(torch.optim.AdamW, lr=0.02),
            scheduler=scheduler or WarmupSchedule(warmup=0.3),
        )

    def build_backbone(self, source: Any) -> nn.Module:
        return build_backbone()

    def build_metrics(self) -> MetricCollection:
        return MetricCollection({"mae": MeanAbsoluteError()})

    def step(self, batch: Any) -> StepOutput:
        x, y = batch
        predictions = self(x)
        return StepOutput(F.mse_loss(predictions, y), predictions, y)


class Foreign(LightningModule):
    """A project that knows nothing of adapters; its schedule asks for the number of steps, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.mse_loss(self.backbone(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", F.mse_loss(self.backbone(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Trace(Callback):
    """What happened, in order: the hook, the counters, and where every random generator is."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def _note(self, hook: str, trainer: Trainer) -> None:
        state = random_state()
        draws = zlib.crc32(
            pickle.dumps([state["torch"].tolist(), state["python"], state["numpy"]["state"]["key"].tolist()])
        )
        batches = trainer.fit_loop.epoch_loop._batches_that_stepped
        self.events.append((hook, trainer.current_epoch, trainer.global_step, batches, draws))

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._note("train_epoch_start", trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        rows = tuple(float(tensor.sum()) for tensor in tree_leaves(batch))
        self._note(f"train_batch_start {batch_idx} {rows}", trainer)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._note("train_epoch_end", trainer)

    def on_validation_start(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self._note("validation_start", trainer)

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self._note(f"validation_end {float(trainer.callback_metrics['val/loss']):.9g}", trainer)


def data(shuffle: bool = True, batch_size: int = 4, **options: Any) -> DataLoader:
    return DataLoader(Noisy(), batch_size=batch_size, shuffle=shuffle, **options)


def start(
    folder: Path,
    module: LightningModule,
    *callbacks: Callback,
    seed: int = 0,
    adapter: AdapterConfig = ADAPTER,
    **options: Any,
) -> tuple[LightningModule, Trainer, Trace]:
    """The module, a Trainer for it, with an AdapterInjection where it needs one, and what will happen."""
    seed_everything(seed, verbose=False)
    if isinstance(module, Foreign):
        callbacks = (AdapterInjection(adapter, backbone="backbone"), *callbacks)
    trace = Trace()
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return module, Trainer(callbacks=[*callbacks, trace], **{**defaults, **options}), trace


def result(module: LightningModule, trainer: Trainer) -> dict[str, Any]:
    """All that a run leaves that a resumed one has to leave too."""
    return {
        "state": {name: tensor.clone() for name, tensor in module.state_dict().items() if "_metrics" not in name},
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "random": random_state(),
        "validation": {n: v for n, v in trainer.callback_metrics.items() if n.startswith("val/")},
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
    }


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two results are not the same to the bit."""
    if isinstance(expected, torch.Tensor):
        return [] if torch.equal(found, expected) else [where]
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            return [f"{where}: {sorted(found)} instead of {sorted(expected)}"]
        return [line for key in expected for line in differences(found[key], expected[key], f"{where}/{key}")]
    if isinstance(expected, (list, tuple)):
        if len(found) != len(expected):
            return [f"{where}: {len(found)} instead of {len(expected)}"]
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for i, (f, e) in pairs for line in differences(f, e, f"{where}/{i}")]
    return [] if callable(expected) or found == expected else [f"{where}: {found} instead of {expected}"]
