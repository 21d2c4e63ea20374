"""Runs that train together equal runs by themselves: weights, metrics, random numbers, early stops, checkpoints."""

import functools

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.lifecycle.trained_together import Together
from asym_lightning.modules import ImageClassifier, ImageRegressor, MultiLabelImageClassifier
from tests.lifecycle.runs import Own, build_backbone, data, start


class Quiet(Own):
    """Without dropout, and with a rate of its own."""

    def __init__(self, rate=0.02, drops=0.0, **adapter):
        super().__init__(dropout=0.0, **adapter)
        self.optimizer = functools.partial(torch.optim.AdamW, lr=rate)
        self.drops = drops

    def build_backbone(self, source):
        backbone = build_backbone()
        backbone.dropout.p = self.drops
        return backbone


def runs(folder, **options):
    """Four that differ in seeds, rates, batch sizes and lengths; the second one stops early."""
    made = []
    for number, (rate, batch_size) in enumerate([(0.02, 4), (1e-9, 4), (0.01, 5), (0.005, 4)]):
        stop = EarlyStopping("val/loss", patience=1, min_delta=0.05)
        callbacks = [stop] if number == 1 else [ModelCheckpoint(monitor="val/loss")]
        module = Quiet(rate, seed=number, **options)
        path = folder / str(number)
        made.append((*start(path, module, *callbacks, seed=number, max_epochs=3), data(batch_size=batch_size)))
    return made


def fit(made, number):
    module, trainer, _, loader = made
    seed_everything(number, verbose=False)
    trainer.fit(module, loader, data(shuffle=False, batch_size=10))


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_hA_he"])
def test_runs_are_what_they_are_alone(scheme, tmp_path):
    alone, together = runs(tmp_path / "alone", scheme=scheme), runs(tmp_path / "together", scheme=scheme)
    for number, made in enumerate(alone):
        fit(made, number)
    group = Together()
    passes = []
    call = group.backbone.call
    group.backbone.call = lambda members, calls: passes.append(len(members)) or call(members, calls)
    for _, trainer, *_ in together:
        trainer.callbacks.append(group.callback())
    group.run([functools.partial(fit, made, number) for number, made in enumerate(together)])
    assert passes.count(4) + passes.count(3) + passes.count(2) > passes.count(1)
    for (module, trainer, trace, _), (expected, of_alone, of_trace, _) in zip(together, alone, strict=True):
        assert trainer.global_step == of_alone.global_step
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)
        for name, value in of_alone.callback_metrics.items():
            torch.testing.assert_close(trainer.callback_metrics[name], value, rtol=1e-5, atol=1e-5)
        states = [t.optimizers[0].state_dict()["state"] for t in (trainer, of_alone)]
        for ours, theirs in zip(states[0].values(), states[1].values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert [(hook.split()[0], *rest) for hook, *rest in trace.events] == [
            (hook.split()[0], *rest) for hook, *rest in of_trace.events
        ]  # batches, steps, and every random number
        assert "forward" not in vars(module.backbone)
        assert "backward" not in vars(module)
    assert [trainer.current_epoch for _, trainer, *_ in together] == [3, 2, 3, 3]
    files = [sorted(str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*.ckpt"))
             for name in ("alone", "together")]  # fmt: skip
    assert files[0] == files[1] != []


def of_different_tasks():
    """Modules over one backbone with one A, and data for each."""
    options = {"adapter": AdapterConfig(rank=2), "optimizer": functools.partial(torch.optim.AdamW, lr=0.01)}
    images = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(12)
    made = (
        (ImageClassifier, {"num_classes": 10}, numbers % 10),
        (ImageRegressor, {}, numbers / 12),
        (MultiLabelImageClassifier, {"label_names": ["even", "small", "odd"]},
         torch.stack([numbers % 2 == 0, numbers < 5, numbers % 2 == 1], dim=1).long()),
    )  # fmt: skip
    for kind, arguments, targets in made:
        seed_everything(0, verbose=False)
        yield kind("vit_digits", **arguments, **options), DataLoader(TensorDataset(images, targets), batch_size=4)


def test_modules_of_different_tasks_share_a_backbone_and_are_what_they_are_alone(tmp_path):
    def fit_task(module, loader, *callbacks):
        trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
                          callbacks=list(callbacks))  # fmt: skip
        seed_everything(0, verbose=False)
        trainer.fit(module, loader)

    alone, together, group, passes = list(of_different_tasks()), list(of_different_tasks()), Together(), []
    for module, loader in alone:
        fit_task(module, loader)
    call = group.backbone.call
    group.backbone.call = lambda members, calls: passes.append(len(members)) or call(members, calls)
    group.run([functools.partial(fit_task, *made, group.callback()) for made in together])
    assert passes == [3, 3, 3]
    weights = [module.backbone.blocks[0].mlp.fc1.weight.data_ptr() for module, _ in together]
    assert len(set(weights)) == 1
    for (module, _), (expected, _) in zip(together, alone, strict=True):
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)


def test_dropout_is_refused_before_anything_has_trained(tmp_path):
    group, errors, modules = Together(), [], [Quiet(drops=0.5, seed=seed) for seed in range(2)]

    def try_to_fit(module):
        module, trainer, _ = start(tmp_path, module)
        trainer.callbacks.append(group.callback())
        try:
            trainer.fit(module, data())
        except ValueError as error:
            errors.append(str(error))

    group.run([functools.partial(try_to_fit, module) for module in modules])
    assert len(errors) == 2
    assert all("draws random numbers in `dropout`" in error for error in errors)


def test_a_module_that_optimises_by_hand_is_refused(tmp_path):
    module, trainer, _ = start(tmp_path, Quiet())
    module.automatic_optimization = False
    trainer.callbacks.append(Together().callback())
    with pytest.raises(ValueError, match="Quiet optimises by hand"):
        trainer.fit(module, data())
