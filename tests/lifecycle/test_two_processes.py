"""A data-parallel run that is resumed goes on in each process where that one was."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.lifecycle.runs import Own, data, differences, start
from tests.two_processes import in_two_processes

STEPS = 3  # of an epoch, in each process


def train(folder: Path, checkpoint: str | None = None) -> dict:
    saves = [] if checkpoint else [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)]
    module, trainer, events = start(folder, Own(), *saves, strategy="ddp", devices=2)
    # Nothing may come from what the process happens to start with; Lightning's order goes by the seed of the run.
    torch.manual_seed(os.getpid())
    # Rows are augmented in a worker, where each process draws something else.
    path = folder / checkpoint if checkpoint else None
    trainer.fit(module, data(num_workers=1), data(shuffle=False), ckpt_path=path, weights_only=True)
    state = {name: value for name, value in module.state_dict().items() if "_metrics" not in name}
    return {"state": state, "events": events.events, "next": torch.rand(2)}


def resume(folder: Path) -> list[dict]:
    """In mid-epoch and at the end of the first one's last batch."""
    return [train(folder, f"step={step}.ckpt") for step in (STEPS - 1, STEPS)]


def test_each_process_goes_on_as_it_would_have(tmp_path):
    whole = [outcome.value for outcome in in_two_processes(train, tmp_path)]
    assert whole[0]["events"] != whole[1]["events"]  # each sees rows of its own
    resumed = [outcome.value for outcome in in_two_processes(resume, tmp_path)]
    for process, expected in enumerate(whole):
        for found in resumed[process]:
            assert 0 < len(found["events"]) < len(expected["events"])
            assert found["events"] == expected["events"][-len(found["events"]) :]
            assert differences(found["state"], expected["state"]) == []
            assert torch.equal(found["next"], expected["next"])
