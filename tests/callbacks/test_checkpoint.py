"""Checkpoints, the adapter directories beside them, and how large they are."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import peft
import pytest
import timm
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, load_adapters, save_adapters
from asym_lightning.callbacks import AdapterCheckpoint, AdapterInjection, Milestones, RankScheduler
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer


class Scored(Foreign):
    """Its validation score goes up and down."""

    def validation_step(self, batch, batch_idx):
        self.log("score", [3.0, 1.0, 4.0, 2.0][self.current_epoch])


def fit(path, *callbacks, module: LightningModule | None = None, **options):
    run = trainer(path, injection(), *callbacks, enable_checkpointing=True, max_epochs=4, **options)
    run.fit(module or Scored(), loader(), loader())
    return run


def names(path: Path) -> set[str]:
    return set(os.listdir(path))


def test_directories_come_and_go_with_their_checkpoints(tmp_path):
    checkpoint = AdapterCheckpoint(tmp_path, "{epoch}", monitor="score", mode="max", save_top_k=2, save_last=True)
    fit(tmp_path, checkpoint)
    kept = ("epoch=0", "epoch=2", "last")
    assert names(tmp_path) == {f"{name}{suffix}" for name in kept for suffix in (".ckpt", ".adapter")}
    assert Path(checkpoint.best_model_path).name == "epoch=2.ckpt"


def test_the_directory_is_the_adapter_at_that_time(tmp_path):
    fit(tmp_path, AdapterCheckpoint(tmp_path, "{epoch}", save_top_k=-1), RankScheduler(Milestones({8: 4})))
    for epoch, rank in ((0, 2), (3, 4)):
        net = build_net()
        load_adapters(net, tmp_path / f"epoch={epoch}.adapter")
        state = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second"):
            adapter = net.get_submodule(name).adapters["all"]
            assert adapter.rank == rank
            assert torch.equal(adapter.B, state[f"net.{name}.adapters.all.factor_B"][:, :rank])


def test_peft_reads_the_directory(tmp_path):
    module = Scored()
    fit(tmp_path, AdapterCheckpoint(tmp_path, "x"), module=module)
    theirs = peft.PeftModel.from_pretrained(build_net(), tmp_path / "x.adapter").eval()
    x = torch.randn(4, 12)
    torch.testing.assert_close(theirs(x), module.net.eval()(x), atol=1e-5, rtol=1e-5)


def test_every_n_steps_and_compact_directories(tmp_path):
    fit(tmp_path, AdapterCheckpoint(tmp_path, "{step}", every_n_train_steps=10, save_top_k=-1, include_frozen=False))
    assert {"step=10.adapter", "step=20.adapter"} < names(tmp_path)
    load_adapters(build_net(), tmp_path / "step=10.adapter")


def test_a_plain_checkpoint_beside_it_gets_no_directory(tmp_path):
    plain = ModelCheckpoint(tmp_path / "plain", "y")
    fit(tmp_path, AdapterCheckpoint(tmp_path / "ours", "x"), plain)
    assert names(tmp_path / "plain") == {"y.ckpt"}
    assert names(tmp_path / "ours") == {"x.ckpt", "x.adapter"}


def test_a_second_fit_writes_once(tmp_path):
    run = fit(tmp_path, AdapterCheckpoint(tmp_path, "x"))
    io = run.strategy.checkpoint_io
    run.fit_loop.max_epochs = 5
    run.fit(run.lightning_module, loader())
    assert run.strategy.checkpoint_io is io


def test_writing_in_the_background(tmp_path):
    fit(tmp_path, AdapterCheckpoint(tmp_path, "x"), plugins=[AsyncCheckpointIO()])
    assert names(tmp_path) == {"x.ckpt", "x.adapter"}
    torch.load(tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("what", ["save_with_outside", "torch.save"])
def test_a_save_that_fails_leaves_the_files_before_it_whole(what, tmp_path, monkeypatch):
    checkpoint = AdapterCheckpoint(tmp_path, "x", save_last=True)
    run = fit(tmp_path, checkpoint)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    module = torch if what == "torch.save" else importlib.import_module("asym_lightning.callbacks.checkpoint")
    monkeypatch.setattr(module, what.split(".")[-1], fail)
    with pytest.raises(OSError, match="no space left"):
        run.save_checkpoint(tmp_path / "x.ckpt")
    for path, data in before.items():
        if what == "save_with_outside" or path.suffix == ".ckpt":
            assert path.read_bytes() == data
    load_adapters(build_net(), tmp_path / "x.adapter")


def test_what_a_killed_run_left_goes_when_the_next_one_starts(tmp_path):
    left = [tmp_path / ".x.ckpt.0a1b2c3d.saving", tmp_path / ".x.adapter.0a1b2c3d.saving"]
    left[0].touch()
    left[1].mkdir()
    (tmp_path / ".hidden").touch()
    checkpoint = AdapterCheckpoint(tmp_path, "x")
    run = trainer(tmp_path, injection(), checkpoint, enable_checkpointing=True)
    run.validate(Scored(), loader(), verbose=False)  # while another process may be training
    assert all(path.exists() for path in left)
    fit(tmp_path, checkpoint)
    assert names(tmp_path) == {"x.ckpt", "x.adapter", ".hidden"}


def test_a_link_to_the_last_checkpoint_is_refused():
    with pytest.raises(ValueError, match="`save_last: link` would leave the adapter directory behind"):
        AdapterCheckpoint(save_last="link")


def test_a_remote_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="AdapterCheckpoint writes to local folders, `dirpath` is memory://"):
        fit(tmp_path, AdapterCheckpoint("memory://somewhere"))


class Diverging(Callback):
    """Writes NaN to a factor in the second epoch."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            pl_module.net.first.adapters["all"].factor_B.data[0, 0] = torch.nan


def test_a_run_that_diverges_ends_with_its_last_whole_checkpoint(tmp_path):
    checkpoint = AdapterCheckpoint(tmp_path, "{epoch}", save_last=True, save_on_train_epoch_end=True)
    with pytest.raises(
        ValueError, match=r"`net\.first\.adapters\.all\.factor_B` holds NaN .* no checkpoint is written"
    ):
        fit(tmp_path, Diverging(), checkpoint)
    assert names(tmp_path) == {"epoch=0.ckpt", "epoch=0.adapter", "last.ckpt", "last.adapter"}
    injection().load(Foreign(), tmp_path / "last.ckpt")
    injection().load(Foreign(), tmp_path / "last.adapter")


class Counting(nn.Module):
    """Keeps a number that no mode protects."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, x):
        if self.training:
            self.mean += 0.01 * x.detach().mean(0)
        return x - self.mean


class Centred(Scored):
    def build(self) -> None:
        super().build()
        if not isinstance(self.net.norm, Counting):
            self.net.norm = Counting()


def test_buffers_of_the_backbone_that_have_changed_are_in_the_directory(tmp_path):
    module = Centred()
    fit(tmp_path, AdapterCheckpoint(tmp_path, "x"), module=module)
    fresh = Centred()
    injection().load(fresh, tmp_path / "x.adapter")
    x = torch.ones(2, 12)
    assert module.net.norm.mean.any()
    assert torch.equal(fresh.eval()(x), module.eval()(x))


# How large


class Images(LightningModule):
    """A ViT-B/16 with random weights and a head of 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("vit_base_patch16_224", num_classes=10)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def test_a_checkpoint_of_a_large_vit_is_at_most_2_percent_of_what_lightning_writes(tmp_path):
    sizes = {}
    for name, callbacks in (("plain", []), ("ours", [AdapterInjection(AdapterConfig(rank=8), backbone="backbone")])):
        module = Images()
        if name == "plain":  # even with nothing but the head trained, so that there is no optimizer state to speak of
            module.backbone.requires_grad_(False)
            module.backbone.head.requires_grad_(True)
        data = DataLoader(TensorDataset(torch.randn(1, 3, 224, 224), torch.tensor([1])))
        run = trainer(tmp_path, *callbacks, max_epochs=1)
        run.fit(module, data)
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        sizes[name] = (tmp_path / f"{name}.ckpt").stat().st_size
    print(f"{sizes['ours']:,} of {sizes['plain']:,} bytes, {sizes['ours'] / sizes['plain']:.2%}")
    assert sizes["ours"] <= 0.02 * sizes["plain"]


def test_a_compact_adapter_file_is_at_most_055_of_pefts_lora_file(tmp_path):
    def square() -> nn.Module:
        return nn.ModuleDict({f"layer{i}": nn.Linear(256, 256) for i in range(12)})

    ours = square()
    AdapterInjection(AdapterConfig(rank=8, targets=["layer*"])).inject(ours)
    save_adapters(ours, tmp_path / "ours", include_frozen=False)
    theirs = peft.get_peft_model(square(), peft.LoraConfig(r=8, target_modules=[f"layer{i}" for i in range(12)]))
    theirs.save_pretrained(tmp_path / "theirs")
    sizes = [(tmp_path / who / "adapter_model.safetensors").stat().st_size for who in ("ours", "theirs")]
    print(f"{sizes[0]:,} of {sizes[1]:,} bytes, {sizes[0] / sizes[1]:.3f}")
    assert sizes[0] <= 0.55 * sizes[1]
