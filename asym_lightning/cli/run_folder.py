"""The folder of a run: one of its own whatever its loggers, and the same one when the run goes on."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from typing_extensions import override

from asym_lightning.cli.quiet import hush_own_folder
from asym_lightning.cli.run_checkpoints import best_checkpoint, newest_checkpoint, number_at_end
from asym_lightning.core.private_names import chooses_version, set_version
from asym_lightning.core.run_files import CONFIG, METRICS, RUNS, SHARDED_METADATA, find_checkpoints, read_config
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint

CHECKPOINTS = "checkpoints"
_REQUEUED = "hpc_ckpt_*.ckpt"  # what Lightning writes when SLURM announces that it is going to requeue a job


class RunTrainer(Trainer):
    """A Trainer that writes all that is a run's to one folder.

    Lightning knows such a folder for two of its loggers. With others, or none, every run would share one; and what a
    requeued job resumes from is looked for in the working directory, where it may be another job's.
    """

    folder: RunFolder | None = None
    """Where that is; None leaves it to Lightning."""

    @property
    @override
    def log_dir(self) -> str | None:
        return super().log_dir if self.folder is None else self.strategy.broadcast(self.folder.path)

    @property
    @override
    def default_root_dir(self) -> str:
        return super().default_root_dir if self.folder is None else self.folder.path


FolderLogger = CSVLogger | TensorBoardLogger


class RunFolder:
    """Where a run belongs.

    Args:
        trainer: Whose run it is; it writes to the folder once that is its :attr:`RunTrainer.folder`.
        config: Gives what the run was asked for, as it is going to be saved.
        name: What the runs of its task are called, where no logger says so.
    """

    def __init__(self, trainer: RunTrainer, config: Callable[[], Mapping[str, Any]], name: str = "default") -> None:
        self.trainer = trainer
        self.config = config
        own = next((logger for logger in trainer.loggers if isinstance(logger, FolderLogger)), None)
        self.logger: FolderLogger = own or CSVLogger(RUNS, name=name)
        # Files of runs are found by their logger, which stands last: the first is the user's `self.logger`.
        if own is None and trainer.loggers:
            trainer.loggers = [*trainer.loggers, self.logger]
        self._is_new = chooses_version(self.logger)

    @property
    def path(self) -> str:
        """The folder; until :meth:`claim` it may become another one."""
        return str(self.logger.log_dir)

    @property
    def siblings(self) -> Path:
        """Where this run's folder and those of its like are."""
        return Path(self.logger.save_dir or ".", str(self.logger.name or ""))

    def found(self, checkpoint: str | None, *, is_to_go_on: bool = True) -> str | None:
        """The path of a checkpoint that goes by one of Lightning's words `last` and `best`; others stay as they are.

        Lightning looks in the folder of the new run, where there is none.

        Args:
            checkpoint: The word.
            is_to_go_on: Whether training is to go on from it.

        Raises:
            FileNotFoundError: There is none; without a last one to go on from a run starts, as it does with Lightning.
            ValueError: There are several, and nothing says which is best.
        """
        if checkpoint not in ("last", "best"):
            return checkpoint
        folders = {str(self.siblings), *(str(c.dirpath) for c in _model_checkpoints(self.trainer) if c.dirpath)}
        newest = newest_checkpoint(path for folder in folders for path in find_checkpoints(folder))
        if newest is None and is_to_go_on and checkpoint == "last":
            return checkpoint
        if newest is None:
            raise FileNotFoundError(
                f"there is no {checkpoint} checkpoint yet: no run in {str(self.siblings)!r} wrote any."
            )
        return str(newest if checkpoint == "last" else best_checkpoint(newest.parent))

    def go_on_from(self, checkpoint: str) -> None:
        """Take the folder of the run that wrote a checkpoint, if it is where this run's folder is going to be."""
        folder = next((f for f in Path(checkpoint).parents[:2] if (f / CONFIG).is_file()), None)
        if folder is not None and folder.parent.resolve() == self.siblings.resolve():
            self._take(folder.name, checkpoint)

    def go_on_with_job(self) -> None:
        """Take the folder that this job of SLURM had before it was requeued, or a new one that goes by its number."""
        if not SLURMEnvironment.detect():
            return
        name = f"job_{_job()}"
        interrupted = [found.parent for found in sorted(self.siblings.glob(f"{name}*/{_REQUEUED}"))]
        same = [folder for folder in interrupted if self._was_asked_for_in(folder)]
        if same:
            self._take(same[0].name, str(max(same[0].glob(_REQUEUED), key=number_at_end)))
            return
        taken = sum(1 for _ in self.siblings.glob(f"{name}*"))
        self._take(f"{name}_{taken}" if taken else name)

    def claim(self) -> list[Path]:
        """Make the folder, and let callbacks that write checkpoints know it; returns what is new, innermost first.

        Of several runs that chose the same number at the same instant one makes the folder; the others choose again.
        """
        new: list[Path] = []
        if self.trainer.is_global_zero and "://" not in self.path:
            new = missing(self.path)
            while not self._make() and self._is_new:
                set_version(self.logger, None)
                new = missing(self.path)
        self._is_new = False
        if self.trainer.loggers and self.trainer.loggers[0] is not self.logger:
            for callback in _model_checkpoints(self.trainer):
                callback.dirpath = callback.dirpath or os.path.join(self.path, CHECKPOINTS)
        return new

    def _make(self) -> bool:
        """Make it; whether that was this call's doing. One that stands there already may be another run's."""
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.mkdir(self.path)
        except FileExistsError:
            if not os.path.isdir(self.path):
                raise
            return False
        return True

    def _take(self, version: str, checkpoint: str | None = None) -> None:
        if not chooses_version(self.logger):
            return
        self._is_new = False
        set_version(self.logger, version)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # it is set by a connector
            if isinstance(callback, SaveConfigCallback):
                callback.overwrite = checkpoint is not None
        if checkpoint is not None:
            hush_own_folder(self.path)
        if checkpoint is not None and isinstance(self.logger, CSVLogger) and self.trainer.is_global_zero:
            _keep_rows(self.logger, _step_of(checkpoint))

    def _was_asked_for_in(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file():
            return False
        saved, asked = read_config(folder), self.config()
        return all(saved.get(section) == asked.get(section) for section in ("model", "data", "trainer"))


def missing(folder: str | Path) -> list[Path]:
    """What is to be made for a folder to be there, innermost first."""
    return [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]


def remove_requeued(trainer: Trainer) -> None:
    """Remove what a requeued job would have resumed from, once the run is done; all processes have to call it."""
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        for path in Path(trainer.default_root_dir).glob(_REQUEUED):
            path.unlink(missing_ok=True)
    trainer.strategy.barrier()


def _job() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "0")


def _model_checkpoints(trainer: Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _step_of(checkpoint: str) -> int:
    if Path(checkpoint).is_dir():
        return int(torch.load(Path(checkpoint, SHARDED_METADATA), map_location="cpu", weights_only=True)["global_step"])
    return int(read_checkpoint(checkpoint)["global_step"])


def _keep_rows(logger: CSVLogger, step: int) -> None:
    """Let a logger keep what the run logged until a step; it would begin its file anew."""
    path = Path(logger.log_dir, METRICS)
    if not path.is_file():
        return
    with path.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file) if int(row["step"]) < step]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*directory .* exists and is not empty")
        logger.experiment.metrics.extend(rows)
    logger.save()
