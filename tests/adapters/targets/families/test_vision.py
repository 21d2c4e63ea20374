"""Rows of fused projections in vision towers of transformers, by their effect."""

import torch
import transformers as tf

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters


def test_attention_of_levit_gives_nothing_where_its_values_are_zero():
    torch.manual_seed(0)
    config = tf.LevitConfig(
        image_size=32, hidden_sizes=[16, 32, 32], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8]
    )
    model = tf.LevitForImageClassification(config).eval()
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "k", "v"]))
    layers = adapter_layers(model)
    names = {name.split(".")[-2]: list(layer.adapters) for name, layer in layers.items()}
    assert names == {"queries_keys_values": ["q", "k", "v"], "queries": ["all"], "keys_values": ["k", "v"]}
    for name in ("queries_keys_values", "keys_values"):
        path, layer = next((path, layer) for path, layer in layers.items() if f".{name}." in path)
        attention = model.get_submodule(path.partition(f".{name}.")[0])
        x = torch.randn(2, attention.attention_bias_idxs.shape[-1], layer.in_features)
        assert not torch.equal(*attention(x))
        with torch.no_grad():
            layer.weight[layer.adapters.rows["v"].take(torch.arange(layer.out_features))] = 0
        assert torch.equal(*attention(x))
