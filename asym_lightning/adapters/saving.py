"""Write adapter directories in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

What is written here `peft` reads. Two things PEFT's layout has no word for:

* Slices of a fused layer. PEFT keeps one A and one B a layer, so the A's are stacked and the B's become a
  block-diagonal matrix, which is the same update at the sum of the ranks. One shared A needs no blocks.
* Our configuration. It is in the safetensors header, where `peft` does not look.

The compact form leaves out every frozen A that its seed gives back; ``adapter_config.json`` then holds seed, rule and
checksums under ``asym_lightning`` and a ``peft_type`` of its own, so that `peft` refuses the file and does not invent
an A.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.injection import adapter_layers, adapters_by_name
from asym_lightning.adapters.layers import AdaptedConv2d, AdaptedLayer
from asym_lightning.adapters.redraw import checksum, redraw_A
from asym_lightning.adapters.targets import find_heads

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
COMPACT_TYPE = "ASYM_LIGHTNING_COMPACT"
METADATA_KEY = "asym_lightning"
KEY_PREFIX = "base_model.model."


def save_adapters(model: nn.Module, directory: str | Path, *, include_frozen: bool = True) -> None:
    """Write the adapters and the trained heads of ``model`` to ``directory``; files appear whole or not at all.

    Args:
        model: An adapted model; its layers go by their names in it.
        directory: Where to write; other files there are left alone.
        include_frozen: ``False`` leaves out each frozen A that seed and rule give back (and only those), which halves
            the file. `peft` can't read that form.

    Raises:
        RuntimeError: The model has no adapters, or they are merged.
    """
    layers = adapter_layers(model)
    if not layers:
        raise RuntimeError("The model has no adapters to save (merged ones must be unmerged first).")
    config = next(iter(layers.values())).adapters.config
    heads = _trained_heads(model, config)
    metadata: dict[str, Any] = {
        "config": config.to_dict(),
        "ranks": {name: adapter.rank for name, adapter in adapters_by_name(model).items()},
    }
    if include_frozen:
        tensors, peft_config = _peft_form(model, layers, config, heads)
        header = {"format": "pt", METADATA_KEY: json.dumps(metadata)}
    else:
        tensors, metadata["checksums"] = _compact_form(layers)
        peft_config = {"peft_type": COMPACT_TYPE, "modules_to_save": heads, METADATA_KEY: metadata}
        header = {"format": "pt"}
    for head in heads:
        for name, tensor in model.get_submodule(head).state_dict().items():
            tensors[f"{KEY_PREFIX}{head}.{name}"] = tensor
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    _write(Path(directory), tensors, header, peft_config)


def _peft_form(
    model: nn.Module, layers: Mapping[str, AdaptedLayer], config: AdapterConfig, heads: list[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, layer in layers.items():
        A, B, scaling = _joined(layer)
        ranks[name], alphas[name] = A.shape[0], scaling * A.shape[0]
        if isinstance(layer, AdaptedConv2d):
            A, B = A.view(-1, *layer.weight.shape[1:]), B[..., None, None]
        tensors[f"{KEY_PREFIX}{name}.lora_A.weight"], tensors[f"{KEY_PREFIX}{name}.lora_B.weight"] = A, B
    alpha = config.rank * config.scaling(config.rank, config.alpha)
    model_config = getattr(model, "config", None)
    return tensors, {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": getattr(model_config, "_name_or_path", None) or None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "bias": "none",
        "fan_in_fan_out": any(type(layer).__name__ == "AdaptedConv1D" for layer in layers.values()),
        "target_modules": list(layers),
        "modules_to_save": heads or None,
        "rank_pattern": {re.escape(name): r for name, r in ranks.items() if r != config.rank},
        "alpha_pattern": {re.escape(name): a for name, a in alphas.items() if a != alpha},
    }


def _joined(layer: AdaptedLayer) -> tuple[Tensor, Tensor, float]:
    """The layer's update as one A (r, d_in), one B (d_out, r) and a scaling; r sums the slices' ranks."""
    adapters = layer.adapters
    first = next(iter(adapters.values()))
    d_out = layer.weight_matrix().shape[0]
    As = [first.A] if adapters.shares_a else [adapter.A for adapter in adapters.values()]
    A = torch.cat([a.detach() for a in As])
    B = A.new_zeros(d_out, A.shape[0])
    column = 0
    for name, adapter in adapters.items():
        rows = adapters.rows[name]
        block = adapter.B.detach() * (adapter.scaling / first.scaling)
        columns = slice(column, column + adapter.rank)
        rows.view(B[:, columns], 0).copy_(rows.split(block, 0))
        column += 0 if adapters.shares_a else adapter.rank
    return A, B, first.scaling


def _compact_form(layers: Mapping[str, AdaptedLayer]) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors: dict[str, Tensor] = {}
    checksums: dict[str, float] = {}
    for name, layer in layers.items():
        for slice_name, adapter in layer.adapters.items():
            key = f"{name}.{slice_name}"
            tensors[f"{KEY_PREFIX}{key}.lora_B.weight"] = adapter.B
            if not adapter.factor_A.requires_grad and torch.equal(adapter.A, redraw_A(layer, slice_name)):
                checksums[key] = checksum(adapter.A)
            else:
                tensors[f"{KEY_PREFIX}{key}.lora_A.weight"] = adapter.A
    return tensors, checksums


def _trained_heads(model: nn.Module, config: AdapterConfig) -> list[str]:
    heads = find_heads(model, config.heads)
    trained = [h for h in heads if any(p.requires_grad for p in model.get_submodule(h).parameters())]
    # A head within a head is saved with it.
    return [h for h in trained if not any(h.startswith(f"{other}.") for other in trained)]


def _task_type(model: nn.Module) -> str | None:
    """PEFT's name of the task, from a transformers class name; ``None`` for other models."""
    for suffix, task in (
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForCausalLM", "CAUSAL_LM"),
        ("LMHeadModel", "CAUSAL_LM"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
    ):
        if type(model).__name__.endswith(suffix):
            return task
    return None


def _write(directory: Path, tensors: dict[str, Tensor], header: dict[str, str], config: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".saving-", dir=directory))
    try:
        save_file(tensors, staging / TENSOR_FILE, metadata=header)
        (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        for name in (TENSOR_FILE, CONFIG_FILE):
            os.replace(staging / name, directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
