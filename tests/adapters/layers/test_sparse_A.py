"""A layer whose A chooses or adds up inputs knows it, as long as A is what its rule draws."""

import pytest
import timm
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.kernels.sparse_rows import ChosenInputs, InputSums


def adapted(rule="coordinate", **options) -> nn.Linear:
    model = nn.Sequential(nn.Linear(10, 12))
    inject_adapters(model, AdapterConfig(f"hB_zero_A_{rule}", rank=4, targets=["0"], **options))
    nn.init.normal_(model[0].adapters["all"].factor_B)
    return model[0]


@pytest.mark.parametrize(("rule", "kind"), [("coordinate", ChosenInputs), ("block", InputSums)])
def test_a_rule_that_needs_no_product_is_not_multiplied(rule, kind, monkeypatch):
    layer = adapted(rule)
    x = torch.randn(20, 10)
    assert [type(rows) for rows in layer.adapters.sparse_rows()] == [kind]
    expected = nn.functional.linear(x, layer.weight + layer.delta_weight(), layer.bias)
    monkeypatch.setattr("asym_lightning.adapters.kernels.products.stacked", None)
    torch.testing.assert_close(layer(x), expected)


def test_what_is_found_is_kept_while_A_stays():
    layer = adapted()
    assert layer.adapters.sparse_rows() is layer.adapters.sparse_rows()


def test_slices_whose_A_are_equal_read_their_inputs_once():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=12, num_heads=2)
    inject_adapters(model, AdapterConfig("hB_zero_A_block", rank=4, targets=["q", "k", "v"]))
    first, *others = model.blocks[0].attn.qkv.adapters.sparse_rows()
    assert [rows is first for rows in others] == [True, True]


@pytest.mark.parametrize("rule", ["coordinate", "block"])
def test_another_A_in_its_place_is_multiplied(rule):
    layer = adapted(rule)
    assert layer.adapters.sparse_rows()
    A = layer.adapters["all"].factor_A
    with torch.no_grad():
        A[0, 0] += 1
    assert layer.adapters.sparse_rows() is None
    x = torch.randn(20, 10)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight + layer.delta_weight(), layer.bias))


def test_coordinates_that_were_loaded_are_those_that_are_read():
    layer, other = adapted(), adapted(seed=1)
    x = torch.randn(20, 10)
    layer(x)
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer(x), other(x))


def test_a_rank_below_the_allocated_one():
    layer = adapted(max_rank=6)
    x = torch.randn(20, 10)
    assert layer.adapters.sparse_rows()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight + layer.delta_weight(), layer.bias))


def test_a_random_A_and_a_trained_one_are_multiplied():
    assert adapted("rand").adapters.sparse_rows() is None
    model = nn.Sequential(nn.Linear(10, 12))
    inject_adapters(model, AdapterConfig("hB_zero_hA_coordinate", rank=4, targets=["0"]))
    assert model[0].adapters.sparse_rows() is None


def test_a_compiled_layer_gives_the_same():
    layer = adapted()
    x = torch.randn(20, 10)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


def test_a_layer_in_half_precision():
    layer = adapted().bfloat16()
    x = torch.randn(20, 10).bfloat16().requires_grad_()
    y = layer(x)
    y.sum().backward()
    expected = nn.functional.linear(x, layer.weight + layer.delta_weight().bfloat16(), layer.bias)
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
    assert torch.isfinite(x.grad).all()
