"""Linear layers under other names than ``nn.Linear``."""

import peft
import torch
from timm.layers.linear import Linear
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters, load_adapters


def test_timms_linear_layer_is_one():
    model = nn.Sequential(Linear(4, 4))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    assert list(adapter_layers(model)) == ["0"]


def test_the_output_of_attention_is_read_where_peft_wraps_it_alone(tmp_path):
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)})
    theirs = peft.get_peft_model(nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)}), peft.LoraConfig(
        r=2, target_modules=["attn.out_proj"], init_lora_weights=False
    ))  # fmt: skip
    theirs.save_pretrained(tmp_path)
    load_adapters(model, tmp_path)
    layer = adapter_layers(model)["attn.out_proj"]
    expected = theirs.base_model.model["attn"].out_proj.get_delta_weight("default")
    torch.testing.assert_close(layer.delta_weight(), expected)
