"""Weights read shard by shard are those that transformers and timm load whole, in half of the memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
import transformers as tf
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.dtensor import is_sharded, whole
from asym_lightning.sharding import (
    PretrainedWeights,
    ShardingOptions,
    empty_parameters,
    is_empty,
    materialize,
    shard_module,
)
from benchmarks.sharded_loading import SHAPES, measure, write_weights
from tests.adapters.models import hf_model
from tests.language_models import tiny_llama
from tests.two_processes import in_two_processes


def saved(folder: Path) -> dict[str, str]:
    """Folders by case, as transformers writes them."""
    models = {
        "llama": tiny_llama(64, rope_theta=500.0),
        "tied llama": tiny_llama(64, tie_word_embeddings=True),
        "gpt2": hf_model("gpt2"),
        "bare roberta": hf_model("roberta").roberta,
        "t5": hf_model("t5"),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name, max_shard_size="20KB" if name == "llama" else "1GB")
    assert (folder / "llama" / "model.safetensors.index.json").is_file()
    return {name: str(folder / name) for name in models}


def auto_class(name: str) -> type:
    if name == "t5":
        return tf.AutoModelForSeq2SeqLM
    return tf.AutoModelForSequenceClassification if name == "bare roberta" else tf.AutoModelForCausalLM


CONFIG = AdapterConfig(rank=2, targets=["q", "v"], seed=5)
SVD = AdapterConfig(rank=2, targets=["q", "v"], scheme="hB_zero_A_V")


def load_each(folders: dict[str, str]) -> dict:
    """In both processes: the state and the logits of models that were never whole."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    results = {}
    for name, folder in folders.items():
        weights = PretrainedWeights.of(folder)
        with empty_parameters():
            model = auto_class(name).from_config(tf.AutoConfig.from_pretrained(folder))
        assert is_empty(model)
        inject_adapters(model, SVD if name == "gpt2" else CONFIG)
        shard_module(model, mesh)
        torch.manual_seed(7)
        materialize(model, weights, find_heads(model, None), model._init_weights)
        assert all(is_sharded(p) for p in model.parameters())
        state = {key: whole(value).clone() for key, value in model.state_dict().items()}
        state |= {key: value.clone() for key, value in model.named_buffers()}
        results[name] = state
    return results


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folders = saved(tmp_path_factory.mktemp("saved"))
    return folders, [outcome.value for outcome in in_two_processes(load_each, folders)]


@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2", "bare roberta", "t5"])
def test_numbers_are_those_of_a_model_that_is_loaded_whole(name, loaded):
    folders, processes = loaded
    torch.manual_seed(7)
    model = auto_class(name).from_pretrained(folders[name])
    inject_adapters(model, SVD if name == "gpt2" else CONFIG)
    expected = {**model.state_dict(), **dict(model.named_buffers())}
    for found in (process[name] for process in processes):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key


def test_buffers_are_computed_and_tied_weights_stay_tied():
    with empty_parameters():
        model = tf.AutoModelForCausalLM.from_config(tiny_llama(64, tie_word_embeddings=True).config)
        vit = timm.create_model("vit_small_patch16_rope_224", pretrained=False)
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.is_meta
    assert torch.equal(model.model.rotary_emb.inv_freq, tiny_llama(64).model.rotary_emb.inv_freq)
    real = timm.create_model("vit_small_patch16_rope_224", pretrained=False)
    for (name, buffer), (_, expected) in zip(vit.named_buffers(), real.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no file", "holds neither model.safetensors nor model.safetensors.index.json"),
        ("a file short", "lacks gone.safetensors, which its model.safetensors.index.json names"),
        ("a tensor short", "has no `lm_head.weight` in its files, which the model needs"),
        ("another shape", r"has `lm_head.weight` of shape \(3, 32\) in its file, but the model has \(64, 32\)"),
        ("half a file", "is damaged or no safetensors file"),
    ],
)
def test_files_that_do_not_fit_are_named(damage, message, tmp_path):
    model = tiny_llama(64)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if damage == "a tensor short":
        del tensors["lm_head.weight"]
    if damage == "another shape":
        tensors["lm_head.weight"] = torch.zeros(3, 32)
    file = tmp_path / "model.safetensors"
    if damage != "no file":
        save_file(tensors, file)
    if damage == "a file short":
        index = {"weight_map": dict.fromkeys(tensors, "gone.safetensors")}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        weights = PretrainedWeights.of(str(tmp_path))
        if damage == "half a file":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with empty_parameters():
            empty = tf.AutoModelForCausalLM.from_config(model.config)
        materialize(empty, weights)


@pytest.mark.gpu
def test_offloaded_shards_are_in_the_hosts_memory_and_hold_the_same_numbers(tmp_path):
    tiny_llama(64).save_pretrained(tmp_path)
    expected = tf.AutoModelForCausalLM.from_pretrained(tmp_path)
    inject_adapters(expected, CONFIG)
    dist.init_process_group("cpu:gloo,cuda:nccl", rank=0, world_size=1, store=dist.HashStore())
    try:
        with empty_parameters():
            model = tf.AutoModelForCausalLM.from_config(expected.config)
        inject_adapters(model, CONFIG)
        shard_module(model, init_device_mesh("cuda", (1,)), ShardingOptions(cpu_offload=True))
        materialize(model, PretrainedWeights.of(str(tmp_path)), device="cpu")
        for name, parameter in model.named_parameters():
            assert parameter.to_local().device.type == "cpu"
            assert torch.equal(whole(parameter), expected.get_parameter(name)), name
    finally:
        dist.destroy_process_group()


def measured(folder: Path) -> float:
    dist.init_process_group("gloo")
    return measure(folder, "ours").loaded


def test_less_than_six_tenths_of_a_llama_is_resident_in_each_of_two_processes(tmp_path):
    total = write_weights(tmp_path, SHAPES["small"]._replace(layers=12))
    for outcome in in_two_processes(measured, tmp_path):
        assert 0.45 * total < outcome.value < 0.6 * total
