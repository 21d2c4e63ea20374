"""`quantization` of the modules: what trains, what is saved, what it goes with and what it refuses."""

from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import BitsandbytesPrecision

from asym_lightning.adapters import AdapterConfig, adapter_layers, save_adapters
from asym_lightning.adapters.surgery.quantize import quantized_layers
from asym_lightning.data import DigitsDataModule
from asym_lightning.modules import (
    BackboneOptions,
    ImageClassifier,
    InstructionTuner,
    MMLUEvaluator,
    Summarizer,
    TextClassifier,
)
from tests.adapters.models import hf_model
from tests.language_models import tiny_llama

pytest.importorskip("bitsandbytes")
KINDS = ("nf4", "int8")
ADAPTER = AdapterConfig("hB_zero_A_rand", rank=2)


def classifier(kind, adapter=ADAPTER, **kwargs):
    return ImageClassifier(
        "vit_digits",
        10,
        adapter,
        backbone_options=BackboneOptions(quantization=kind),
        optimizer=partial(torch.optim.AdamW, lr=0.01),
        **kwargs,
    )


def fitted(tmp_path, module, accelerator="cpu", **kwargs):
    defaults = {"max_steps": 4, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator=accelerator, devices=1, **{**defaults, **kwargs})
    L.seed_everything(0, verbose=False)
    trainer.fit(module, DigitsDataModule(angles=[180], num_train=100))
    return trainer


def frozen_state(module):
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    return {n: t.clone() for n, t in module.backbone.state_dict().items() if f"backbone.{n}" not in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_fit_trains_adapters_and_head_and_leaves_every_quantised_number(kind, tmp_path):
    module, fresh = classifier(kind), classifier(kind)
    fitted(tmp_path, module)
    L.seed_everything(0, verbose=False)
    fresh.configure_model()
    before, after = frozen_state(fresh), frozen_state(module)
    assert len(dict(quantized_layers(module))) == 24 and module.injection_report.quantized.kinds == (kind,)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    for layer in adapter_layers(module.backbone).values():
        assert all(adapter.B.abs().sum() > 0 for adapter in layer.adapters.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_fit_equals_an_uninterrupted_one_and_its_checkpoint_holds_no_backbone(kind, tmp_path):
    whole = classifier(kind)
    fitted(tmp_path, whole, max_steps=8, max_epochs=4)
    keep = ModelCheckpoint(tmp_path, "half", save_top_k=-1, every_n_train_steps=4, enable_version_counter=False)
    fitted(tmp_path, classifier(kind), max_steps=4, max_epochs=4, callbacks=[keep])
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert not [n for n in saved["state_dict"] if "absmax" in n or "SCB" in n or n.endswith("qkv.weight")]
    resumed = classifier(kind)
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=8, max_epochs=4, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(
        resumed, DigitsDataModule(angles=[180], num_train=100), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    trained = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    for name, parameter in resumed.named_parameters():
        if name in trained:
            torch.testing.assert_close(parameter, trained[name])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("kind", KINDS)
def test_precisions_leave_the_quantised_numbers_and_train_in_float32(kind, precision, tmp_path):
    module, fresh = classifier(kind), classifier(kind)
    fitted(tmp_path, module, precision=precision)
    fresh.configure_model()
    weights = {name: layer.weight for name, layer in quantized_layers(fresh)}
    assert all(torch.equal(layer.weight, weights[name]) for name, layer in quantized_layers(module))
    assert all(p.dtype == torch.float32 for p in module.parameters() if p.requires_grad)


def test_without_adapter_the_head_alone_trains(tmp_path):
    module = classifier("int8", adapter=None)
    fitted(tmp_path, module)
    assert {n for n, p in module.named_parameters() if p.requires_grad} == {
        "backbone.head.weight",
        "backbone.head.bias",
    }
    assert len(dict(quantized_layers(module))) == 24


@pytest.mark.parametrize(
    ("make", "name"), [(TextClassifier, "roberta"), (Summarizer, "bart"), (InstructionTuner, "llama")]
)
def test_every_task_quantises_its_backbone(make, name):
    module = make(
        hf_model(name),
        adapter=AdapterConfig(rank=2, targets=["q", "v"]),
        backbone_options=BackboneOptions(quantization="nf4"),
    )
    module.configure_model()
    names = dict(quantized_layers(module.backbone))
    assert names and not [n for n in names if "classifier" in n or "lm_head" in n]


def test_an_evaluator_quantises_before_it_loads_an_adapter(tmp_path):
    tuner = InstructionTuner(
        tiny_llama(60),
        adapter=AdapterConfig(rank=2, targets=["q"]),
        backbone_options=BackboneOptions(quantization="int8"),
    )
    tuner.configure_model()
    save_adapters(tuner.backbone, tmp_path)
    evaluator = MMLUEvaluator(
        tiny_llama(60), adapter_directory=tmp_path, backbone_options=BackboneOptions(quantization="int8")
    )
    evaluator.configure_model()
    assert len(dict(quantized_layers(evaluator.backbone))) == 14 and len(adapter_layers(evaluator.backbone)) == 2


def test_full_fine_tuning_and_unknown_kinds_are_refused():
    with pytest.raises(
        ValueError, match=r"what `backbone_options.quantization` would freeze: set `quantization: null`"
    ):
        classifier("nf4", adapter=None, train_backbone=True)
    with pytest.raises(ValueError, match="must be one of nf4, int8 or null, not 'fp4': did you mean nf4"):
        classifier("fp4")


def test_a_missing_library_is_told_before_anything_is_built(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'asym-lightning\[quantized\]'"):
        classifier("nf4")


def test_a_strategy_that_shards_and_an_unknown_device_are_refused_before_anything_is_built(tmp_path, monkeypatch):
    module = classifier("nf4")
    monkeypatch.setattr("asym_lightning.modules.base.DEVICES", ("cuda",))
    with pytest.raises(ValueError, match="does not run on a cpu device; bitsandbytes knows cuda"):
        fitted(tmp_path, module)
    monkeypatch.setattr("asym_lightning.modules.base.SingleDeviceStrategy", L.pytorch.strategies.DDPStrategy)
    with pytest.raises(ValueError, match=r"SingleDeviceStrategy can't shard: use one device, or the strategy ddp"):
        fitted(tmp_path, module)
    assert not hasattr(module, "backbone")


def test_lightnings_plugin_which_would_quantise_the_head_is_answered_with_the_option(tmp_path):
    plugin = BitsandbytesPrecision("nf4", dtype=torch.float32)
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    trainer.strategy.precision_plugin = plugin  # the constructor takes it with a GPU only
    with pytest.raises(ValueError, match=r"quantise the heads too.*set `backbone_options.quantization` to nf4 or int8"):
        trainer.fit(classifier(None), DigitsDataModule())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("kind", KINDS)
def test_fit_on_a_gpu_takes_the_steps_that_it_takes_on_a_cpu(kind, precision, tmp_path):
    on_gpu, on_cpu = classifier(kind), classifier(kind)
    fitted(tmp_path, on_gpu, accelerator="gpu", precision=precision)
    fitted(tmp_path, on_cpu)
    assert all(layer.weight.device.type == "cuda" for _, layer in quantized_layers(on_gpu.cuda()))
    tolerance = 1e-3 if precision == "32-true" else 2e-2
    gpu = dict(on_gpu.cpu().named_parameters())
    for name, parameter in on_cpu.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gpu[name], parameter, rtol=tolerance, atol=tolerance)
