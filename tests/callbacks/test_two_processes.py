"""Schedules with data-parallel training on two CPU processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from lightning.pytorch import Callback, seed_everything
from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import AdapterCheckpoint, BNormMonitor, FreezeA, Milestones, RankScheduler
from tests.callbacks.foreign import Foreign, injection, loader, trainer

class Equal(Callback):
    def on_train_end(self, trainer, pl_module):
        for adapter in adapters_by_name(pl_module.net).values():
            assert adapter.rank == 3
            for factor in (adapter.factor_A, adapter.factor_B):
                mine = factor.detach().clone()
                torch.distributed.broadcast(mine, 0)
                assert torch.equal(mine, factor.detach())
        assert trainer.global_step == 12
        print("equal", flush=True)

if __name__ == "__main__":
    seed_everything(0)
    strategy, folder = sys.argv[2:]
    callbacks = [
        injection(adapter={"rank": 4, "scheme": "hB_zero_hA_rand"}),
        RankScheduler(Milestones({2: 2, 4: 6, 8: 3})),
        FreezeA(after_steps=3, orthonormalize=True),
        BNormMonitor(every_n_steps=2, file=f"{folder}/norms.csv"),
        AdapterCheckpoint(folder, "x"),
        Equal(),
    ]
    run = trainer(folder, *callbacks, strategy=strategy, devices=2, max_epochs=4, enable_checkpointing=True)
    run.fit(Foreign("configure_model"), loader(), loader())
"""


def run(strategy: str, folder: Path) -> subprocess.CompletedProcess:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(program), str(ROOT), strategy, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_processes_agree_to_the_bit_through_changes_of_rank_and_a_freeze(tmp_path):
    done = run("ddp_find_unused_parameters_true", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
    assert (tmp_path / "x.adapter").is_dir() and (tmp_path / "norms.csv").is_file()


@pytest.mark.slow
def test_a_later_freeze_that_ddp_would_hang_on_is_refused(tmp_path):
    done = run("ddp", tmp_path)
    assert done.returncode != 0
    assert "use `strategy: ddp_find_unused_parameters_true`" in done.stderr
