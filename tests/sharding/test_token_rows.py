"""Rows of new tokens under FSDP2: they start, train and are saved as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import transformers as tf
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from asym_lightning.adapters import AdapterConfig, inject_adapters, load_adapters, merge_adapters, save_adapters
from asym_lightning.adapters.layers.token_rows import token_rows_of
from asym_lightning.core.dtensor import is_sharded, whole
from asym_lightning.sharding import PretrainedWeights, empty_parameters, materialize, shard_module
from tests.language_models import tiny_llama
from tests.two_processes import in_two_processes

INDICES = [58, 3, 59]
TOKENS = torch.tensor([[3, 5, 58, 59, 7, 8], [8, 58, 3, 3, 9, 2]])


def config(tied: bool) -> AdapterConfig:
    names = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    return AdapterConfig(rank=2, targets=["q"], token_rows=dict.fromkeys(names, INDICES))


def trained(model: tf.PreTrainedModel) -> list[Tensor]:
    """Two steps; the logits before, and the rows after."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with torch.no_grad():
        out = [model(input_ids=TOKENS).logits]
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    return out + [whole(rows.weight).clone() for rows in token_rows_of(model).values()]


def sharded(folder: Path, tied: bool) -> list[Tensor]:
    """In both processes."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    with empty_parameters():
        model = tf.AutoModelForCausalLM.from_config(tf.AutoConfig.from_pretrained(folder / "base"))
    inject_adapters(model, config(tied))
    shard_module(model, mesh)
    materialize(model, PretrainedWeights.of(str(folder / "base")), (), model._init_weights)
    assert all(is_sharded(p) for p in model.parameters())
    found = trained(model)
    save_adapters(model, folder / "sharded")
    with pytest.raises(RuntimeError, match="merge them into the model loaded whole"):
        merge_adapters(model)
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_two_processes_come_to_the_rows_of_one(tied, tmp_path):
    tiny_llama(60, tie_word_embeddings=tied).save_pretrained(tmp_path / "base")
    outcomes = in_two_processes(sharded, tmp_path, tied)
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    inject_adapters(model, config(tied))
    expected = trained(model)
    for outcome in outcomes:
        torch.testing.assert_close(outcome.value, expected, rtol=1e-5, atol=1e-6)
    read = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    load_adapters(read, tmp_path / "sharded")
    torch.testing.assert_close(read(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits, rtol=1e-5, atol=1e-5)
