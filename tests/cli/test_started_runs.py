"""Which runs leave a directory behind."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from asym_lightning.cli.training import started_runs_only
from tests.callbacks.foreign import Foreign, injection, loader


class Fail(Callback):
    """Fails when that many steps are done: after the batch, or before the next one, when checkpoints are written."""

    def __init__(self, steps: int, *, is_saved: bool) -> None:
        self.steps = steps
        self.is_saved = is_saved

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        if self.is_saved and trainer.global_step == self.steps:
            raise ValueError("a wrong config")

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if not self.is_saved and trainer.global_step == self.steps:
            raise ValueError("a wrong config")


@pytest.mark.parametrize(("steps", "is_saved", "stays"), [(1, False, False), (1, True, True), (2, False, True)])
def test_one_that_fails_in_its_first_step_leaves_none_unless_there_is_a_checkpoint(steps, is_saved, stays, tmp_path):
    run = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[injection(), Fail(steps, is_saved=is_saved), *([ModelCheckpoint(every_n_train_steps=1)] * is_saved)],
        logger=CSVLogger(tmp_path / "runs", name="x"),
        enable_checkpointing=is_saved,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(ValueError, match="a wrong config"), started_runs_only(run):
        run.fit(Foreign(), loader())
    assert (tmp_path / "runs").exists() == stays
