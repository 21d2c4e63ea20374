"""Small runs to kill: programs that train in a folder, or go on from a checkpoint there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from asym_lightning.adapters import save_adapters
from asym_lightning.callbacks import (
    AdapterCheckpoint,
    BNormMonitor,
    CalibrateA,
    FreezeA,
    Milestones,
    OrderSeed,
    RankScheduler,
    RedrawA,
    RunRecord,
)
from asym_lightning.cli import main
from asym_lightning.core.run_files import ADAPTER
from tests.callbacks.foreign import Foreign, injection, loader, trainer

EVERY = 2
WRITERS = (AdapterCheckpoint, ModelCheckpoint)
_OPTIONS: dict[str, Any] = {"filename": "{step}", "every_n_train_steps": EVERY}
_FEW_BATCHES = ("--data.num_train", "250", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "2")


def quickstart(folder: Path, writer: int, checkpoint: Path | None, *options: str) -> int:
    """The quickstart, short and with dropout."""
    os.chdir(folder)
    class_path = f"{WRITERS[writer].__module__}.{WRITERS[writer].__name__}"
    options_of_quickstart = {"monitor": None, "auto_insert_metric_name": True}  # others than it has
    callback = {"class_path": class_path, "init_args": {**_OPTIONS, **options_of_quickstart}}
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    command = ["fit", "--config", "quickstart", "--config", "callbacks.yaml", "--trainer.max_epochs", "4"]
    command += ["--model.adapter.dropout", "0.1", "--trainer.enable_progress_bar", "false", *_FEW_BATCHES]
    return main([*command, *options, *(("--ckpt_path", str(checkpoint)) if checkpoint else ())])


def in_two_processes(folder: Path, writer: int, checkpoint: Path | None) -> int:
    """The quickstart's half in each of two processes."""
    options = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.loader.batch_size", "25")
    return quickstart(folder, writer, checkpoint, *options)


def foreign(folder: Path, writer: int, checkpoint: Path | None) -> None:
    """Somebody's module with all callbacks of this package that change A or ranks by a plan."""
    callbacks = [FreezeA(after_steps=5, orthonormalize=True), RankScheduler(Milestones({3: 2, 9: 6, 15: 3}))]
    _train_foreign(folder, writer, checkpoint, "hB_zero_hA_rand", callbacks)


def foreign_chain(folder: Path, writer: int, checkpoint: Path | None) -> None:
    """The same with those that draw A anew, which a plan of ranks would contradict."""
    _train_foreign(folder, writer, checkpoint, "hB_zero_A_rand", [RedrawA(3, every_n_steps=7), FreezeA()])


def _train_foreign(folder: Path, writer: int, checkpoint: Path | None, scheme: str, callbacks: list[Any]) -> None:
    os.chdir(folder)
    seed_everything(0, verbose=False)
    run = trainer(
        folder,
        injection(adapter={"rank": 4, "scheme": scheme, "dropout": 0.1}),
        CalibrateA(num_batches=2, head_steps=1),
        *callbacks,
        OrderSeed(3),
        BNormMonitor(every_n_steps=EVERY),
        RunRecord(),
        WRITERS[writer](**_OPTIONS),
        max_epochs=4,
        enable_checkpointing=True,
        logger=CSVLogger("runs", name="foreign", version=0, flush_logs_every_n_steps=1),
    )
    module = Foreign("configure_model")
    run.fit(module, loader(shuffle=True), loader(), ckpt_path=checkpoint)
    save_adapters(module.net, Path(str(run.log_dir), ADAPTER))


@dataclass(frozen=True)
class Setting:
    """A kind of run to kill.

    Attributes:
        program: Trains, or goes on from a checkpoint: called with a folder, a number of `WRITERS` and the checkpoint.
        num_processes: Number of processes that are one run.
    """

    program: Callable[[Path, int, Path | None], int | None]
    num_processes: int = 1


SETTINGS = {
    "quickstart": Setting(quickstart),
    "foreign module": Setting(foreign),
    "foreign module, chain": Setting(foreign_chain),
    "two processes": Setting(in_two_processes, num_processes=2),
}
NUM_STEPS = 20
