"""Rows of embeddings that `peft` trains for new tokens, tied to the output layer or not."""

import copy
import json

import peft
import pytest
import torch

from asym_lightning.adapters import adapter_layers, load_adapters, merge_adapters, save_adapters
from asym_lightning.adapters.layers.token_rows import layers_with, token_rows_of
from tests.adapters.models import HF_MODELS, hf_inputs, perturb

INDICES = [3, 58, 59]


def build(*, tied):
    torch.manual_seed(0)
    cls, config = HF_MODELS["llama"]
    config = copy.deepcopy(config)
    config.tie_word_embeddings = tied
    return cls(config).eval()


def inputs():
    found = hf_inputs("llama")
    found["input_ids"][:, ::2] = torch.tensor(INDICES + INDICES[:1])
    return found


def write(directory, *, tied, indices=INDICES, **options):
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], trainable_token_indices=indices, **options)
    theirs = peft.get_peft_model(build(tied=tied), config).eval()
    perturb(theirs)
    theirs.save_pretrained(directory)
    return theirs(**inputs()).logits


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "indices": {"embed_tokens": INDICES}}])
@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_new_tokens_load_as_what_they_change(tied, options, tmp_path):
    expected = write(tmp_path, tied=tied, **options)
    ours = build(tied=tied)
    base = ours(**inputs()).logits
    load_adapters(ours, tmp_path)
    (rows,) = token_rows_of(ours).values()
    assert rows.indices == tuple(INDICES)
    sharing = [name for name, layer in ours.named_modules() if layer in list(layers_with(ours, rows))]
    assert sharing == ["model.embed_tokens", "lm_head"][: 1 + tied]
    assert not torch.allclose(base, expected, atol=1e-2)
    torch.testing.assert_close(ours(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)
    save_adapters(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(build(tied=tied), tmp_path / "ours").eval()
    torch.testing.assert_close(again(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)
    merge_adapters(ours)
    changed = ours.model.embed_tokens.weight != build(tied=tied).model.embed_tokens.weight
    assert changed.any(1).nonzero().flatten().tolist() == INDICES
    torch.testing.assert_close(ours(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("indices", [[3, 58], [3, 58, 60], [3, 58, -1], [3, 58, 58]])
def test_indices_that_are_not_of_the_rows_are_refused(indices, tmp_path):
    write(tmp_path, tied=False)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainable_token_indices": indices}))
    ours = build(tied=False)
    with pytest.raises(ValueError, match=r"`trainable_token_indices` of `model.embed_tokens`, which has 60 rows of 24"):
        load_adapters(ours, tmp_path)
    assert adapter_layers(ours) == {}


def test_rows_that_the_configuration_names_and_the_file_lacks_are_refused(tmp_path):
    peft.get_peft_model(build(tied=False), peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainable_token_indices": [3]}))
    ours = build(tied=False)
    with pytest.raises(ValueError, match=r"has `trainable_token_indices`, and the file beside it holds no such rows"):
        load_adapters(ours, tmp_path)
    assert adapter_layers(ours) == {}
