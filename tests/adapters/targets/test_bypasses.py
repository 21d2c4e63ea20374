"""Hosts that can be told to call a layer that they would go past."""

import torch

from asym_lightning.adapters import AdapterConfig, inject_adapters, remove_adapters
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
