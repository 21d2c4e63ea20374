"""Adapters over a backbone that someone's project quantised."""

import pytest
import torch
from lightning.pytorch.plugins import BitsandbytesPrecision

from asym_lightning.adapters import adapter_layers, quantize_backbone
from asym_lightning.callbacks import FreezeA
from tests.callbacks.foreign import Foreign, injection, loader, trainer

bnb = pytest.importorskip("bitsandbytes")


class Quantized(Foreign):
    """A project that quantises its own backbone: by our function, or as the documentation of bitsandbytes has it."""

    def __init__(self, kind, form="__init__"):
        self.kind = kind
        super().__init__(form)

    def build(self):
        if hasattr(self, "net"):
            return
        super().build()
        if self.kind != "own":
            quantize_backbone(self.net, self.kind)
            return
        for name in ("first", "second"):
            layer = bnb.nn.Linear4bit(12, 12, quant_type="nf4")
            layer.load_state_dict(getattr(self.net, name).state_dict())
            setattr(self.net, name, layer.to("cpu"))


def fit_and_check(tmp_path, kind, form, **options):
    module = Quantized(kind, form)
    trainer(tmp_path, injection(), FreezeA(), **options).fit(module, loader(), loader())
    layers = adapter_layers(module)
    host = bnb.nn.Linear8bitLt if kind == "int8" else bnb.nn.Linear4bit
    assert len(layers) == 2 and all(isinstance(layer, host) for layer in layers.values())
    assert all(layer.weight.dtype == (torch.int8 if kind == "int8" else torch.uint8) for layer in layers.values())
    assert all(layer.adapters["all"].B.abs().sum() > 0 for layer in layers.values())


@pytest.mark.parametrize("form", ["__init__", "configure_model"])
@pytest.mark.parametrize("kind", ["nf4", "int8", "own"])
def test_a_backbone_that_the_module_quantised_is_adapted_and_trained(kind, form, tmp_path):
    fit_and_check(tmp_path, kind, form)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["nf4", "int8", "own"])
def test_a_quantised_backbone_is_trained_on_a_gpu(kind, tmp_path):
    fit_and_check(tmp_path, kind, "__init__", accelerator="gpu", devices=1)


def test_lightnings_plugin_is_answered_with_the_function(tmp_path):
    run = trainer(tmp_path, injection())
    # The Trainer takes it with a GPU only.
    run.strategy.precision_plugin = BitsandbytesPrecision("nf4", dtype=torch.float32)
    with pytest.raises(ValueError, match=r"in place of the adapted ones.*`asym_lightning.adapters.quantize_backbone`"):
        run.fit(Foreign(), loader())
