"""Routers that hold a matrix: the function is that of the dense one, and `peft`'s files of all dense layers load."""

import copy

import peft
import pytest
import torch
import transformers as tf

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    unmerge_adapters,
)
from tests.adapters.models import perturb

hold_a_matrix = pytest.mark.skipif(tf.__version__ < "5", reason="routers are linear layers here")
IDS = torch.arange(3, 27).view(2, 12)


def mixture():
    torch.manual_seed(0)
    config = tf.OlmoeConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=8, num_experts=4, num_experts_per_tok=2, pad_token_id=0,
    )  # fmt: skip
    model = tf.OlmoeForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.normal_()
    return model


@hold_a_matrix
def test_a_router_that_is_named_computes_with_the_dense_matrix():
    model = mixture()
    dense, state = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    inject_adapters(model, AdapterConfig("hB_zero_hA_rand", rank=3, targets=["gate.weight"]))
    perturb(model)
    routers = adapter_layers(model)
    assert list(routers) == [f"model.layers.{i}.mlp.gate.weight" for i in range(2)]
    for name, layer in routers.items():
        adapter = layer.adapters["all"]
        with torch.no_grad():
            dense.get_parameter(name).add_(adapter.scaling * adapter.B @ adapter.A)
    out, wanted = model(IDS).logits, dense(IDS).logits
    torch.testing.assert_close(out, wanted)
    out.square().mean().backward()
    wanted.square().mean().backward()
    for name, layer in routers.items():
        adapter, G = layer.adapters["all"], dense.get_parameter(name).grad
        torch.testing.assert_close(adapter.factor_B.grad, adapter.scaling * G @ adapter.A.T, rtol=1e-3, atol=1e-7)
    merge_adapters(model)
    assert list(model.state_dict()) == list(state)
    torch.testing.assert_close(model(IDS).logits, wanted)
    unmerge_adapters(model)
    torch.testing.assert_close(model(IDS).logits, out)
    remove_adapters(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_all_linear_leaves_routers_out():
    model = mixture()
    inject_adapters(model, AdapterConfig(rank=2, targets=["all-linear"]))
    assert not any("gate.weight" in name for name in adapter_layers(model))


@hold_a_matrix
def test_peft_reads_our_files_and_we_read_its(tmp_path):
    experts = [name for name, p in mixture().named_parameters() if p.dim() == 3]
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["gate", "q_proj"], target_parameters=experts)
    theirs = peft.get_peft_model(mixture(), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = mixture()
    load_adapters(ours, tmp_path / "theirs")
    assert any(name.endswith("gate.weight") for name in adapter_layers(ours))
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    save_adapters(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(mixture(), tmp_path / "ours").eval()
    torch.testing.assert_close(again(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-5)
