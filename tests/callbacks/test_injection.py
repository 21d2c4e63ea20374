"""Adapters in modules that know nothing of them."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    merge_adapters,
    remove_adapters,
)
from asym_lightning.callbacks import AdapterCheckpoint, AdapterInjection, Milestones, RankScheduler
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer

FORMS = ("__init__", "setup", "configure_model")
TRAINED = {"net.first.adapters.all.factor_B", "net.second.adapters.all.factor_B", "head.weight", "head.bias"}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    after = dict(module.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def snapshot(form: str) -> dict[str, torch.Tensor]:
    module = Foreign(form)
    module.build()
    injection().inject(module)
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("form", FORMS)
def test_adapters_and_head_train_and_nothing_else(form, tmp_path):
    module = Foreign(form)
    trainer(tmp_path, injection()).fit(module, loader())
    assert {name for name, p in module.named_parameters() if p.requires_grad} == TRAINED
    assert moved(module, snapshot(form)) == TRAINED


def test_running_statistics_of_a_frozen_batch_normalisation_do_not_drift(tmp_path):
    module = Foreign()
    trainer(tmp_path, injection()).fit(module, loader(), loader())
    fresh = build_net()
    assert torch.equal(module.net.norm.running_mean, fresh.norm.running_mean)
    assert module.net.norm.num_batches_tracked == 0


@pytest.mark.parametrize("form", FORMS)
def test_fits_twice_validates_tests_and_predicts(form, tmp_path):
    module = Foreign(form)
    first = trainer(tmp_path, injection())
    first.fit(module, loader(), loader())
    for run in (first, trainer(tmp_path, injection())):
        run.validate(module, loader(), verbose=False)
        run.test(module, loader(), verbose=False)
        assert len(run.predict(module, loader())) == 5
    run.fit(module, loader())
    assert len(adapter_layers(module)) == 2


def test_without_heads_what_is_outside_the_backbone_trains_as_the_module_made_it(tmp_path):
    module = Foreign()
    module.aux.requires_grad_(False)
    trainer(tmp_path, injection(heads=None)).fit(module, loader())
    assert moved(module, snapshot("__init__")) == TRAINED


def test_the_whole_module_is_adapted_if_no_backbone_is_named(tmp_path):
    module = Foreign()
    config = AdapterConfig(rank=2, targets=["first"], heads=["head", "aux"])
    trainer(tmp_path, AdapterInjection(config)).fit(module, loader())
    assert list(adapter_layers(module)) == ["net.first"]
    assert module.aux.weight.requires_grad and not module.net.second.weight.requires_grad


def test_a_head_within_the_backbone_can_be_named_from_the_module(tmp_path):
    module = Foreign()
    trainer(tmp_path, injection(adapter={"targets": ["first"]}, heads=["net.second", "head"])).fit(module, loader())
    assert module.net.second.weight.requires_grad
    assert not module.aux.weight.requires_grad


def test_draws_of_A_are_those_of_the_backbone_alone(tmp_path):
    module, net = Foreign("setup"), build_net()
    trainer(tmp_path, injection()).fit(module, loader())
    inject_adapters(net, AdapterConfig(rank=2, targets=["first", "second"]))
    assert torch.equal(module.net.first.adapters["all"].A, net.first.adapters["all"].A)


def test_a_compiled_backbone_is_adapted_under_its_own_names(tmp_path):
    module = Foreign()
    module.net = torch.compile(module.net, backend="eager")
    callback = injection()
    trainer(tmp_path, callback, max_steps=2).fit(module, loader())
    assert [row.layer for row in callback.report.layers] == ["first", "second"]
    assert module.net._orig_mod.first.adapters["all"].B.any()


# Optimizers


class OptimizerFromInit(Foreign):
    """Makes its optimizer before there are adapters, as LightningCLI's automatic one is made."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        half = len(list(self.net.parameters())) // 2
        parameters = list(self.parameters())
        split = [parameters] if groups == 1 else [parameters[:half], parameters[half:]]
        self.made = torch.optim.AdamW([{"params": p} for p in split], lr=1e-2, weight_decay=0.5)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.made, lambda step: 0.9**step)

    def configure_optimizers(self):
        return [self.made], [self.schedule]


def test_adapters_join_an_optimizer_that_was_made_without_them_and_frozen_weights_in_it_stay(tmp_path):
    module = OptimizerFromInit()
    trainer(tmp_path, injection()).fit(module, loader())
    assert len(module.made.param_groups) == 1
    assert moved(module, snapshot("__init__")) == TRAINED  # weight decay moved none of the frozen ones


def test_an_optimizer_with_several_groups_that_lacks_adapters_is_refused_before_the_first_step(tmp_path):
    module = OptimizerFromInit(groups=2)
    run = trainer(tmp_path, injection())
    with pytest.raises(RuntimeError, match=r"2 trained parameters are in none of the 1 optimizers.*net\.first\.adap"):
        run.fit(module, loader())
    assert run.global_step == 0


class TwoOptimizers(Foreign):
    """Manual optimization by turns."""

    def __init__(self, drop: str = "") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.drop = drop

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(x), y))
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        groups = [self.net.first.parameters(), [*self.net.second.parameters(), *self.head.parameters()]]
        return [torch.optim.SGD([p for p in group if p.requires_grad], lr=0.1) for group in groups]


def test_several_optimizers_and_manual_optimization(tmp_path):
    module = TwoOptimizers()
    trainer(tmp_path, injection()).fit(module, loader())
    assert moved(module, snapshot("__init__")) == TRAINED


def test_several_optimizers_that_lack_an_adapter_are_refused(tmp_path):
    class Lacking(TwoOptimizers):
        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net.first, self.head)]

    with pytest.raises(RuntimeError, match=r"in none of the 2 optimizers.*net\.second\.adapters\.all\.factor_B"):
        trainer(tmp_path, injection()).fit(Lacking(), loader())


def test_the_automatic_optimizer_of_the_command_line(tmp_path):
    cli = LightningCLI(
        Foreign,
        args=[
            "--optimizer=torch.optim.SGD",  # bitsandbytes has one too
            "--optimizer.lr=0.1",
            "--lr_scheduler=ExponentialLR",
            "--lr_scheduler.gamma=0.9",
            "--trainer.callbacks+=asym_lightning.callbacks.AdapterInjection",
            "--trainer.callbacks.backbone=net",
            "--trainer.callbacks.heads=[head]",
            "--trainer.callbacks.adapter.rank=2",
            "--trainer.callbacks.adapter.targets=[first,second]",
        ],
        run=False,
        trainer_defaults={
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
            "default_root_dir": str(tmp_path),
        },
        save_config_callback=None,
    )
    cli.trainer.fit(cli.model, loader())
    assert moved(cli.model, snapshot("__init__")) == TRAINED


# What stays untrained


class Bypassing(Foreign):
    """Reads a layer's weight and never calls the layer."""

    def forward(self, x):
        second = self.net.second
        hidden = torch.tanh(self.net.first(x))
        return self.aux(self.head(nn.functional.linear(hidden, second.weight, second.bias)))


def test_an_adapter_that_is_never_called_is_refused_after_the_first_step(tmp_path):
    run = trainer(tmp_path, injection())
    with pytest.raises(RuntimeError, match=r"1 adapters got no gradient in 1 step\(s\).*second\.all"):
        run.fit(Bypassing(), loader())
    assert run.global_step == 1


def test_layers_that_take_turns_pass_with_more_steps_to_check(tmp_path):
    class TakingTurns(Foreign):
        def training_step(self, batch, batch_idx):
            hidden = (self.net.first, self.net.second)[batch_idx % 2](batch[0])
            return self.aux(self.head(hidden)).square().mean()

    with pytest.raises(RuntimeError, match="take turns"):
        trainer(tmp_path, injection()).fit(TakingTurns(), loader())
    trainer(tmp_path, injection(check_after=2)).fit(TakingTurns(), loader())


# Bad input


@pytest.mark.parametrize(
    ("name", "message"),
    [("nett", "did you mean net"), ("xyz", "there are net, head, aux"), ("lr", "no submodule of Foreign")],
)
def test_a_backbone_that_does_not_exist_is_named_with_what_does(name, message, tmp_path):
    with pytest.raises(ValueError, match=f"`backbone` '{name}'.*{message}|{message}"):
        trainer(tmp_path, injection(backbone=name)).fit(Foreign(), loader())


def test_a_head_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`heads` entry 'haed' matches no module: did you mean head"):
        trainer(tmp_path, injection(heads=["haed"])).fit(Foreign(), loader())


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_an_adapted_module_saves_and_loads_for_itself(copied_by, tmp_path):
    module = Foreign()
    last = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)
    trainer(tmp_path, injection(), last, enable_checkpointing=True).fit(module, loader())
    trained = {name: parameter.clone() for name, parameter in module.named_parameters()}
    module.trainer = None
    copied = copied_by(module)
    with torch.no_grad():
        for name in TRAINED:
            module.get_parameter(name).zero_()
            copied.get_parameter(name).zero_()
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    copied.on_load_checkpoint(checkpoint)
    copied.load_state_dict(checkpoint["state_dict"])
    for name in TRAINED:
        assert torch.equal(copied.get_parameter(name), trained[name])
        assert not torch.equal(module.get_parameter(name), trained[name])
    filled = {"state_dict": copied.state_dict()}
    copied.on_save_checkpoint(filled)
    assert all(torch.equal(filled["state_dict"][name], trained[name]) for name in TRAINED)


def test_two_injections_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="two AdapterInjection callbacks"):
        trainer(tmp_path, injection(), injection(backbone="head")).fit(Foreign(), loader())


def test_a_module_that_is_adapted_already_by_another_configuration_is_refused(tmp_path):
    module = Foreign()
    inject_adapters(module.net, AdapterConfig(rank=4, targets=["first"]))
    with pytest.raises(RuntimeError, match="already adapted by another configuration"):
        trainer(tmp_path, injection()).fit(module, loader())


# Checkpoints


@pytest.mark.parametrize("kind", [ModelCheckpoint, AdapterCheckpoint])
@pytest.mark.parametrize("weights_only", [False, True])
def test_checkpoints_hold_what_was_trained(kind, weights_only, tmp_path):
    checkpoint = kind(tmp_path, filename="x", save_weights_only=weights_only)
    module = Foreign("configure_model")
    trainer(tmp_path, injection(), checkpoint, enable_checkpointing=True).fit(module, loader(), loader())
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad and ".adapters." not in name}
    assert frozen and not frozen & set(state)
    assert set(state) >= TRAINED | {"net.norm.running_mean", "net.first.adapters.all.factor_A"}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_is_tested_in_a_fresh_trainer_and_loaded_without_one(form, tmp_path):
    module = Foreign(form)
    checkpoint = ModelCheckpoint(tmp_path, filename="x")
    trainer(tmp_path, injection(), checkpoint, enable_checkpointing=True).fit(module, loader())
    expected = trainer(tmp_path, injection()).test(module, loader(), verbose=False)

    fresh = Foreign(form)
    assert trainer(tmp_path, injection()).test(fresh, loader(), tmp_path / "x.ckpt", verbose=False) == expected

    alone = Foreign(form)
    alone.build()
    injection().load(alone, tmp_path / "x.ckpt")
    x = next(iter(loader()))[0]
    torch.testing.assert_close(alone.eval()(x), module.eval()(x), atol=0, rtol=0)


class LeavingExtraStatesOut(Foreign):
    def on_load_checkpoint(self, checkpoint) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.endswith("_extra_state")}


def test_a_module_that_leaves_extra_states_out_of_checkpoints_has_its_ranks_back(tmp_path):
    def callbacks():
        return [injection(), RankScheduler(Milestones({0: 1, 3: 2}))]

    trained, fresh = LeavingExtraStatesOut(), LeavingExtraStatesOut()
    run = trainer(tmp_path, *callbacks(), max_steps=2)
    run.fit(trained, loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    scores = run.test(trained, loader(), verbose=False)
    assert trainer(tmp_path, *callbacks()).test(fresh, loader(), tmp_path / "x.ckpt", verbose=False) == scores
    assert {adapter.rank for adapter in adapters_by_name(fresh).values()} == {1}


@pytest.fixture
def saved(tmp_path):
    run = trainer(tmp_path, injection(), max_steps=1)
    run.fit(Foreign(), loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"rank": 3}, "`rank` should be 3, found 2"),
        ({"scheme": "hA_zero_B_rand"}, "`scheme` should be 'hA_zero_B_rand', found 'hB_zero_A_rand'"),
        ({"targets": ["first"]}, "`targets` should be"),
    ],
)
def test_a_checkpoint_of_another_rank_or_scheme_is_refused_before_training_starts(saved, adapter, message, tmp_path):
    run = trainer(tmp_path, injection(adapter=adapter))
    with pytest.raises(ValueError, match=message):
        run.fit(Foreign(), loader(), ckpt_path=saved)
    assert run.global_step == 0


def test_a_checkpoint_of_another_backbone_is_refused(saved, tmp_path):
    other = Foreign()
    with torch.no_grad():
        other.net.first.weight.add_(1)
    with pytest.raises(ValueError, match=r"another backbone: frozen `.*first\.weight` starts with"):
        trainer(tmp_path, injection()).fit(other, loader(), ckpt_path=saved)


def test_a_checkpoint_of_another_head_is_refused(saved, tmp_path):
    other = Foreign()
    other.head = nn.Linear(12, 4)
    other.aux = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"`head.weight` should be \(4, 12\), found \(3, 12\)|another backbone"):
        trainer(tmp_path, injection()).fit(other, loader(), ckpt_path=saved)


def test_a_checkpoint_of_a_plain_run_is_refused(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(Foreign(), loader())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match=r"does not fit the model: it lacks `net\.first\.adapters"):
        trainer(tmp_path, injection()).fit(Foreign(), loader(), ckpt_path=tmp_path / "plain.ckpt")


def test_random_numbers_of_a_resumed_run_go_on_and_those_of_a_new_one_do_not_jump(saved, tmp_path):
    module = Foreign()
    seed_everything(5, verbose=False)
    run = trainer(tmp_path, injection(), max_steps=1)
    run.test(module, loader(), ckpt_path=saved, verbose=False)
    after_test = torch.rand(1)
    seed_everything(5, verbose=False)
    trainer(tmp_path, injection(), max_steps=1).test(Foreign(), loader(), verbose=False)
    assert torch.equal(after_test, torch.rand(1))


@pytest.mark.parametrize("form", ["__init__", "configure_model"])
def test_a_module_is_made_from_its_checkpoint_in_one_call(form, tmp_path):
    module = Foreign(form, lr=0.5)
    run = trainer(tmp_path, injection())
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = injection().load_from_checkpoint(Foreign, tmp_path / "x.ckpt", lr=0.25)
    x = torch.ones(2, 12)
    assert type(loaded) is Foreign
    assert torch.equal(loaded.eval()(x), module.eval()(x))
    assert (loaded.form, loaded.lr) == (form, 0.25)
    with pytest.warns(UserWarning, match="not in the model state dict"):  # not silent
        Foreign.load_from_checkpoint(tmp_path / "x.ckpt", strict=False, weights_only=True)


class Keeping(Callback):
    """Keeps something in checkpoints, from an epoch on."""

    def __init__(self, what, epoch: int = 0) -> None:
        self.what, self.epoch, self.loaded = what, epoch, None
        self.is_time = epoch == 0

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.is_time = trainer.current_epoch >= self.epoch

    def state_dict(self):
        return {"kept": [self.what]} if self.is_time else {}

    def load_state_dict(self, state) -> None:
        self.loaded = state


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_state_that_could_not_be_read_again_is_refused_with_the_callbacks_name(epoch, tmp_path):
    run = trainer(
        tmp_path,
        injection(),
        Keeping(tmp_path, epoch),
        ModelCheckpoint(tmp_path, "{epoch}"),
        max_epochs=5,
        enable_checkpointing=True,
    )
    with pytest.raises(ValueError, match=r"state of the callback Keeping holds a PosixPath.*`str\(path\)`"):
        run.fit(Foreign(), loader())
    assert run.global_step <= 5 * (epoch + 1)
    assert len(list(tmp_path.glob("*.ckpt"))) == epoch


@pytest.mark.parametrize("what", [{"a": (1, None)}, OrderedDict(b=torch.ones(2)), torch.float32, {1, 2}])
def test_plain_states_are_kept_and_come_back(what, tmp_path):
    run = trainer(tmp_path, injection(), Keeping(what))
    run.fit(Foreign(), loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    again = Keeping(what)
    trainer(tmp_path, injection(), again, max_epochs=3).fit(
        Foreign(), loader(), ckpt_path=tmp_path / "x.ckpt", weights_only=True
    )
    assert str(again.loaded) == str({"kept": [what]})


def test_numbers_of_numpy_are_kept_as_plain_ones_wherever_they_are(tmp_path):
    class Cosine(Foreign):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: np.cos(epoch / 4))]

    run = trainer(tmp_path, injection(), Keeping((np.float64(0.5), np.int64(3))))
    run.fit(Cosine(), loader())
    assert isinstance(run.optimizers[0].param_groups[0]["lr"], np.floating)
    run.save_checkpoint(tmp_path / "x.ckpt")
    again = Keeping(None)
    trainer(tmp_path, injection(), again, max_epochs=3).fit(
        Cosine(), loader(), ckpt_path=tmp_path / "x.ckpt", weights_only=True
    )
    assert again.loaded == {"kept": [(0.5, 3)]}


def test_who_trusts_a_checkpoint_may_read_code_in_it(tmp_path):
    run = trainer(tmp_path, injection(), Keeping(""))
    run.fit(Foreign(), loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    checkpoint["callbacks"]["Keeping"] = {"kept": tmp_path}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"holds code \(`pathlib\.(_local\.)?PosixPath`\)"):
        trainer(tmp_path, injection()).fit(Foreign(), loader(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    again = Keeping("")
    trainer(tmp_path, injection(), again, max_epochs=3).fit(
        Foreign(), loader(), ckpt_path=tmp_path / "x.ckpt", weights_only=False
    )
    assert again.loaded == {"kept": tmp_path}
    with pytest.raises(ValueError, match=r"holds code \(`pathlib\.(_local\.)?PosixPath`\)"):
        injection().load(Foreign(), tmp_path / "x.ckpt")
    loaded = Foreign()
    injection().load(loaded, tmp_path / "x.ckpt", weights_only=False)
    made = injection().load_from_checkpoint(Foreign, tmp_path / "x.ckpt", weights_only=False)
    names = set(checkpoint["state_dict"])
    for state in (loaded.state_dict(), made.state_dict()):
        assert all(torch.equal(state[name], checkpoint["state_dict"][name]) for name in names)


@pytest.mark.parametrize("leave", [merge_adapters, remove_adapters])
def test_a_module_without_adapters_any_longer_has_checkpoints_of_its_own_again(leave, tmp_path):
    module, fit = Foreign(), trainer(tmp_path, injection())
    fit.fit(module, loader())
    leave(module.net)
    fit.save_checkpoint(tmp_path / "left.ckpt")
    loaded = Foreign.load_from_checkpoint(tmp_path / "left.ckpt", weights_only=True)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
