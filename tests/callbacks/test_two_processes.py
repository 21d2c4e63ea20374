"""Every callback, in someone else's module, with data-parallel training on two CPU processes."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import AdapterCheckpoint, BNormMonitor, FreezeA, Milestones, RankScheduler, RunRecord
from tests.callbacks.foreign import Foreign, injection, loader, trainer
from tests.two_processes import in_two_processes


def train(folder: Path) -> dict:
    seed_everything(0)
    callbacks = [
        injection(adapter={"rank": 4, "scheme": "hB_zero_hA_rand"}),
        RankScheduler(Milestones({2: 2, 4: 6, 8: 3})),
        FreezeA(after_steps=3, orthonormalize=True),
        BNormMonitor(every_n_steps=2),
        RunRecord(),
        AdapterCheckpoint(folder, "x"),
    ]
    run = trainer(folder, *callbacks, strategy="ddp", devices=2, max_epochs=4, enable_checkpointing=True)
    module = Foreign("configure_model")
    run.fit(module, loader(), loader())
    ranks = {adapter.rank for adapter in adapters_by_name(module.net).values()}
    return {"steps": run.global_step, "ranks": ranks, "state": module.state_dict()}


def test_processes_agree_to_the_bit_through_changes_of_rank_and_a_freeze(tmp_path):
    first, second = (outcome.value for outcome in in_two_processes(train, tmp_path))
    assert first["steps"] == second["steps"] == 12
    assert first["ranks"] == second["ranks"] == {3}
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert (tmp_path / "x.adapter").is_dir()
    assert (tmp_path / "b_norms.csv").is_file() and (tmp_path / "record.json").is_file()
