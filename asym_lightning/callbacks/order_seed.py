"""Seed the order of the training samples apart from everything else."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from typing_extensions import override

from asym_lightning.core.kinds import Seed
from asym_lightning.core.options import CheckedArguments


class OrderSeed(CheckedArguments, Callback):
    """Set the random state anew when training starts, by a seed of its own.

    By then the model is built, so `seed_everything` decides how a new head starts and this seed decides in which
    order samples come and what dropout drops. With both apart a comparison can change one and hold the other.

    Data modules that order samples by a seed of their own, as the text modules do, are not affected.

    Args:
        seed: The seed.

    Example:
        >>> OrderSeed(3).seed
        3
    """

    def __init__(self, seed: Seed) -> None:
        self.seed = seed

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the state before the first batch is drawn; a resumed run restores its own instead."""
        if trainer.global_step == 0:
            seed_everything(self.seed + trainer.global_rank, verbose=False)
