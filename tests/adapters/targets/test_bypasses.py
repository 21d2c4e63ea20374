"""Hosts that can be told to call a layer that they would go past."""

import torch

from asym_lightning.adapters import AdapterConfig, inject_adapters, layers_misread_by_peft, remove_adapters
from asym_lightning.cli.model_card import model_card
from tests.adapters.models import perturb, tiny_vit


def test_a_bypass_is_open_while_a_layer_is_adapted_and_closed_when_it_is_not():
    vit, x = tiny_vit("beit_base_patch16_224", init_values=None), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        vit.blocks[0].attn.q_bias.normal_()
    run = torch.no_grad()(vit.forward_features)
    plain = run(x)
    inject_adapters(vit, AdapterConfig(rank=2, targets=["q", "v"], heads=[]))
    assert torch.allclose(run(x), plain, atol=1e-5)
    perturb(vit)
    assert not torch.allclose(run(x), plain, atol=1e-3)
    assert not vit.blocks[0].attn.qkv.adapters.is_read
    remove_adapters(vit)
    assert not vit.blocks[0].attn.qkv_bias_separate
    assert torch.equal(run(x), plain)


def test_a_bypass_that_its_owner_has_opened_stays_open():
    model = tiny_vit("beit_base_patch16_224")
    for block in model.blocks:
        block.attn.qkv_bias_separate = True
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    remove_adapters(model)
    assert all(block.attn.qkv_bias_separate for block in model.blocks)


def test_a_model_card_says_that_peft_goes_past_such_layers():
    model = tiny_vit("beit_base_patch16_224")
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "o"]))
    assert layers_misread_by_peft(model) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    card = model_card(model, "beit", is_compact=False)
    assert "computes something else with the adapters of" in card and "blocks.0.attn.qkv" in card
    assert "PeftModel" not in card
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "o"]))
    assert layers_misread_by_peft(model) == [] and "PeftModel" in model_card(model, "vit", is_compact=False)
