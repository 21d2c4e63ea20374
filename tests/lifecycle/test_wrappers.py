"""What wraps a module has no part in names: of layers, of A's draw, of checkpoints and of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from asym_lightning.adapters import adapters_by_name, inject_adapters, load_adapters, merge_adapters
from asym_lightning.callbacks import AdapterCheckpoint, AdapterInjection
from tests.lifecycle.runs import ADAPTER, Foreign, build_backbone, data, differences, start


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = build_backbone()

    def forward(self, x):
        return self.inner(x)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


class Wrapped(Foreign):
    """Wraps its whole backbone, a module in it, or one of its layers."""

    def __init__(self, wrapper=None, place: str = "inner") -> None:
        super().__init__()
        self.backbone = Nested()
        if wrapper is not None:
            holder, _, name = f"backbone.{place}".removesuffix(".").rpartition(".")
            parent = self.get_submodule(holder)
            setattr(parent, name, wrapper(getattr(parent, name)))


def fit(folder: Path, module: nn.Module, checkpoint: Path | None = None, **options) -> tuple[nn.Module, Trainer]:
    module, trainer, _ = start(folder, module, AdapterCheckpoint(folder, "x"), **{"max_epochs": 1, **options})
    trainer.fit(module, data(), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


def same(one, other, wrapper) -> bool:
    """To the bit; a compiled module draws its dropout elsewhere, so of its trained tensors names and shapes count."""
    if wrapper is compiled:
        one, other = ({n: t if "A" in n else t.shape for n, t in sorted(state.items())} for state in (one, other))
    return differences(one, other) == []


@pytest.mark.parametrize("wrapper", [compiled, checkpoint_wrapper], ids=["compile", "checkpointing"])
@pytest.mark.parametrize("place", ["", "inner", "inner.first"])
def test_a_run_is_the_same_wrapped_or_not(wrapper, place, tmp_path):
    plain, _ = fit(tmp_path / "plain", Wrapped())
    fit(tmp_path / "wrapped", Wrapped(wrapper, place))
    states = [torch.load(tmp_path / name / "x.ckpt", weights_only=True) for name in ("plain", "wrapped")]
    assert same(states[1]["state_dict"], states[0]["state_dict"], wrapper)
    assert states[1]["adapter_description"]["ranks"] == states[0]["adapter_description"]["ranks"]
    files = [load_file(tmp_path / name / "x.adapter" / "adapter_model.safetensors") for name in ("plain", "wrapped")]
    assert same(files[1], files[0], wrapper)
    # What the one wrote the other resumes from, and loads, and merges.
    fit(tmp_path / "other", Wrapped(wrapper, place), tmp_path / "plain" / "x.ckpt", max_epochs=2)
    fit(tmp_path / "other", Wrapped(), tmp_path / "wrapped" / "x.ckpt", max_epochs=2)
    fresh = Wrapped(wrapper, place)
    load_adapters(fresh.backbone, tmp_path / "plain" / "x.adapter")
    x = torch.ones(2, 6)
    merge_adapters(fresh.backbone)
    torch.testing.assert_close(fresh.backbone.eval()(x), plain.backbone.eval()(x))


def test_a_module_that_is_compiled_after_the_injection_writes_the_same_names(tmp_path):
    module = Wrapped()
    injection = AdapterInjection(ADAPTER, backbone="backbone")
    injection.inject(module)
    module.backbone = compiled(module.backbone)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[injection, AdapterCheckpoint(tmp_path, "x")],
    )  # fmt: skip
    trainer.fit(module, data())
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert {name for name in state if "_orig_mod" in name} == set()
    AdapterInjection(ADAPTER, backbone="backbone").load(Wrapped(), tmp_path / "x.ckpt")


def test_a_compiled_lightning_module_trains_under_its_own_names(tmp_path):
    module, trainer, _ = start(tmp_path, Wrapped(), AdapterCheckpoint(tmp_path, "x"), max_epochs=1)
    trainer.fit(torch.compile(module, backend="eager"), data())
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert "backbone.inner.first.adapters.all.factor_B" in state


def test_the_draw_of_A_is_that_of_the_plain_names():
    plain, wrapped = Nested(), Nested()
    wrapped.inner = checkpoint_wrapper(wrapped.inner)
    for model in (plain, wrapped):
        inject_adapters(model, ADAPTER)
    for name, adapter in adapters_by_name(plain).items():
        assert torch.equal(adapter.A, adapters_by_name(wrapped)[name].A)
