"""Data-parallel runs in which something happens on the way: a freeze, a change of rank, an interruption, a death."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, load_adapters
from asym_lightning.callbacks import AdapterCheckpoint, FreezeA, Milestones, RankScheduler
from asym_lightning.modules.images.timm_backbone import create_timm_backbone
from tests.strategies.digits_run import ARMS, NUM_STEPS, classifier, fit, num_processes
from tests.two_processes import die, in_two_processes

RANKS = {2: 2, 4: 6}
FREEZE_AFTER = 3


class Exchanged(Callback):
    """Numbers that DDP has room for in its buckets, by step."""

    def __init__(self) -> None:
        self.by_step: list[int] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if num_processes() == 2:
            self.by_step.append(sum(p.numel() for p in trainer.model._module_parameters))


def train_with_changes(folder: Path) -> dict:
    """Both factors train; the rank changes twice, and A is frozen in between."""
    module, exchanged = classifier("lora"), Exchanged()
    changes = [RankScheduler(Milestones(RANKS)), FreezeA(after_steps=FREEZE_AFTER, orthonormalize=True)]
    fit(folder, module, *changes, exchanged)
    ranks = {adapter.rank for adapter in adapters_by_name(module).values()}
    return {"weights": module.state_dict(), "ranks": ranks, "exchanged": exchanged.by_step}


def train_with_accumulation(folder: Path) -> dict:
    """A is frozen at the end of an epoch by a metric that each process sees another value of."""
    module = classifier("lora")
    freeze = FreezeA(monitor="train/loss", patience=1, min_delta=1e9)
    fit(folder, module, freeze, max_epochs=3, accumulate_grad_batches=2)
    return {"weights": module.state_dict(), "frozen_at": freeze.frozen_at}


def train_half(folder: Path) -> None:
    checkpoint = AdapterCheckpoint(folder, "half", every_n_train_steps=NUM_STEPS // 2 + 1)
    fit(folder, classifier("b_only"), checkpoint, max_steps=NUM_STEPS // 2 + 1)


def train_the_rest(folder: Path) -> dict:
    module = classifier("b_only")
    fit(folder, module, AdapterCheckpoint(folder / "rest"), ckpt_path=folder / "half.ckpt")
    return module.state_dict()


class DieAfter(Callback):
    """End process 1 in the middle of the run."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 5:
            die(rank=1)


def train_until_one_dies(folder: Path) -> None:
    checkpoint = AdapterCheckpoint(folder, "{step}", every_n_train_steps=2, save_top_k=-1)
    fit(folder, classifier("b_only"), checkpoint, DieAfter())


def on_both(folder: Path) -> dict:
    """What takes two processes, in one start of them."""
    changed, accumulated = train_with_changes(folder / "changes"), train_with_accumulation(folder / "accumulation")
    train_half(folder / "by_two")
    rest = train_the_rest(folder / "by_one")
    return {"changed": changed, "accumulated": accumulated, "rest": rest}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def both(folder) -> list[dict]:
    train_half(folder / "by_one")
    return [outcome.value for outcome in in_two_processes(on_both, folder)]


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_rank_schedule_and_a_later_freeze_come_to_what_one_process_comes_to(both, tmp_path):
    one = train_with_changes(tmp_path)
    for process in both:
        assert process["changed"]["ranks"] == one["ranks"] == {6}
        assert_same(process["changed"]["weights"], one["weights"])
    for name, value in both[0]["changed"]["weights"].items():
        assert torch.equal(value, both[1]["changed"]["weights"][name]), name


def test_from_the_freeze_on_gradients_of_A_are_exchanged_no_longer(both):
    module = classifier("lora")
    module.adapter = AdapterConfig(**{**module.adapter.to_dict(), "max_rank": 6})
    module.configure_model()
    num_A = sum(adapter.factor_A.numel() for adapter in adapters_by_name(module).values())
    num_all = sum(p.numel() for p in module.parameters() if p.requires_grad)
    expected = [num_all] * FREEZE_AFTER + [num_all - num_A] * (NUM_STEPS - FREEZE_AFTER)
    assert both[0]["changed"]["exchanged"] == expected


def test_processes_freeze_together_by_a_metric_of_their_own(both):
    first, second = (process["accumulated"] for process in both)
    assert first["frozen_at"] == second["frozen_at"] is not None
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name


def test_a_run_of_two_processes_goes_on_in_one_and_the_other_way_round(both, folder, tmp_path):
    uninterrupted = classifier("b_only")
    fit(tmp_path, uninterrupted)
    assert_same(train_the_rest(folder / "by_two"), uninterrupted.state_dict())
    for process in both:
        assert_same(process["rest"], uninterrupted.state_dict())
    half = torch.load(folder / "by_two" / "half.ckpt", weights_only=True)["state_dict"]
    assert any(
        (half[name] - value).abs().max() > 1e-3 for name, value in uninterrupted.state_dict().items() if name in half
    )


def test_when_a_process_dies_the_other_ends_with_an_error_and_the_newest_checkpoint_is_whole(tmp_path):
    first, second = in_two_processes(train_until_one_dies, tmp_path, check=False, timeout=120)
    assert second.exit_code == -signal.SIGKILL
    assert first.exit_code == 1 and "Error" in first.error
    newest = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert newest.stem == "step=4"
    assert torch.load(newest, weights_only=True)["global_step"] == 4
    backbone = create_timm_backbone("vit_digits", 10)
    inject_adapters(backbone, ARMS["b_only"])
    load_adapters(backbone, newest.with_suffix(".adapter"))
    assert any(adapter.factor_B.abs().sum() > 0 for adapter in adapters_by_name(backbone).values())
