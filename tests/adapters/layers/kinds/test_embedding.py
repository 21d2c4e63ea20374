"""Embeddings against the dense table ``W + s B A``, and `peft`'s reading and writing of them."""

import copy
import warnings

import peft
import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    unmerge_adapters,
    untrained_adapters,
)
from tests.adapters.models import HF_MODELS, hf_inputs, hf_model, perturb

IDS = torch.tensor([[1, 4, 4, 0], [7, 1, 0, 0]])


class Scale(nn.Embedding):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.embed_scale = 3.0

    def forward(self, input):
        return super().forward(input) * self.embed_scale


class BartScaledWordEmbedding(Scale):
    pass


@pytest.fixture(params=[nn.Embedding, BartScaledWordEmbedding], ids=lambda cls: cls.__name__)
def model(request):
    torch.manual_seed(0)
    model = nn.Sequential(request.param(9, 6, padding_idx=0)).double()
    inject_adapters(model, AdapterConfig(rank=3, targets=["0"], scheme="hB_zero_hA_rand"))
    perturb(model)
    return model


def test_rows_and_gradients_are_those_of_the_dense_table(model):
    layer = model[0]
    adapter = layer.adapters["all"]
    assert (adapter.d_out, adapter.d_in) == (6, 9)
    table = (layer.weight + adapter.scaling * (adapter.B @ adapter.A).T).detach().requires_grad_()
    torch.testing.assert_close(layer.delta_weight(), table - layer.weight)
    wanted = F.embedding(IDS, table, padding_idx=0) * getattr(layer, "embed_scale", 1)
    out = model(IDS)
    torch.testing.assert_close(out, wanted)
    (out.sin().sum() + out.square().sum()).backward()
    (wanted.sin().sum() + wanted.square().sum()).backward()
    G = table.grad.T
    torch.testing.assert_close(adapter.factor_B.grad, adapter.scaling * G @ adapter.factor_A.T)
    torch.testing.assert_close(adapter.factor_A.grad, adapter.scaling * adapter.factor_B.T @ G)
    assert not adapter.factor_A.grad[:, 0].any()  # of padding


def test_merging_gives_the_dense_table_and_can_be_undone_to_the_bit(model):
    out, state, host = model(IDS), copy.deepcopy(model.state_dict()), model[0].adapters.host_class
    merge_adapters(model)
    assert type(model[0]) is host
    assert list(model.state_dict()) == ["0.weight"]
    torch.testing.assert_close(model(IDS), out)
    unmerge_adapters(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    remove_adapters(model)
    assert type(model[0]) is host
    assert torch.equal(model[0].weight, state["0.weight"])


def test_no_role_and_neither_of_the_words_for_all_means_an_embedding():
    model = hf_model("bert")
    inject_adapters(model, AdapterConfig(rank=1, targets=["all-linear", "q"]))
    assert not any("embeddings" in name for name in adapter_layers(model))


@pytest.mark.parametrize("option", ["max_norm", "scale_grad_by_freq"])
def test_a_table_that_is_not_frozen_rows_is_refused(option):
    model = nn.Sequential(nn.Embedding(9, 6, **{option: True}))
    with pytest.raises(ValueError, match=rf"`0` has `{option}`"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))


def test_another_forward_is_refused_by_its_name():
    model = nn.Sequential(Scale(9, 6))
    with pytest.raises(ValueError, match=r"`0` is a Scale, which may compute its output in a way of its own"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))


TIED = {"llama": "embed_tokens", "bart": "shared", "gpt2": "wte", "bert": "word_embeddings"}
GEMMA = tf.Gemma3TextConfig(
    vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=8,
    intermediate_size=32,
)  # fmt: skip


def tied_model(name):
    torch.manual_seed(0)
    if name == "gemma3":
        return tf.Gemma3ForCausalLM(GEMMA).eval()
    cls, config = HF_MODELS[name]
    config = copy.deepcopy(config)
    config.tie_word_embeddings = True
    return cls(config).eval()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bart", "gemma3"])
def test_a_table_that_the_output_layer_shares_is_untied_by_merging_and_tied_again(name):
    model, inputs = tied_model(name), hf_inputs("bart" if name == "bart" else "llama")
    base = model(**inputs).logits
    output = model.get_output_embeddings()
    target = {**TIED, "bart": "encoder.embed_tokens", "gemma3": "embed_tokens"}[name]
    inject_adapters(model, AdapterConfig(rank=3, targets=[target], heads=[]))
    perturb(model)
    (name_of_layer,) = adapter_layers(model)
    out = model(**inputs).logits
    assert not torch.allclose(out, base, atol=1e-3)
    out.sum().backward()
    assert untrained_adapters(model) == []
    table, weight = model.get_submodule(name_of_layer), output.weight
    assert torch.equal(table.weight, weight)
    merge_adapters(model)
    torch.testing.assert_close(model(**inputs).logits, out)
    assert torch.equal(output.weight, weight)
    unmerge_adapters(model)
    assert table.weight is output.weight
    assert torch.equal(model(**inputs).logits, out)


@pytest.mark.parametrize("name", ["llama", "bert", "gemma3"])
def test_peft_reads_our_files_and_we_read_its(name, tmp_path):
    inputs = hf_inputs("llama")
    target = {**TIED, "gemma3": "embed_tokens"}[name]

    def build():
        return tied_model(name)

    ours = build()
    inject_adapters(ours, AdapterConfig(rank=3, alpha=5, targets=[target, "q"], rank_pattern={"q": 2}))
    perturb(ours)
    save_adapters(ours, tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r".*(Unexpected keyword|missing adapter keys)")
        theirs = peft.PeftModel.from_pretrained(build(), tmp_path / "ours").eval()
    torch.testing.assert_close(theirs(**inputs).logits, ours(**inputs).logits, rtol=1e-5, atol=1e-5)
    query = "query" if name == "bert" else "q_proj"
    config = peft.LoraConfig(r=2, lora_alpha=7, target_modules=[target, query])
    theirs = peft.get_peft_model(build(), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    ours = build()
    load_adapters(ours, tmp_path / "theirs")
    torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=1e-5, atol=1e-5)
    for directory in ("full", "compact"):
        save_adapters(ours, tmp_path / directory, include_frozen=directory == "full")
        again = build()
        load_adapters(again, tmp_path / directory)
        assert torch.equal(again(**inputs).logits, ours(**inputs).logits)
