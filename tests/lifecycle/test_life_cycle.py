"""A module with adapters lives the same life whether it is an AdapterModule or has an AdapterInjection."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional as F

from asym_lightning.core.random_state import set_random_state
from tests.lifecycle.runs import Foreign, Own, data, start

KINDS = [Own, Foreign]


def fitted(folder, module, **options):
    module, trainer, _ = start(folder, module, **{"max_epochs": 1, **options})
    trainer.fit(module, data())
    return module, trainer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied_by", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_frozen_batch_norms_stay_in_evaluation_mode_whoever_calls_train(kind, copied_by, tmp_path):
    module, _ = fitted(tmp_path, kind())
    module.trainer = None
    if kind is Own:
        module.optimizer = torch.optim.AdamW  # a partial of a lambda can't be pickled
        module.scheduler = None
    backbone = copied_by(module).backbone
    backbone.eval()
    backbone.train()
    assert backbone.dropout.training and not backbone.norm.training
    backbone.norm.requires_grad_(True)
    assert backbone.train().norm.training


class WithNorms(Foreign):
    """Has batch norms beside the backbone: a frozen one, and one without parameters, of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(1).requires_grad_(False)
        self.of_head = nn.BatchNorm1d(1, affine=False)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.of_head(self.frozen(self.backbone(batch[0]))), batch[1])


def test_batch_norms_beside_the_backbone_stay_as_they_are_if_they_are_frozen(tmp_path):
    module, _ = fitted(tmp_path, WithNorms())
    assert module.frozen.num_batches_tracked == 0
    assert module.of_head.num_batches_tracked == 5


def past(layer, x):
    """What a layer gives without a call of it, by a way that its host's source does not tell."""
    return F.linear(x, layer.get_parameter("weight"), layer.get_parameter("bias"))


def read(self, x):
    return self.head(past(self.second, self.first(x).relu()))


def bypassing(kind, forward=read):
    """A module whose backbone reads a layer's weight and does not call the layer."""
    module = kind()
    if kind is Own:
        build = module.build_backbone
        module.build_backbone = lambda source: _with_forward(build(source), forward)
    else:
        _with_forward(module.backbone, forward)
    return module


def _with_forward(backbone, forward):
    backbone.__class__ = type("Bypassing", (type(backbone),), {"forward": forward})
    return backbone


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_without_a_gradient_is_refused_by_the_same_sentence(kind, tmp_path):
    with pytest.raises(RuntimeError, match=r"1 adapters got no gradient in 1 step\(s\) .* `exclude` .*second\.all"):
        fitted(tmp_path, bypassing(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_the_first_evaluation_goes_past_is_named_once(kind, tmp_path):
    def forward(self, x):
        x = self.first(x).relu()
        return self.head(self.second(x) if self.training else past(self.second, x))

    def hooks():
        return sum(len(part._forward_pre_hooks) for part in module.backbone.modules())

    module, trainer = fitted(tmp_path, bypassing(kind, forward))
    num_hooks = hooks()
    with pytest.warns(UserWarning, match=r"1 adapted layers were not called in the first batch .*`[a-z.]*second`"):
        trainer.validate(module, data())
    assert hooks() == num_hooks
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*were not called")
        trainer.validate(module, data())
        module, trainer = fitted(tmp_path / "other", kind())
        trainer.validate(module, data())


class LacksAdapters:
    def configure_optimizers(self):
        return [torch.optim.SGD([p], lr=0.1) for p in self.backbone.head.parameters()]

    automatic_optimization = False


class OwnLacks(LacksAdapters, Own):
    pass


class ForeignLacks(LacksAdapters, Foreign):
    pass


@pytest.mark.parametrize("kind", [OwnLacks, ForeignLacks])
def test_optimizers_that_lack_an_adapter_are_refused_before_the_first_step(kind, tmp_path):
    with pytest.raises(RuntimeError, match=r"2 trained parameters are in none of the 2 optimizers.*factor_B"):
        fitted(tmp_path, kind())


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_training_has_the_place_of_each_process_and_one_of_weights_has_none(kind, tmp_path):
    _, trainer = fitted(tmp_path, kind())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    expected = torch.rand(2)
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    (place,) = checkpoint["places"]
    set_random_state(place["random_state"])
    assert torch.equal(torch.rand(2), expected)
    assert "random_state" not in checkpoint
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert "places" not in torch.load(tmp_path / "weights.ckpt", weights_only=True)


class WithoutLifeCycle(Own):
    def configure_callbacks(self):
        return [Callback()]


class WithMore(Own):
    def configure_callbacks(self):
        return [*super().configure_callbacks(), Callback()]


def test_an_override_that_leaves_the_life_cycle_out_is_refused_by_one_sentence(tmp_path):
    with pytest.raises(RuntimeError, match=r"`configure_callbacks` of WithoutLifeCycle leaves out .*`\[\*super\(\)"):
        fitted(tmp_path, WithoutLifeCycle())
    fitted(tmp_path, WithMore())


def test_the_same_trainer_fits_and_tests_with_one_life_cycle(tmp_path):
    module, trainer = fitted(tmp_path, Own())
    before = list(trainer.callbacks)
    trainer.validate(module, data(shuffle=False), verbose=False)
    assert trainer.callbacks == before


@pytest.mark.parametrize("kind", KINDS)
def test_strategies_whose_processes_end_with_what_they_trained_are_refused(kind, tmp_path):
    with pytest.raises(Exception, match=r"`ddp_fork` and `ddp_notebook` do: set `strategy='ddp'`"):
        fitted(tmp_path, kind(), strategy="ddp_fork", devices=1)
