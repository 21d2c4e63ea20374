"""Freeze parameters that data-parallel training has been exchanging."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from asym_lightning.core.ddp import leave_frozen_out_of_ddp
from asym_lightning.core.either_lightning import either
from asym_lightning.lifecycle.backbone import adapted_backbone


def exchange_only_what_trains(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make DDP anew, between two steps and in all processes alike, after something has been frozen; else do nothing.

    DDP settles when it is made whose gradients it waits for, and would wait for those of the frozen ones. What is made
    anew are its buckets and hooks; the parameters are the same objects.
    """
    strategy = trainer.strategy
    if isinstance(strategy, either(DDPStrategy)) and isinstance(strategy.model, DistributedDataParallel):
        leave_frozen_out_of_ddp(pl_module, adapted_backbone(trainer, pl_module))
        strategy.model = pl_module
        strategy.configure_ddp()
