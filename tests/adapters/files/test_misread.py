"""Layers with which PEFT computes otherwise than we do, or that keep it from reading a file, are told."""

import peft
import pytest
import torch
import transformers as tf
from torch import nn

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


def _pad(x, layer):
    """As `apply_tf_padding` of MobileNet v1 and v2."""
    return torch.nn.functional.pad(x, [side // 2 for side in layer.stride for _ in range(2)])


class AsksItsConvolutions(nn.Module):
    """Pads one by its settings, by a function that is given it, another by what it reads, and just calls the last."""

    def __init__(self):
        super().__init__()
        self.given, self.read, self.called = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.given(_pad(x, self.given))
        return self.called(self.read(nn.functional.pad(x, [self.read.dilation[0]] * 4)))


def test_convolutions_that_are_asked_how_they_were_set_up_are_told(tmp_path):
    model, x = AsksItsConvolutions(), torch.randn(1, 3, 8, 8)
    inject_adapters(model, AdapterConfig(rank=2, targets=["given", "read", "called"], heads=[]))
    assert layers_misread_by_peft(model) == ["given", "read"]
    save_adapters(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(AsksItsConvolutions(), tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'stride'"):
        theirs(x)


def test_names_that_peft_refuses_in_state_spaces_are_told(tmp_path):
    config = tf.MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = tf.MambaForCausalLM(config)
    inject_adapters(model, AdapterConfig(rank=2, targets=["in_proj", "out_proj"]))
    assert layers_misread_by_peft(model) == ["backbone.layers.0.mixer.out_proj"]
    save_adapters(model, tmp_path)
    with pytest.raises(ValueError, match="'out_proj' is incompatible"):
        peft.PeftModel.from_pretrained(tf.MambaForCausalLM(config), tmp_path)


class TiesWhatItDoesNotName(tf.PreTrainedModel):
    """As Deformable DETR, whose heads of several layers are one."""

    config_class, base_model_prefix, _tied_weights_keys = tf.BertConfig, "model", {"second.weight": "first.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.post_init()

    def forward(self, x):
        return self.second(self.first(x))


def test_all_layers_of_a_model_that_does_not_say_what_its_weights_are_tied_to_are_told(tmp_path):
    model = TiesWhatItDoesNotName(tf.BertConfig())
    inject_adapters(model, AdapterConfig(rank=2, targets=["first"], heads=[]))
    assert layers_misread_by_peft(model) == ["first"]
    save_adapters(model, tmp_path)
    with pytest.raises(NotImplementedError, match="get_input_embeddings"):
        peft.PeftModel.from_pretrained(TiesWhatItDoesNotName(tf.BertConfig()), tmp_path)
