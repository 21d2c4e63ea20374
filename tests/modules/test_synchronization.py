"""No step that logs nothing waits for a GPU: nothing in it looks at numbers on the device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from asym_lightning.callbacks import AdapterCheckpoint
from tests.synchronization import Synchronizations
from tests.tasks import CALLBACKS, TASKS, WITH_NUMBERS, config, foreign

STEPS = 4


class Watched(Callback):
    """Watches all steps but the first, for checks that are made once, and the last, when the epoch is logged."""

    def __init__(self) -> None:
        self.watch = Synchronizations()
        self._entered = ExitStack()

    def on_train_batch_start(self, trainer, pl_module, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self._entered.enter_context(self.watch)
            self.watch.add([*pl_module.parameters(), *pl_module.buffers()])
            self.watch.add(state for m in pl_module.modules() for state in tree_leaves(getattr(m, "metric_state", ())))
        if batch_idx == STEPS - 1:
            self._entered.close()
        elif batch_idx:
            self.watch.add(tree_leaves(batch))

    def on_exception(self, trainer, pl_module, exception) -> None:
        self._entered.close()


def fit(folder: Path, module: LightningModule, batch: Any, callbacks: Sequence[Callback] = ()) -> int:
    """Train on a batch over and over, and return how many operators were watched."""
    watched = Watched()
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[*callbacks, watched],
        enable_checkpointing=any(isinstance(callback, AdapterCheckpoint) for callback in callbacks),
    )  # fmt: skip
    batches = [copy.deepcopy(batch) for _ in range(STEPS)]  # each in memory of its own, as they come from disk
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return watched.watch.num_operators


ALL = {**TASKS, **WITH_NUMBERS}


@pytest.mark.parametrize("task", [pytest.param(t, marks=[pytest.mark.slow] * (", " in t)) for t in ALL])
def test_a_step_that_logs_nothing_never_waits(task, tmp_path) -> None:
    assert fit(tmp_path, *ALL[task](config())) > 300


@pytest.mark.parametrize(("scheme", "callbacks"), CALLBACKS)
def test_arms_and_callbacks_never_wait_either(scheme, callbacks, tmp_path) -> None:
    assert fit(tmp_path, *foreign(scheme, callbacks())) > 100


def test_what_waits_is_found() -> None:
    x = torch.randn(4, 2)
    waiting = {
        "item": lambda t: t.sum().item(),
        "truth": lambda t: bool(t.sum() > 0),
        "list": lambda t: (t + 1).tolist(),
        "copy": lambda t: t.view(-1).cpu(),
        "mask": lambda t: t[t > 0],
        "write by a mask": lambda t: t.clone().index_put_((t[:, 0] > 0,), torch.zeros(2)),
        "places": lambda t: t.nonzero(),
        "values": lambda t: t.unique(),
        "comparison": lambda t: torch.equal(t, t + 1),
    }
    for name, function in waiting.items():
        with Synchronizations([x]), pytest.raises(AssertionError, match="would wait"):
            function(x)
            pytest.fail(f"{name} was not found")
    with Synchronizations([x]) as watch:
        assert float(torch.ones(3).sum()) == 3  # it is not on the device
        (x * 2).sum()
    assert watch.num_operators > 3
