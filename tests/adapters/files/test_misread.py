"""PEFT, which renames as transformers renames old checkpoints, misreads present names that look like old ones."""

import peft
import pytest
import torch
import transformers as tf

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    layers_misread_by_peft,
    save_adapters,
)
from tests.adapters.models import hf_model, perturb

conversion = pytest.importorskip("transformers.conversion_mapping")
of_peft = pytest.importorskip("peft.utils.transformers_weight_conversion")
loading = pytest.importorskip("transformers.core_model_loading")


class Renamed(tf.BertForSequenceClassification):
    """A model whose list of old names also fits present ones, as that of Mistral Large 4 does."""


def build():
    torch.manual_seed(0)
    return Renamed(hf_model("bert").config).eval()


@pytest.fixture
def renaming(monkeypatch):
    def mapping(model, *args, **kwargs):
        return [loading.WeightRenaming(r"\.intermediate\.", ".intermediate.more.")]

    for module in (conversion, of_peft):
        monkeypatch.setattr(module, "get_model_conversion_mapping", mapping)
        monkeypatch.setattr(module, "get_checkpoint_conversion_mapping", mapping)


def test_layers_that_peft_renames_are_told(renaming, tmp_path):
    ours = build()
    inject_adapters(ours, AdapterConfig(rank=2, targets=["q", "mlp"]))
    perturb(ours)
    misread = layers_misread_by_peft(ours)
    assert misread == [f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)]
    assert set(misread) < set(adapter_layers(ours))
    save_adapters(ours, tmp_path)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        theirs = peft.PeftModel.from_pretrained(build(), tmp_path)
    for name in misread:
        assert not theirs.get_submodule(f"base_model.model.{name}").lora_B["default"].weight.any()
    assert (
        theirs.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
        .lora_B["default"]
        .weight.any()
    )


@pytest.mark.parametrize("name", ["vit", "llama", "gpt2", "bart"])
def test_other_models_have_none(name):
    model = hf_model(name)
    inject_adapters(model, AdapterConfig(rank=2, targets=["all-linear"]))
    assert layers_misread_by_peft(model) == []
