"""Rows of timm's fused projections, by their effect."""

from importlib import import_module

import pytest
import torch

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters


@pytest.mark.parametrize("module", ["lowformer", "cpubone"])
def test_attention_of_projections_by_a_convolution_gives_nothing_where_its_values_are_zero(module):
    cls = import_module(f"timm.models.{module}").ConvAttention
    torch.manual_seed(0)
    attention = cls(64, head_dim_mul=1.0, att_stride=1, att_kernel=3).eval()
    inject_adapters(attention, AdapterConfig(rank=2, targets=["q", "v"]))
    rows = adapter_layers(attention)["pwise"].adapters.rows
    assert (rows["q"].count, rows["v"].count, rows["v"].groups) == (64, 64, 2)
    with torch.no_grad():
        attention.pwise.weight[rows["v"].take(torch.arange(192))] = 0
        left, right = attention(torch.randn(2, 64, 4, 4))
    assert torch.equal(left, right)  # biases alone
