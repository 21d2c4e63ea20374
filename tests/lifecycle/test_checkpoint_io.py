"""Checkpoint files, whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from asym_lightning.lifecycle.checkpoint_io import AtomicCheckpointIO
from tests.lifecycle.runs import Foreign, Own, data, start

KINDS = [Own, Foreign]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_checkpoint_that_fails_half_way_leaves_the_one_before_it_and_nothing_else(kind, tmp_path, monkeypatch):
    module, trainer, _ = start(tmp_path, kind(), ModelCheckpoint(tmp_path, "x"), max_epochs=1)
    trainer.fit(module, data())
    before = (tmp_path / "x.ckpt").read_bytes()
    whole = torch.save

    def fail_half_way(checkpoint, file) -> None:
        whole(checkpoint, file)
        os.truncate(file, 1000)
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_run_left_is_removed_by_the_next_one_and_other_files_stay(kind, tmp_path):
    for name in (".x.ckpt.0123abcd.saving", ".x.adapter.0123abcd.saving/part", ".other", "y.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    module, trainer, _ = start(tmp_path, kind(), ModelCheckpoint(tmp_path, "x"), max_epochs=1)
    trainer.fit(module, data())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other", "x.ckpt", "y.ckpt"]


def test_writing_in_the_background_is_whole_or_absent_too(tmp_path):
    module, trainer, _ = start(
        tmp_path, Own(), ModelCheckpoint(tmp_path, "x"), max_epochs=1, plugins=[AsyncCheckpointIO()]
    )
    trainer.fit(module, data())
    assert isinstance(trainer.strategy.checkpoint_io.checkpoint_io, AtomicCheckpointIO)
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["global_step"] == 5


def test_a_way_of_writing_that_the_user_chose_stays(tmp_path):
    written: list[Path] = []

    class Mine(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
            written.append(Path(path))
            super().save_checkpoint(checkpoint, path, storage_options)

    module, trainer, _ = start(tmp_path, Own(), ModelCheckpoint(tmp_path, "x"), max_epochs=1, plugins=[Mine()])
    trainer.fit(module, data())
    assert written == [tmp_path / "x.ckpt"]
