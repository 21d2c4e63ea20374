"""Adapters of experts under FSDP2, which shards the three-dimensional parameter that they are beside."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import transformers as tf
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters, load_adapters, save_adapters
from asym_lightning.core.dtensor import is_sharded, whole
from asym_lightning.sharding import shard_module
from tests.two_processes import in_two_processes

TOKENS = torch.tensor([[3, 5, 18, 19, 7, 8], [8, 18, 3, 3, 9, 2]])


def mixtral() -> tf.MixtralForCausalLM:
    torch.manual_seed(0)
    return tf.MixtralForCausalLM(
        tf.MixtralConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0,
        )
    )  # fmt: skip


def trained(model: tf.MixtralForCausalLM) -> list[Tensor]:
    """Two steps; every B, and the logits after."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    factors = [a.factor_B for layer in adapter_layers(model).values() for a in layer.adapters.values()]
    with torch.no_grad():
        return [*(whole(factor).clone() for factor in factors), model(input_ids=TOKENS).logits]


def sharded(folder, share: bool) -> list[Tensor]:
    """In both processes."""
    dist.init_process_group("gloo")
    model = mixtral()
    inject_adapters(model, AdapterConfig(rank=2, targets=["experts", "q"], share_expert_a=share))
    shard_module(model, init_device_mesh("cpu", (2,)))
    assert all(is_sharded(p) for p in model.parameters())
    found = trained(model)
    save_adapters(model, folder / "sharded")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("share", [True, False])
def test_two_processes_come_to_the_experts_of_one(share, tmp_path):
    outcomes = in_two_processes(sharded, tmp_path, share)
    model = mixtral()
    inject_adapters(model, AdapterConfig(rank=2, targets=["experts", "q"], share_expert_a=share))
    expected = trained(model)
    assert sum(bool(B.any()) for B in expected) > 4  # an expert may get no token
    for outcome in outcomes:
        torch.testing.assert_close(outcome.value, expected, rtol=1e-4, atol=1e-6)
    read = mixtral()
    load_adapters(read, tmp_path / "sharded")
    torch.testing.assert_close(read(input_ids=TOKENS).logits, expected[-1], rtol=1e-5, atol=1e-5)
