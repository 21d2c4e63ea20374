"""Merging where weights are shared or not here."""

import copy

import accelerate
import pytest
import torch
import transformers as tf
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from tests.adapters.models import perturb


class OneWeightTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(self.second(self.first(x).relu()))


def tied_llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    return tf.LlamaForCausalLM(tf.LlamaConfig(**sizes, tie_word_embeddings=True)).eval()


@pytest.mark.parametrize("keep_weights", [True, False])
def test_layers_that_hold_one_weight_are_merged_each_with_its_own_update(keep_weights):
    torch.manual_seed(0)
    model = OneWeightTwice()
    plain, x = copy.deepcopy(model), torch.randn(5, 4)
    own = model.first.weight
    inject_adapters(model, AdapterConfig(rank=2, targets=["first", "second", "last"]))
    perturb(model)
    deltas = {name: layer.delta_weight() for name, layer in adapter_layers(model).items()}
    out = model(x)
    merge_adapters(model, keep_weights=keep_weights)
    torch.testing.assert_close(model(x), out)
    for name, delta in deltas.items():
        torch.testing.assert_close(model.get_submodule(name).weight, getattr(plain, name).weight + delta)
    if keep_weights:
        unmerge_adapters(model)
        assert model.first.weight is own and model.second.weight is own
        assert torch.equal(own, plain.first.weight) and torch.equal(model(x), out)
        remove_adapters(model)
        assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]


def test_a_tied_output_layer_is_untied_while_it_is_merged(tmp_path):
    model, ids = tied_llama(), torch.arange(3, 13).view(2, 5)
    inject_adapters(model, AdapterConfig(rank=2, targets=["lm_head", "q"]))
    perturb(model)
    out = model(ids).logits
    merge_adapters(model)
    torch.testing.assert_close(model(ids).logits, out)
    assert not model.config.tie_word_embeddings
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(tf.AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, out)
    unmerge_adapters(model)
    assert model.config.tie_word_embeddings
    assert dict(model.named_parameters(remove_duplicate=False))["lm_head.weight"] is model.model.embed_tokens.weight
    assert torch.equal(model(ids).logits, out)


def test_a_layer_that_accelerate_has_wrapped_computes_with_its_adapter_and_is_restored():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    plain, x = copy.deepcopy(model), torch.randn(3, 4)
    for layer in model:
        accelerate.hooks.add_hook_to_module(layer, accelerate.hooks.ModelHook())
    assert "forward" in vars(model[0])
    inject_adapters(model, AdapterConfig(rank=2, targets=["0", "1"]))
    perturb(model)
    dense = copy.deepcopy(plain)
    with torch.no_grad():
        for name, layer in adapter_layers(model).items():
            dense.get_submodule(name).weight.add_(layer.delta_weight())
    torch.testing.assert_close(model(x), dense(x))
    merge_adapters(model)
    torch.testing.assert_close(model(x), dense(x))
    unmerge_adapters(model)
    torch.testing.assert_close(model(x), dense(x))
    remove_adapters(model)
    assert torch.equal(model(x), plain(x))


def test_layers_wrapped_after_injection_keep_their_adapters_and_lose_them_when_these_are_removed():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(3, 4)
    plain = model(x)
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    perturb(model)
    out = model(x)
    accelerate.hooks.add_hook_to_module(model[0], accelerate.hooks.ModelHook())
    assert torch.equal(model(x), out)
    remove_adapters(model)
    assert torch.equal(model(x), plain)


def test_a_forward_of_ones_own_on_the_layer_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].forward = lambda x: x
    with pytest.raises(ValueError, match=r"`0` has a `forward` set on itself.*`exclude`"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    assert adapter_layers(model) == {}


def test_an_offloaded_layer_is_refused_and_a_weight_that_is_not_here_is_not_merged():
    model = nn.Sequential(nn.Linear(4, 4))
    offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"`0` is offloaded by accelerate"):
        inject_adapters(offloaded, AdapterConfig(rank=2, targets=["0"]))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    model.to("meta")
    with pytest.raises(RuntimeError, match="on the meta device, hence a merge would be lost"):
        merge_adapters(model)
