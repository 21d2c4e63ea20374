"""The same callbacks for a second module, a second fit after a failed one, and what features of the Trainer change."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import BaseFinetuning, BatchSizeFinder, WeightAveraging

from asym_lightning.adapters import AdapterConfig, adapters_by_name, merge_adapters
from asym_lightning.callbacks import AdapterInjection, BNormMonitor, FreezeA, GrowOnStall, Milestones, RankScheduler
from tests.callbacks.foreign import Foreign, injection, loader, trainer
from tests.lifecycle import runs

TRAINED_A = {"scheme": "hB_zero_hA_rand"}


def ranks(module) -> list[int]:
    return [adapter.rank for adapter in adapters_by_name(module).values()]


def test_folds_with_the_same_callbacks_are_as_with_callbacks_of_their_own(tmp_path):
    def callbacks():
        grow = GrowOnStall("val/loss", max_rank=4, patience=1, min_delta=10.0)
        return [injection(adapter=TRAINED_A), RankScheduler(grow), FreezeA(after_steps=4)]

    shared, found, expected = callbacks(), [], []
    for fold in range(2):
        for used, results in ((shared, found), (callbacks(), expected)):
            torch.manual_seed(fold)
            module = Foreign()
            trainer(tmp_path, *used).fit(module, loader(), loader())
            results.append((ranks(module), [p.detach().clone() for p in module.parameters()]))
    for (ranks_found, now), (ranks_expected, own) in zip(found, expected, strict=True):
        assert ranks_found == ranks_expected
        assert all(torch.equal(a, b) for a, b in zip(now, own, strict=True))


def test_a_fit_after_one_that_failed_before_the_injection(tmp_path):
    class Fails(Foreign):
        fails = True

        def setup(self, stage: str) -> None:
            if self.fails:
                raise ValueError("no data")

    module = Fails("__init__")
    callback = injection()
    with pytest.raises(ValueError, match="no data"):
        trainer(tmp_path, callback).fit(module, loader())
    module.fails = False
    trainer(tmp_path, callback).fit(module, loader())
    assert all(adapter.B.any() for adapter in adapters_by_name(module).values())


def test_a_share_of_a_run_without_an_end_is_refused(tmp_path):
    run = trainer(
        tmp_path, injection(adapter=TRAINED_A), FreezeA(after_fraction=0.5), max_epochs=-1, max_time="00:01:00:00"
    )
    with pytest.raises(ValueError, match="`after_fraction` is a share of all steps of the run, which has no known end"):
        run.fit(Foreign(), loader())


def test_norms_are_watched_in_double_precision(tmp_path):
    run = trainer(tmp_path, injection(), BNormMonitor(every_n_steps=1), precision="64-true", max_epochs=1)
    run.fit(Foreign(), loader())
    assert run.global_step == 5


class Sized(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 2

    def train_dataloader(self):
        return runs.data(batch_size=self.batch_size)

    def val_dataloader(self):
        return runs.data(shuffle=False)


def test_a_schedule_is_counted_anew_when_the_batch_size_has_been_found(tmp_path):
    module, run, _ = runs.start(tmp_path, runs.Own(), BatchSizeFinder(steps_per_trial=1, max_trials=2), max_epochs=2)
    run.fit(module, data := Sized())
    schedule = run.lr_scheduler_configs[0].scheduler
    assert data.batch_size > 2
    assert schedule.num_steps == run.global_step == run.estimated_stepping_batches
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-9)


def test_two_trainers_on_one_module(tmp_path):
    module = Foreign()
    config = AdapterConfig(rank=2, targets=["first"])
    for _ in range(2):
        trainer(tmp_path, AdapterInjection(config, backbone="net", heads=["head"])).fit(module, loader())
    assert len(adapters_by_name(module)) == 1


class Erring(Foreign):
    """It does what can't work, until it is told better."""

    errs = True


class LackingOptimizer(Erring):
    """Its optimizer holds a part of the head."""

    def configure_optimizers(self):
        if self.errs:
            return torch.optim.SGD([{"params": [p]} for p in self.head.parameters()], lr=0.1)
        return super().configure_optimizers()


class Unfreezing(Erring):
    """It lets all train when it makes its optimizer."""

    def configure_optimizers(self):
        if self.errs:
            self.requires_grad_(True)
        return super().configure_optimizers()


class Freezing(Callback):
    """It freezes the backbone, adapters and all."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        pl_module.net.requires_grad_(False)


class Thawing(BaseFinetuning):
    """It freezes the backbone till later."""

    def freeze_before_training(self, pl_module) -> None:
        self.freeze(pl_module.net)

    def finetune_function(self, pl_module, epoch, optimizer) -> None:
        pass


BAD = {
    "backbone": (lambda: [injection(backbone="nett")], Foreign, "`backbone` 'nett' is no submodule of Foreign"),
    "head": (lambda: [injection(heads=["nonsense"])], Foreign, "`heads` entry 'nonsense' matches no module"),
    "target": (
        lambda: [injection(adapter={"targets": ["nonsense"]})],
        Foreign,
        "`targets` entry 'nonsense' matches no",
    ),
    "rank": (lambda: [injection(adapter={"rank": 40})], Foreign, "`rank` is 40, but `first` .*, `second` .*`exclude`"),
    "two injections": (lambda: [injection(), injection()], Foreign, "There are two AdapterInjection callbacks"),
    "optimizer": (lambda: [injection()], LackingOptimizer, "2 trained parameters are in none of .*`configure_optim"),
    "unfreezing": (lambda: [injection()], Unfreezing, "Frozen parameters have been unfrozen"),
    "other decider": (lambda: [injection(), Thawing()], Foreign, "Thawing freezes and unfreezes layers"),
    "average": (
        lambda: [injection(), RankScheduler(Milestones({0: 1, 4: 2})), WeightAveraging()],
        Foreign,
        "WeightAveraging averages factors",
    ),
    "undrawn": (
        lambda: [injection(adapter={"scheme": "hB_zero_A_whitened_gradient"})],
        Foreign,
        "is drawn from data and has not been yet",
    ),
    "freezing": (lambda: [injection(), Freezing()], Foreign, "Parameters that are to train have been frozen"),
}


def state_of(module) -> dict:
    """All that an injection may change of a module."""
    tensors = {name: (value.dtype, value.tolist()) for name, value in module.state_dict().items()}
    trains = {name: p.requires_grad for name, p in module.named_parameters()}
    parts = {name: (type(part), part.training, list(vars(part))) for name, part in module.named_modules()}
    hooks = {name: list(part._forward_pre_hooks) for name, part in module.named_modules()}
    return {"tensors": tensors, "trains": trains, "parts": parts, "hooks": hooks}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_work_is_refused_before_the_first_step_and_the_module_is_usable_again(case, tmp_path):
    callbacks, kind, message = BAD[case]
    module = kind()
    module.net.second.bfloat16()
    before = state_of(module)
    run = trainer(tmp_path, *callbacks())
    with pytest.raises((ValueError, RuntimeError), match=message):
        run.fit(module, loader())
    assert run.global_step == 0
    assert state_of(module) == before
    module.net.second.float()
    module.errs = False
    trainer(tmp_path).fit(copy.deepcopy(module), loader())  # adapted by nobody
    trainer(tmp_path, injection()).fit(module, loader())
    assert all(adapter.B.any() for adapter in adapters_by_name(module).values())


def test_of_a_callback_that_has_frozen_the_module_before_it_is_refused_the_cure_is_a_new_module(tmp_path):
    with pytest.raises(ValueError, match=r"leave that callback out.*frozen already, so build the module anew"):
        trainer(tmp_path, Thawing(), injection()).fit(Foreign(), loader())


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_callbacks_work_in_any_order(first, tmp_path):
    callbacks = [injection(), RankScheduler(Milestones({0: 1, 4: 2})), FreezeA(), BNormMonitor(every_n_steps=1)]
    module = Foreign()
    trainer(tmp_path, *callbacks[first:], *callbacks[:first]).fit(module, loader())
    assert {adapter.rank for adapter in adapters_by_name(module).values()} == {2}


def test_a_module_whose_ranks_have_grown_past_rank_is_validated_without_the_schedule(tmp_path):
    module = Foreign()
    run = trainer(tmp_path, injection(), RankScheduler(Milestones({0: 1, 4: 4})))
    run.fit(module, loader(), loader())
    scores = run.validate(module, loader(), verbose=False)
    assert trainer(tmp_path, injection()).validate(module, loader(), verbose=False) == scores


class Teaching(Foreign):
    """Its teacher follows its net, paired by the order of parameters."""

    def build(self) -> None:
        super().build()
        if not hasattr(self, "teacher"):
            self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, *args) -> None:
        with torch.no_grad():
            for p, q in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                p.mul_(0.9).add_(q, alpha=0.1)


class TeachingAdapted(Teaching):
    def build(self) -> None:
        Foreign.build(self)
        injection(heads=None).inject(self)
        super().build()


def test_a_copy_of_the_backbone_within_the_module_is_warned_of_with_the_cure(tmp_path):
    with pytest.warns(UserWarning, match=r"`teacher` is a copy of the backbone .*`AdapterInjection\(...\).inject"):
        injection(heads=None).inject(Teaching())
    module = TeachingAdapted()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is a copy of the backbone")
        trainer(tmp_path, injection(heads=None)).fit(module, loader())
    assert all(adapter.B.any() for adapter in adapters_by_name(module.teacher).values())


def test_a_merged_module_predicts_with_the_callbacks_that_trained_it(tmp_path):
    module, callbacks = Foreign(), [injection()]
    run = trainer(tmp_path, *callbacks)
    run.fit(module, loader())
    before = torch.cat(run.predict(module, loader()))
    merge_adapters(module)
    torch.testing.assert_close(torch.cat(trainer(tmp_path, *callbacks).predict(module, loader())), before)
    with pytest.raises(RuntimeError, match="adapters are merged"):
        trainer(tmp_path, *callbacks).fit(module, loader())
