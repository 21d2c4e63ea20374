"""Precisions of the Trainer: what is kept in which dtype, and that it learns what float32 learns."""

from __future__ import annotations

import functools

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.callbacks import AdapterCheckpoint, FreezeA, Milestones, RankScheduler
from asym_lightning.modules import ImageClassifier
from tests.callbacks.foreign import Foreign, injection, loader, trainer


class Seen(Callback):
    """Dtypes and numbers when training starts, and dtypes that meet in a step."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        self.trained = {name for name, p in pl_module.named_parameters() if p.requires_grad}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.loss = outputs["loss"].detach()


def digits(num: int = 96) -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 10, (num,), generator=generator)
    rows = torch.nn.functional.one_hot(labels % 8, 8)[:, None, :, None] - 2.0 * (labels >= 8)[:, None, None, None]
    images = torch.rand(num, 1, 8, 8, generator=generator) + 3 * rows
    return DataLoader(TensorDataset(images, labels), batch_size=16)


def fit(folder, precision, *callbacks, path="auto", dropout=0.0, **options):
    seed_everything(1, verbose=False)
    module = ImageClassifier(
        "vit_digits",
        num_classes=10,
        adapter=AdapterConfig(rank=4, targets=["q", "k", "v", "mlp"], path=path, dropout=dropout, **options),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
    )
    seen = Seen()
    # On a CPU Lightning would take bfloat16 for float16, and no scaler.
    how = {"plugins": MixedPrecision(precision, "cpu")} if precision == "16-mixed" else {"precision": precision}
    run = Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=[seen, *callbacks],
        logger=False,
        enable_checkpointing=any(isinstance(c, AdapterCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **how,
    )
    run.fit(module, digits())
    return module, run, seen


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("float32"), "32-true")


@pytest.mark.parametrize(
    ("precision", "path", "dropout"),
    [
        ("bf16-mixed", "auto", 0.0),
        ("bf16-mixed", "packed", 0.0),
        ("bf16-mixed", "auto", 0.1),
        ("bf16-true", "auto", 0.0),
        ("bf16-true", "packed", 0.0),
        ("bf16-true", "auto", 0.1),
        ("16-mixed", "auto", 0.0),
        # A CPU takes its time over float16.
        pytest.param("16-mixed", "packed", 0.0, marks=pytest.mark.slow),
        pytest.param("16-mixed", "auto", 0.1, marks=pytest.mark.slow),
    ],
)
def test_it_learns_as_in_float32(precision, path, dropout, in_float32, tmp_path):
    module, run, seen = fit(tmp_path, precision, path=path, dropout=dropout)
    _, _, first = in_float32
    for name, parameter in module.named_parameters():
        is_narrow = precision == "bf16-true" and name not in first.trained and "factor" not in name
        assert parameter.dtype == (torch.bfloat16 if is_narrow else torch.float32), name
        if not is_narrow:  # drawn in float32 too
            assert torch.equal(seen.start[name], first.start[name]), name
    assert {p.dtype for p, state in run.optimizers[0].state.items()} == {torch.float32}
    moments = [state["exp_avg"] for state in run.optimizers[0].state.values()]
    assert {m.dtype for m in moments} == {torch.float32} and all(m.abs().sum() > 0 for m in moments)
    assert seen.trained == first.trained
    # From log(10) = 2.3 at the start to 1.05 in float32. A step left out for an overflow in float16 makes 0.1.
    assert first.loss < 1.5
    assert abs(float(seen.loss) - float(first.loss)) < 0.15
    if precision == "16-mixed":
        assert run.precision_plugin.scaler.get_scale() >= 1 and run.precision_plugin.state_dict()["_growth_tracker"] > 0


def test_ranks_change_and_A_is_frozen_in_bfloat16(tmp_path):
    changes = [RankScheduler(Milestones({4: 2, 10: 6})), FreezeA(after_steps=7, orthonormalize=True)]
    module, _, seen = fit(tmp_path, "bf16-true", *changes, scheme="hB_zero_hA_rand")
    assert {adapter.rank for adapter in adapters_by_name(module).values()} == {6}
    assert {p.dtype for adapter in adapters_by_name(module).values() for p in adapter.parameters()} == {torch.float32}
    assert float(seen.loss) < 1.7


def test_a_checkpoint_of_bfloat16_holds_what_was_trained_in_float32(tmp_path):
    module, _, seen = fit(tmp_path, "bf16-true", AdapterCheckpoint(tmp_path, "last"))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for name in seen.trained:
        assert state[name].dtype == torch.float32 and torch.equal(state[name], module.state_dict()[name])


@pytest.mark.parametrize("form", ["__init__", "setup", "configure_model"])
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_someone_elses_module_trains_adapters_and_heads_in_float32(form, precision, tmp_path):
    seed_everything(0, verbose=False)
    module = Foreign(form, lr=3e-2)
    run = trainer(tmp_path, injection(), precision=precision, max_epochs=8)
    run.fit(module, loader(), loader())
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert module.net.first.weight.dtype == (torch.bfloat16 if precision == "bf16-true" else torch.float32)
    assert {s["exp_avg"].dtype for s in run.optimizers[0].state.values()} == {torch.float32}
    assert sum(module.losses[-5:]) < sum(module.losses[:5])  # an epoch has 5 batches
