"""How often a run logs where nothing is said of it."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer


class LogEachEpoch(Callback):
    """Let a Trainer log at least once an epoch: of fewer batches than its interval of 50 steps it would log nothing."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten the interval, now that the number of batches is known."""
        batches = trainer.num_training_batches
        trainer.log_every_n_steps = int(min(trainer.log_every_n_steps, max(1, batches)))  # type: ignore[attr-defined]
