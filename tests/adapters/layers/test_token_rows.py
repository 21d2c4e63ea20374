"""Rows of new tokens that train while the rest of the table stays frozen."""

import copy

import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    check_trained_state_dict,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    trained_state_dict,
    unmerge_adapters,
)
from asym_lightning.adapters.layers.token_rows import token_rows_of
from tests.adapters.models import HF_MODELS

INDICES = [58, 3, 59]
TOKENS = torch.tensor([[3, 5, 58, 59, 7], [8, 58, 3, 3, 9]])
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
GEMMA = tf.Gemma3TextConfig(vocab_size=60, intermediate_size=32, pad_token_id=0, sliding_window=4, **SIZES)


def build(*, tied=True):
    torch.manual_seed(0)
    config = copy.deepcopy(HF_MODELS["llama"][1])
    config.tie_word_embeddings = tied
    return tf.LlamaForCausalLM(config).eval()


def config(*, tied=True, **options):
    names = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    return AdapterConfig(rank=2, targets=["q"], token_rows=dict.fromkeys(names, INDICES), **options)


def adapted(*, tied=True):
    model = build(tied=tied)
    inject_adapters(model, config(tied=tied))
    return model


def perturb(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape))


def dense(model, *, tied):
    """The model with the rows written into its tables, where each table is a parameter."""
    reference = build(tied=tied)
    with torch.no_grad():
        for name, rows in token_rows_of(model).items():
            reference.get_submodule(name).weight[INDICES] = rows.weight
    return reference


def logits(model):
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("tied", [True, False])
def test_output_and_gradient_are_those_of_the_rows_in_the_table(tied):
    model = adapted(tied=tied)
    torch.testing.assert_close(logits(model), logits(build(tied=tied)), rtol=0, atol=1e-6)
    with torch.no_grad():
        for rows in token_rows_of(model).values():
            rows.weight.normal_()
    reference = dense(model, tied=tied)
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-5, atol=1e-5)
    for either in (model, reference):
        (logits(either) * torch.linspace(-1, 1, 60)).square().sum().backward()
    for name, rows in token_rows_of(model).items():
        wanted = reference.get_submodule(name).weight.grad[INDICES]
        torch.testing.assert_close(rows.weight.grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_nothing_else_of_the_table_trains(tied):
    model = adapted(tied=tied)
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "adapters" not in name]
    assert trained == [f"{name}.token_rows.weight" for name in (["model.embed_tokens"] + [[], ["lm_head"]][not tied])]
    assert type(model.model.embed_tokens) is nn.Embedding


@pytest.mark.parametrize("tied", [True, False])
def test_merging_writes_the_rows_and_unmerging_and_removing_give_back_the_bits(tied):
    model, base = adapted(tied=tied), build(tied=tied)
    perturb(model)
    expected = logits(model)
    merge_adapters(model)
    assert list(model.state_dict()) == list(base.state_dict())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    unmerge_adapters(model)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
    remove_adapters(model)
    assert list(model.state_dict()) == list(base.state_dict())
    for name, tensor in base.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert torch.equal(logits(model), logits(base))


@pytest.mark.parametrize("include_frozen", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_directory_holds_the_rows_as_they_are(tied, include_frozen, tmp_path):
    model = adapted(tied=tied)
    perturb(model)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    kept = [name for name in load_file(tmp_path / "adapter_model.safetensors") if "lora_" not in name]
    assert len(kept) == 2 - tied
    # Of new tokens every reader has rows of its own to begin with.
    other = build(tied=tied)
    with torch.no_grad():
        other.model.embed_tokens.weight[INDICES] = 7.0
        other.lm_head.weight[INDICES] = 7.0
    theirs = copy.deepcopy(other)
    load_adapters(other, tmp_path)
    torch.testing.assert_close(logits(other), logits(model), rtol=0, atol=0)
    if include_frozen:
        read = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
        torch.testing.assert_close(logits(read), logits(model), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_holds_the_rows_and_no_table():
    model = adapted()
    perturb(model)
    state = trained_state_dict(model)
    assert [name for name in state if "embed_tokens" in name] == ["model.embed_tokens.token_rows.weight"]
    resumed = adapted()
    with torch.no_grad():
        resumed.model.embed_tokens.weight[INDICES] = 7.0
    check_trained_state_dict(resumed, state)
    resumed.load_state_dict(state, strict=False)
    torch.testing.assert_close(logits(resumed), logits(model), rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_compiled_model_computes_and_trains_the_same_rows(tied):
    torch.compiler.reset()
    model = adapted(tied=tied)
    perturb(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    gradients = []
    for either in (model, compiled):
        model.zero_grad(set_to_none=True)
        out = logits(either)
        (out * torch.linspace(-1, 1, 60)).square().sum().backward()
        gradients.append([out.detach(), *(rows.weight.grad for rows in token_rows_of(model).values())])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)


def test_a_table_whose_output_is_scaled_scales_the_rows():
    torch.manual_seed(0)
    model = tf.Gemma3ForCausalLM(GEMMA).eval()
    reference = copy.deepcopy(model)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q"], token_rows={"embed_tokens": INDICES}))
    (rows,) = token_rows_of(model).values()
    with torch.no_grad():
        rows.weight.normal_()
        reference.model.embed_tokens.weight[INDICES] = rows.weight
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-5, atol=1e-5)


def test_rows_of_a_narrow_table_train_in_float32():
    model = build().bfloat16()
    inject_adapters(model, config())
    (rows,) = token_rows_of(model).values()
    assert rows.weight.dtype == model.bfloat16().model.embed_tokens.token_rows.weight.dtype == torch.float32
    assert logits(model).dtype == torch.bfloat16


def test_a_vocabulary_that_has_grown_is_saved_by_its_new_rows(tmp_path):
    build().save_pretrained(tmp_path / "base")
    model = tf.LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    model.resize_token_embeddings(62)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q"], token_rows={"embed_tokens": [60, 61]}))
    perturb(model)
    save_adapters(model, tmp_path / "adapter")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not any("embed_tokens.weight" in name or "lm_head" in name for name in kept)
    read = tf.LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    read.resize_token_embeddings(62)
    load_adapters(read, tmp_path / "adapter")
    torch.testing.assert_close(logits(read), logits(model), rtol=0, atol=0)
    remove_adapters(model)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q"], token_rows={"embed_tokens": [60]}))
    with pytest.raises(RuntimeError, match=r"rows 61 of `model.embed_tokens` are new too, and would be lost"):
        save_adapters(model, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_rows": {"embed": [1]}}, r"'embed' matches no embedding or linear layer.*embed_tokens"),
        ({"token_rows": {"q_proj": [1]}}, r"'q_proj' matches several layers: model.layers.0"),
        ({"token_rows": {"embed_tokens": [60]}}, r"has 60, but `model.embed_tokens` has 60 rows"),
        ({"token_rows": {"embed_tokens": [1], "lm_head": [1]}}, r"'lm_head' and 'embed_tokens' are of one table"),
        ({"token_rows": {"embed_tokens": [1]}, "heads": ["lm_head"]}, r"`lm_head` trains in full already"),
        ({"token_rows": {"embed_tokens": [1]}, "targets": ["embed_tokens"]}, r"`model.embed_tokens` is adapted, too"),
    ],
)
def test_rows_that_cannot_be_trained_are_refused(options, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        inject_adapters(model, AdapterConfig(**{"rank": 2, "targets": ["q"], **options}))
    assert not token_rows_of(model)
    assert not any("adapters" in name for name in model.state_dict())


@pytest.mark.parametrize("indices", [[], [1, 1], [-1]])
def test_indices_are_checked(indices):
    with pytest.raises(ValueError, match="token_rows"):
        AdapterConfig(token_rows={"embed_tokens": indices})
