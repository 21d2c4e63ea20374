"""Callbacks that copy and average the module, on modules of this package and on others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import AdapterCheckpoint, FreezeA, Milestones, RankScheduler
from tests.lifecycle.runs import Foreign, Own, build_backbone, data, differences, result, start

KINDS = {"own": Own, "foreign": Foreign}


class Steps(Callback):
    """Keeps what trains after each step, or at the end of each epoch."""

    def __init__(self, *, at_epochs: bool = False) -> None:
        self.values: list[dict[str, torch.Tensor]] = []
        self.at_epochs = at_epochs

    def _note(self, module: nn.Module) -> None:
        self.values.append({name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad})

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if not self.at_epochs:
            self._note(pl_module)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if self.at_epochs:
            self._note(pl_module)


def fit(folder, kind: str, *callbacks: Callback, **options) -> LightningModule:
    module, trainer, _ = start(folder, KINDS[kind](), *callbacks, **options)
    trainer.fit(module, data(), data(shuffle=False))
    return module


def frozen_is_as_it_was(module: LightningModule) -> bool:
    fresh = build_backbone().state_dict()
    now = module.backbone.state_dict()
    return all(torch.equal(now[name], fresh[name]) for name in fresh if not name.startswith("head"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_first", [False, True], ids=["after", "before"])
def test_averages_are_of_what_trains_whatever_the_order_of_callbacks(kind, is_first, tmp_path):
    average, steps = EMAWeightAveraging(decay=0.9), Steps()
    if is_first:
        module, trainer, _ = start(tmp_path, KINDS[kind](), steps)
        trainer.callbacks.insert(0, average)
        trainer.fit(module, data(), data(shuffle=False))
    else:
        module = fit(tmp_path, kind, average, steps)
    expected = steps.values[0]
    for values in steps.values[1:]:
        expected = {name: torch.lerp(expected[name], value, 0.1) for name, value in values.items()}
    for name, value in expected.items():
        torch.testing.assert_close(module.get_parameter(name), value)
    assert len(expected) == 4 and frozen_is_as_it_was(module)


class Late(Callback):
    """Copies the module when the run starts, and averages many tensors in one call, as RF-DETR's callback does."""

    def on_fit_start(self, trainer, pl_module) -> None:
        self.average = AveragedModel(pl_module, multi_avg_fn=self.average_many)

    @staticmethod
    def average_many(averaged, values, number) -> None:
        for one, other in zip(averaged, values, strict=True):
            one.mul_(0.9).add_(other, alpha=0.1)

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.average.update_parameters(pl_module)

    def on_train_end(self, trainer, pl_module) -> None:
        pl_module.load_state_dict(self.average.module.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_first", [False, True], ids=["after", "before"])
def test_an_average_that_is_made_when_the_run_starts_leaves_frozen_weights_as_they_are(kind, is_first, tmp_path):
    late = Late()
    module, trainer, _ = start(tmp_path, KINDS[kind](), max_epochs=4)
    trainer.callbacks.insert(0 if is_first else len(trainer.callbacks), late)
    trainer.fit(module, data(), data(shuffle=False))
    assert late.average.n_averaged == trainer.global_step == 20
    assert frozen_is_as_it_was(module)


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_weight_averaging_averages_epochs_and_leaves_frozen_statistics(kind, tmp_path):
    average, epochs = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1), Steps(at_epochs=True)
    module = fit(tmp_path, kind, average, epochs, max_epochs=3)
    # It takes the weights with which each epoch begins.
    expected = {n: torch.stack([v[n] for v in epochs.values[:3]]).mean(0) for n in epochs.values[0]}
    for name, value in expected.items():
        torch.testing.assert_close(module.get_parameter(name), value)
    assert frozen_is_as_it_was(module)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "average",
    [lambda: EMAWeightAveraging(decay=0.9), lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)],
    ids=["ema", "swa"],
)
def test_checkpoints_are_small_and_resume_exactly(kind, average: Callable[[], Callback], tmp_path):
    whole, trainer, _ = start(
        tmp_path, KINDS[kind](), average(), ModelCheckpoint(tmp_path, "{step}", save_top_k=-1), max_epochs=3
    )
    trainer.fit(whole, data(), data(shuffle=False))
    expected = result(whole, trainer)
    path = tmp_path / "step=10.ckpt"
    checkpoint = torch.load(path, weights_only=True)

    def names(value) -> set[str]:
        if not isinstance(value, dict):
            return set()
        return {str(key) for key in value} | {name for inner in value.values() for name in names(inner)}

    assert not {name for name in names(checkpoint) if name.endswith("first.weight")} - names(
        checkpoint["adapter_description"]
    )
    resumed, trainer, _ = start(tmp_path / "resumed", KINDS[kind](), average(), seed=9, max_epochs=3)
    trainer.fit(resumed, data(), data(shuffle=False), ckpt_path=path, weights_only=True)
    assert differences(result(resumed, trainer)["state"], expected["state"]) == []


def test_adapter_and_checkpoint_of_an_average_are_the_same(tmp_path):
    checkpoint = AdapterCheckpoint(tmp_path, "x")
    module = fit(tmp_path, "foreign", EMAWeightAveraging(decay=0.9), checkpoint)
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    tensors = load_file(tmp_path / "x.adapter" / "adapter_model.safetensors")
    for name in adapters_by_name(module.backbone):
        layer = name.removesuffix(".all")
        B = state[f"backbone.{layer}.adapters.all.factor_B"]
        assert torch.equal(tensors[f"base_model.model.{layer}.lora_B.weight"], B)
    assert torch.equal(tensors["base_model.model.head.weight"], state["backbone.head.weight"])


@pytest.mark.parametrize(
    "changing",
    [
        lambda: RankScheduler(Milestones({0: 1, 3: 2})),
        lambda: FreezeA(after_steps=3),
        lambda: FreezeA(orthonormalize=True),
    ],
    ids=["ranks", "freeze", "orthonormalise"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_averages_of_factors_that_change_in_mid_course_are_refused_before_the_first_step(kind, changing, tmp_path):
    callback = changing()
    with pytest.raises(ValueError, match=rf"EMAWeightAveraging averages factors.*{type(callback).__name__} changes"):
        fit(tmp_path, kind, EMAWeightAveraging(), callback)


def test_a_freeze_at_the_start_goes_with_an_average(tmp_path):
    module = fit(tmp_path, "foreign", WeightAveraging(), FreezeA())
    assert all(adapter.B.any() for adapter in adapters_by_name(module).values())
