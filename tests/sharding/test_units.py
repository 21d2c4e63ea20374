"""Units for FSDP1 and FSDP2, and what torch's FSDP1, which runs on the CPU, makes of them."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters, trained_state_dict
from asym_lightning.sharding import AdapterWrapPolicy, blocks, large_embeddings
from tests.adapters.models import HF_MODELS, hf_model, tiny_vit
from tests.language_models import tiny_llama
from tests.two_processes import in_two_processes


@pytest.mark.parametrize("name", [n for n in HF_MODELS if n not in ("albert",)])
def test_blocks_of_transformers_are_their_layers(name):
    model = hf_model(name)
    report = inject_adapters(model, AdapterConfig(rank=2, targets="all-linear"))
    found = blocks(model)
    assert len(found) == (4 if name in ("bart", "t5") else 2), list(found)
    outside = {row.layer for row in report.layers if not row.layer.startswith(tuple(f"{b}." for b in found))}
    assert outside <= {"bert.pooler.dense", "electra.embeddings_project", "vit.embeddings.patch_embeddings.projection"}


def test_blocks_of_image_models_are_the_innermost_repeated_ones():
    assert list(blocks(tiny_vit())) == ["blocks.0", "blocks.1"]
    names = list(blocks(timm.create_model("swin_tiny_patch4_window7_224")))
    assert len(names) == 12 and names[0] == "layers.0.blocks.0"
    assert len(blocks(timm.create_model("resnet50"))) == 16
    assert len(blocks(timm.create_model("convnext_tiny"))) == 18


def test_large_embeddings_are_those_of_a_weight_of_their_own():
    assert list(large_embeddings(tiny_llama(1000))) == ["model.embed_tokens"]
    assert not large_embeddings(tiny_llama(1000, tie_word_embeddings=True))
    assert not large_embeddings(tiny_llama(60))


def gradient_bytes(policy) -> tuple[int, dict]:
    """In both processes: bytes of the gradients that a backward pass under FSDP1 reduces, and the trained ones."""
    model = tiny_llama(64)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    sent = [0]
    name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    reduce_scatter = getattr(dist, name)

    def counted(output, tensor, *args, **options):
        sent[0] += tensor.nbytes
        return reduce_scatter(output, tensor, *args, **options)

    setattr(dist, name, counted)
    sharded = FullyShardedDataParallel(
        model, auto_wrap_policy=policy, device_id=torch.device("cpu"), use_orig_params=True
    )
    ids = torch.arange(3, 27).view(2, 12)[dist.get_rank() :][:1]
    sharded(input_ids=ids, labels=ids).loss.backward()
    with FullyShardedDataParallel.summon_full_params(sharded, with_grads=True):
        found = {
            key.replace("_fsdp_wrapped_module.", ""): p.grad.clone()
            for key, p in sharded.named_parameters()
            if p.requires_grad
        }
    setattr(dist, name, reduce_scatter)
    return sent[0], found


def names_under_fsdp1() -> tuple[list[str], set[str]]:
    """In both processes: layers, and what a checkpoint holds of a full state dict."""
    model = tiny_llama(64)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    full = model.state_dict()
    holder = torch.nn.ModuleDict({"net": model})
    FullyShardedDataParallel(
        holder, auto_wrap_policy=AdapterWrapPolicy(), device_id=torch.device("cpu"), use_orig_params=True
    )
    held = trained_state_dict(holder, {f"net.{name}": tensor for name, tensor in full.items()})
    return list(adapter_layers(holder)), set(held)


def under_fsdp1() -> dict:
    dist.init_process_group("gloo")
    return {"ours": gradient_bytes(AdapterWrapPolicy()), "naive": gradient_bytes(None), "names": names_under_fsdp1()}


def test_fsdp1_exchanges_gradients_of_adapters_only():
    found = in_two_processes(under_fsdp1)[0].value
    model = tiny_llama(64)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    ids = torch.arange(3, 27).view(2, 12)
    sum(model(input_ids=row[None], labels=row[None]).loss / 2 for row in ids).backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(found["ours"][1][name], p.grad, rtol=1e-5, atol=1e-7)
    factors = sum(p.nbytes for name, p in model.named_parameters() if ".factor_" in name)
    everything = sum(p.nbytes for p in model.parameters())
    assert found["ours"][0] <= 1.1 * factors
    assert found["naive"][0] >= everything
    layers, held = found["names"]
    assert layers == [f"net.model.layers.{i}.self_attn.{part}_proj" for i in (0, 1) for part in "qv"]
    assert all(".adapters." in name for name in held) and len(held) == 3 * len(layers)
