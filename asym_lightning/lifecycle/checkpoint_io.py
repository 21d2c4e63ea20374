"""Checkpoint files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from typing_extensions import override

from asym_lightning.core.either_lightning import either
from asym_lightning.core.files import atomic_file, remove_unfinished
from asym_lightning.core.private_names import set_inner_checkpoint_io
from asym_lightning.lifecycle.checkpoint_file import check_states, read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to write checkpoints, but beside where they belong, and then renamed.

    Lightning's own are moved from the system's temporary folder, which is a copy where that is another file system. A
    copy that is killed leaves half a file, and a process that is killed before leaves one that nobody removes.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        check_states(checkpoint.get("callbacks", {}))
        with atomic_file(path) as staging:
            torch.save(checkpoint, staging)

    @override
    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        if weights_only is False or "://" in str(path):  # by the user's own option: to trust the file
            return super().load_checkpoint(path, map_location, weights_only)
        return read_checkpoint(path)


def write_atomically(strategy: Strategy) -> None:
    """Let a strategy write its checkpoints by :class:`AtomicCheckpointIO`, unless it has a way of its own."""
    outer: Any = strategy.checkpoint_io
    plain = either(TorchCheckpointIO)
    if type(outer) in plain:
        strategy.checkpoint_io = AtomicCheckpointIO()
    elif type(getattr(outer, "checkpoint_io", None)) in plain:  # AsyncCheckpointIO, say
        set_inner_checkpoint_io(outer, AtomicCheckpointIO())


def remove_unfinished_files(trainer: Trainer) -> None:
    """Remove what a killed run has left in the folders that this one is going to write to; all processes call it.

    Without a logger that is not the run's own folder but the working directory, where others may be writing.
    """
    folders = {getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks}
    folders |= {trainer.log_dir} if trainer.loggers else set()
    if trainer.is_global_zero:
        for folder in folders:
            if folder and "://" not in str(folder):
                remove_unfinished(folder)
