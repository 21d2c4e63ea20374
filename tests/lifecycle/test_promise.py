"""What trains and what stays is decided once, and watched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, ModelCheckpoint
from torch import nn

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import FreezeA, Milestones, RankScheduler
from tests.callbacks import foreign
from tests.lifecycle.runs import ADAPTER, Foreign, Own, data, start

KINDS = {"own": Own, "foreign": Foreign}


def fit(folder, module: LightningModule, *callbacks: Callback, **options) -> LightningModule:
    module, trainer, _ = start(folder, module, *callbacks, **options)
    trainer.fit(module, data(), data(shuffle=False))
    return module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("freeze", [[], [FreezeA]], ids=["plain", "FreezeA"])
def test_weights_that_the_optimizers_maker_unfreezes_are_refused_before_the_first_step(kind, freeze, tmp_path):
    class Unfreezing(KINDS[kind]):
        def configure_optimizers(self):
            self.requires_grad_(True)
            return super().configure_optimizers()

    module, trainer, _ = start(tmp_path, Unfreezing(), *(callback() for callback in freeze))
    with pytest.raises(RuntimeError, match=r"unfrozen.*`backbone\.first\.weight`.*`heads`"):
        trainer.fit(module, data())
    assert trainer.global_step == 0


class Set(Callback):
    """Sets `requires_grad` of everything in an epoch's beginning."""

    def __init__(self, value: bool, epoch: int = 0) -> None:
        self.value, self.epoch = value, epoch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            pl_module.requires_grad_(self.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_that_freezes_everything_is_refused_at_once(kind, tmp_path):
    with pytest.raises(RuntimeError, match=r"are to train have been frozen: .*factor_B"):
        fit(tmp_path, KINDS[kind](), Set(False))


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_that_unfreezes_in_mid_course_is_refused_at_once(kind, tmp_path):
    module, trainer, _ = start(tmp_path, KINDS[kind](), Set(True, epoch=1))
    with pytest.raises(RuntimeError, match="have been unfrozen"):
        trainer.fit(module, data())
    assert trainer.global_step == 5


class Freezing(BaseFinetuning):
    def freeze_before_training(self, pl_module) -> None:
        if hasattr(pl_module, "backbone"):
            self.freeze(pl_module.backbone.head)

    def finetune_function(self, pl_module, epoch, optimizer) -> None:
        pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("callback", [Freezing, lambda: BackboneFinetuning(1)], ids=["own", "BackboneFinetuning"])
def test_callbacks_that_decide_what_trains_are_refused_before_the_first_step(kind, callback, tmp_path):
    module, trainer, _ = start(tmp_path, KINDS[kind](), callback())
    with pytest.raises(ValueError, match=r"Freezing freezes|BackboneFinetuning freezes"):
        trainer.fit(module, data())
    assert trainer.global_step == 0


class Nudge(Callback):
    """Writes to a frozen weight, as an optimizer of somebody's own may."""

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if trainer.global_step == 3:
            with torch.no_grad():
                pl_module.backbone.second.weight.mul_(1.001)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_saved_of_a_run_whose_frozen_weights_have_moved(kind, tmp_path):
    module, trainer, _ = start(tmp_path, KINDS[kind](), Nudge(), ModelCheckpoint(tmp_path, "x"))
    with pytest.raises(RuntimeError, match=r"1 frozen parameters are not what they were.*`backbone\.second\.weight`"):
        trainer.fit(module, data())
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("kind", KINDS)
def test_factors_that_this_package_freezes_and_rotates_are_no_breach(kind, tmp_path):
    callbacks = [FreezeA(after_steps=4, orthonormalize=True), RankScheduler(Milestones({0: 1, 6: 2}))]
    both = replace(ADAPTER, scheme="hB_zero_hA_rand")
    module = Own(scheme=both.scheme) if kind == "own" else Foreign()
    fit(tmp_path, module, *callbacks, adapter=both)
    assert not any(a.factor_A.requires_grad for a in adapters_by_name(module).values())
    assert all(a.factor_B.requires_grad for a in adapters_by_name(module).values())


def test_what_is_outside_the_backbone_is_the_modules_where_no_heads_are_named(tmp_path):
    class Turns(foreign.Foreign):
        def on_train_epoch_start(self) -> None:
            self.aux.requires_grad_(self.current_epoch % 2 == 1)

    foreign.trainer(tmp_path, foreign.injection(heads=None)).fit(Turns(), foreign.loader())
    with pytest.raises(RuntimeError, match=r"have been unfrozen.*`aux"):
        foreign.trainer(tmp_path, foreign.injection()).fit(Turns(), foreign.loader())


def test_batch_normalisations_outside_the_backbone_keep_their_statistics(tmp_path):
    class Outside(foreign.Foreign):
        def build(self) -> None:
            super().build()
            if not hasattr(self, "norm"):
                self.norm = nn.BatchNorm1d(12)

        def forward(self, x):
            return super().forward(self.norm(x))

    module = Outside()
    foreign.trainer(tmp_path, foreign.injection()).fit(module, foreign.loader(), foreign.loader())
    assert module.norm.num_batches_tracked == 0
    assert not module.norm.running_mean.any()
