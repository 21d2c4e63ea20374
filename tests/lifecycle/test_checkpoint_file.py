import os
import zipfile

import pytest
import torch

from asym_lightning.lifecycle.checkpoint_file import read_checkpoint
from benchmarks.malformed.checkpoints import READERS, named_cases, sound
from benchmarks.malformed.judge import judge

NAMED = {case.name: case for case in named_cases()}


def test_a_sound_checkpoint_is_read_by_all(tmp_path):
    torch.save(sound(), tmp_path / "model.ckpt")
    for read in READERS.values():
        read(tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_what_once_ended_badly_is_refused(name):
    verdict = judge("checkpoints", NAMED[name])
    assert verdict.is_good, f"{verdict.kind}: {verdict.message}"


class Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_is_named_and_not_run(tmp_path):
    torch.save({**sound(), "more": Code(tmp_path / "was_run")}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"model.ckpt` holds code \(`posix.system`\), which is not run"):
        read_checkpoint(tmp_path / "model.ckpt")
    assert not (tmp_path / "was_run").exists()


def test_weights_alone_are_enough_unless_training_is_to_go_on(tmp_path):
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, tmp_path / "model.ckpt")
    assert read_checkpoint(tmp_path / "model.ckpt")["state_dict"] == {}
    with pytest.raises(ValueError, match="`save_weights_only: true`"):
        read_checkpoint(tmp_path / "model.ckpt", is_to_go_on=True)


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    assert (tmp_path / "bomb.ckpt").stat().st_size < 10**6
    with pytest.raises(ValueError, match="not a checkpoint that PyTorch wrote"):
        read_checkpoint(tmp_path / "bomb.ckpt")
