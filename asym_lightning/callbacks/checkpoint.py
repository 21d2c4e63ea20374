"""Checkpoints with the adapter in PEFT's layout beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from asym_lightning.core.either_lightning import known_to_both
from asym_lightning.core.files import atomic_directory
from asym_lightning.core.kinds import Range
from asym_lightning.core.options import CheckedArguments
from asym_lightning.lifecycle.adapter_directory import save_with_outside
from asym_lightning.lifecycle.backbone import adapted_backbone, refuse_fsdp1
from asym_lightning.lifecycle.checkpoint_io import write_atomically

SUFFIX = ".adapter"


class AdapterCheckpoint(CheckedArguments, ModelCheckpoint):
    """A `ModelCheckpoint` that writes the directory `<name>.adapter` next to each `<name>.ckpt`.

    `peft` and `load_adapters` read the directory; it holds the adapter and the heads within the backbone, of the active
    rank only, and in a file beside them what trains outside the backbone, which `AdapterInjection.load` reads. It goes
    when the checkpoint goes. The `.ckpt` files hold what was trained, as they do with a plain `ModelCheckpoint`: that
    is the doing of AdapterInjection and of AdapterModule.

    Files and directories appear whole or not at all: they are written under a name that starts with a dot and ends with
    `.saving`, flushed to the disk and renamed, the directory first, so that next to a whole checkpoint there is a whole
    directory. What a killed run left unfinished is removed when the next one starts.

    Args:
        dirpath: Folder for the checkpoints, a local one; None means the run's own.
        filename: Name with placeholders, such as `{epoch}-{val/accuracy:.3f}`.
        monitor: Metric to rank checkpoints by; None keeps the latest.
        mode: `min` if less of the metric is better, `max` if more is.
        save_top_k: Number of checkpoints to keep; -1 means all.
        save_last: Also keep the latest as `last.ckpt`.
        every_n_train_steps: Steps between two checkpoints.
        every_n_epochs: Epochs between two checkpoints.
        include_frozen: False leaves out of the directory each frozen A that its seed gives back, which halves it, but
            `peft` can't read that form.
        **options: Further options of `ModelCheckpoint`.

    Raises:
        ValueError: If `save_last` is `link`, or, on start, `dirpath` is not local, or the Trainer is of
            `pytorch_lightning` and that was imported later than this was made.

    Example:
        >>> AdapterCheckpoint(monitor="val/accuracy", mode="max", save_top_k=2).save_top_k
        2
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: Annotated[int, Range(-1)] = 1,
        save_last: bool | Literal["link"] | None = None,  # as Lightning has it
        every_n_train_steps: int | None = None,
        every_n_epochs: int | None = None,
        include_frozen: bool = True,
        **options: Any,
    ) -> None:
        if save_last == "link":
            raise ValueError("`save_last: link` would leave the adapter directory behind; use true, files are small.")
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=save_last,
            every_n_train_steps=every_n_train_steps,
            every_n_epochs=every_n_epochs,
            **options,
        )
        self.include_frozen = include_frozen
        known_to_both(self)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the Trainer write through `AdapterCheckpointIO`."""
        super().setup(trainer, pl_module, stage)
        if self not in trainer.checkpoint_callbacks:
            raise ValueError(
                "The Trainer takes AdapterCheckpoint for no checkpoint callback, because it was made before "
                "`pytorch_lightning`, which the Trainer is of, was imported: make it afterwards."
            )
        if "://" in str(self.dirpath):
            raise ValueError(f"AdapterCheckpoint writes to local folders, `dirpath` is {self.dirpath}.")
        write_atomically(trainer.strategy)
        if getattr(trainer.strategy, "saves_shards", False):
            raise ValueError(
                "AdapterCheckpoint writes whole adapters, but `save_distributed_checkpoint: true` leaves them in "
                "shards; set it to false, or use a plain ModelCheckpoint."
            )
        refuse_fsdp1(trainer)
        io = trainer.strategy.checkpoint_io
        if not (isinstance(io, AdapterCheckpointIO) and io.owner is self):
            trainer.strategy.checkpoint_io = AdapterCheckpointIO(io, self, trainer)

    def save_adapter(self, module: LightningModule, backbone: nn.Module, path: Path, state: Mapping[str, Any]) -> None:
        """Write the directory that belongs to a checkpoint.

        Args:
            module: The module that is saved.
            backbone: Its adapted part.
            path: The checkpoint's path.
            state: What the checkpoint holds of the module: averages it may be, and whole where it is sharded.
        """
        with atomic_directory(path.with_suffix(SUFFIX)) as staging:
            save_with_outside(module, backbone, state, staging, include_frozen=self.include_frozen)


class AdapterCheckpointIO(CheckpointIO):
    """Writes and removes the adapter directories with the checkpoints of one callback's folder.

    Args:
        inner: What reads and writes the checkpoints themselves.
        owner: The callback whose folder it is.
        trainer: Whose module is saved.
    """

    def __init__(self, inner: CheckpointIO, owner: AdapterCheckpoint, trainer: Trainer) -> None:
        self.inner = inner
        self.owner = owner
        self._trainer = trainer

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the adapter directory and the checkpoint, each whole or not at all."""
        if self._is_owners(path):
            module = self._trainer.lightning_module
            backbone = adapted_backbone(self._trainer, module)
            self.owner.save_adapter(module, backbone, Path(path), checkpoint["state_dict"])
        self.inner.save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        return self.inner.load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, then its directory."""
        self.inner.remove_checkpoint(path)
        if self._is_owners(path):
            shutil.rmtree(Path(path).with_suffix(SUFFIX), ignore_errors=True)

    def teardown(self) -> None:
        """Let the inner one finish."""
        self.inner.teardown()

    def _is_owners(self, path: str | Path) -> bool:
        return "://" not in str(path) and Path(path).absolute().parent == Path(str(self.owner.dirpath)).absolute()
