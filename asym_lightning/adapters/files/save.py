"""Write adapter directories in PEFT's layout, see :mod:`.directory`.

What is written here `peft` reads. Two things PEFT's layout has no word for:

* Slices of a fused layer. PEFT keeps one A and one B a layer, so the A's are stacked and the B's become a
  block-diagonal matrix, which is the same update at the sum of the ranks. One shared A needs no blocks.
* Our configuration. It is in the safetensors header, where `peft` does not look.

Readers that know one rank and one alpha (vLLM, llama.cpp) read it too: scalings that differ are folded into B, and
factors of a smaller rank are padded with zeros to the largest.

The compact form leaves out every frozen A that its seed gives back; ``adapter_config.json`` then holds seed, rule and
checksums under ``asym_lightning`` and a ``peft_type`` of its own, so that `peft` refuses the file and does not invent
an A.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.files import token_rows
from asym_lightning.adapters.files.backbone import backbone_sample
from asym_lightning.adapters.files.beside import modules_beside
from asym_lightning.adapters.files.directory import KEY_PREFIX, METADATA_KEY, AdapterContents, write_directory
from asym_lightning.adapters.files.redraw import checksum, redraw_A
from asym_lightning.adapters.files.schema import COMPACT_TYPE, first_not_finite, without_buffers
from asym_lightning.adapters.layers.adapted import AdaptedLayer, PeftPlace
from asym_lightning.adapters.layers.kinds.registry import kinds
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name, factors_by_name
from asym_lightning.adapters.layers.token_rows import TokenRows
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.dtensor import any_sharded, is_sharded, whole_state_dict
from asym_lightning.core.names import plain_modules, plain_state, submodule

# In a model with experts PEFT takes targets of these names for experts, which were layers once and are parameters now,
# and looks for nothing else. So a layer that has such a name goes by its parameter.
_OLD_NAMES_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
_NUM_SAMPLED_LAYERS = 8
Factors = dict[str, tuple[Tensor, Tensor]]


def save_adapters(
    model: nn.Module,
    directory: str | Path,
    *,
    include_frozen: bool = True,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the adapters, and the modules beside them that train or have changed; files appear whole or not at all.

    Beside the adapters are the heads, what else has been unfrozen, modules whose buffers have changed since the model
    was adapted, such as running statistics, and the embeddings of a model of transformers whose vocabulary has been
    resized since it was read.

    Where the model is sharded every process has to call it: adapters and heads are gathered, and the first one writes.

    Args:
        model: An adapted model; its layers go by their names in it.
        directory: Where to write; other files there are left alone.
        include_frozen: ``False`` leaves out each frozen A that seed and rule give back (and only those), which halves
            the file. `peft` can't read that form.
        state: Adapters and heads by their plain names in ``model``, where they are gathered already; then
            this process writes and no other has to take part.

    Raises:
        RuntimeError: The model has no adapters, or they are merged, or something that trains or has changed lies in no
            module that could be saved whole.
        ValueError: A factor or a parameter holds NaN or infinity.
    """
    contents = adapter_contents(model, include_frozen=include_frozen, state=state)
    if contents is not None:
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in contents.tensors.items()}
        named = {key.removeprefix(KEY_PREFIX): tensor for key, tensor in tensors.items()}
        if (name := first_not_finite(without_buffers(model, named))) is not None:
            raise ValueError(
                f"`{name}` holds NaN or infinity: the run has diverged, and `{directory}` is left as it was."
            )
        write_directory(Path(directory), contents._replace(tensors=tensors))


def adapter_contents(
    model: nn.Module, *, include_frozen: bool = True, state: Mapping[str, Tensor] | None = None
) -> AdapterContents | None:
    """What :func:`save_adapters` writes, or ``None`` in all processes but the first where the model is sharded.

    Raises:
        RuntimeError: As for :func:`save_adapters`.
    """
    layers = adapter_layers(model)
    if not layers:
        raise RuntimeError("The model has no adapters to save (merged ones must be unmerged first).")
    config = next(iter(layers.values())).adapters.config
    beside, factor_names = modules_beside(model, config), set(factors_by_name(model))
    heads = [name for name in beside if not isinstance(submodule(model, name), TokenRows)]
    named = find_heads(model, config.heads)
    has_more = not all(is_within(name, named) for name in heads)
    metadata: dict[str, Any] = {
        "config": {**config.to_dict(), **({"heads": heads} if has_more else {})},
        "ranks": {name: adapter.rank for name, adapter in adapters_by_name(model).items()},
        "scaling": config.scaling(config.rank, config.alpha),
    }
    # From shards a sample is gathered by all processes, which take no part where the state is there already.
    if state is None or not any_sharded(model):
        metadata["backbone"] = backbone_sample(model, _NUM_SAMPLED_LAYERS)
    if state is None:
        own, is_writer = plain_state(model), True
        if any_sharded(model):
            is_writer = dist.get_rank() == 0
            own = whole_state_dict(own, _saved_names(own, factor_names, beside), keep=is_writer)
        if not is_writer:
            return None
        state = own
    factors = {name: _factors(name, layer, state) for name, layer in layers.items()}
    if include_frozen:
        tensors, peft_config = _peft_form(model, layers, factors, config, heads)
        header = {"format": "pt", METADATA_KEY: json.dumps(metadata)}
    else:
        tensors, metadata["checksums"] = _compact_form(layers, factors)
        peft_config = {"peft_type": COMPACT_TYPE, "modules_to_save": heads, METADATA_KEY: metadata}
        header = {"format": "pt"}
    kept = {name: state[name] for name in _saved_names(state, set(), beside) if name not in factor_names}
    others, indices = token_rows.in_peft_form(model, kept)
    tensors.update({f"{KEY_PREFIX}{name}": tensor for name, tensor in others.items()})
    if indices:
        peft_config[token_rows.FIELD] = indices
    return AdapterContents({name: tensor.detach() for name, tensor in tensors.items()}, header, peft_config)


def _saved_names(state: Mapping[str, Tensor], factor_names: set[str], heads: list[str]) -> list[str]:
    in_heads = tuple(f"{head}." for head in heads)
    return [name for name in state if name in factor_names or name.startswith(in_heads)]


def _factors(name: str, layer: AdaptedLayer, state: Mapping[str, Tensor]) -> Factors:
    """A (rank, d_in) and B (d_out, rank) of each slice."""
    factors: Factors = {}
    for part, adapter in layer.adapters.items():
        prefix = f"{name}.adapters.{part}".removeprefix(".")
        A, B = state[f"{prefix}.factor_A"].detach(), state[f"{prefix}.factor_B"].detach()
        factors[part] = A[: adapter.rank], B[:, : adapter.rank]
    return factors


def _peft_form(
    model: nn.Module,
    layers: Mapping[str, AdaptedLayer],
    factors: Mapping[str, Factors],
    config: AdapterConfig,
    heads: list[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    scaling = config.scaling(config.rank, config.alpha)
    joined = {name: _joined(layer, factors[name], scaling) for name, layer in layers.items()}
    places = _peft_places(model, layers)
    ranks = {name: layer.peft_rank(len(joined[name][0])) for name, layer in layers.items()}
    # Of those whose rank PEFT counts as we do; the others (groups of a convolution, an A for each expert) keep theirs.
    largest = max((rank for name, rank in ranks.items() if rank == len(joined[name][0])), default=config.rank)
    alpha = config.alpha if largest == config.rank and not config.rank_stabilized else scaling * largest
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        A, B = joined[name]
        if ranks[name] == len(A):
            missing, ranks[name] = largest - len(A), largest
            A, B = nn.functional.pad(A, (0, 0, 0, missing)), nn.functional.pad(B, (0, missing))
        for key, factor in zip(layer.peft_names, layer.to_peft(A, B), strict=True):
            tensors[f"{KEY_PREFIX}{places[name].path}.{key}"] = factor
    own = {f"^{re.escape(places[name].target)}": rank for name, rank in ranks.items() if rank != largest}
    model_config = getattr(model, "config", None)
    parameters = [place.target for place in places.values() if place.is_parameter]
    return tensors, {
        "peft_type": "LORA",
        "task_type": task_type(model),
        "base_model_name_or_path": getattr(model_config, "name_or_path", None) or None,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": alpha,
        "lora_dropout": 0.0 if parameters else config.dropout,
        "bias": "none",
        "fan_in_fan_out": any(layer.fan_in_fan_out for layer in layers.values()),
        "target_modules": list(dict.fromkeys(place.target for place in places.values() if not place.is_parameter)),
        **({"target_parameters": parameters} if parameters else {}),  # which PEFT before 0.17 warns of
        "modules_to_save": [_told_apart(head, model) for head in heads] or None,
        "rank_pattern": own,
        "alpha_pattern": {target: scaling * rank for target, rank in own.items()},
    }


def _peft_places(model: nn.Module, layers: Mapping[str, AdaptedLayer]) -> dict[str, PeftPlace]:
    """Where PEFT keeps each layer, called so that PEFT finds it there."""
    places = {name: layer.peft_place(name) for name, layer in layers.items()}
    if any(kind.parts_of(module) for module in model.modules() for kind in kinds()):
        for name, layer in layers.items():
            own_name = name.rpartition(".")[2]
            if own_name in _OLD_NAMES_OF_EXPERTS and layer.has_dense_weight and not places[name].is_parameter:
                target = f"{places[name].target}.{layer.parameter}"
                places[name] = places[name]._replace(target=target, is_parameter=True)
    return places


def _told_apart(head: str, model: nn.Module) -> str:
    """A head's name, which PEFT looks for in the ends of all names.

    Where another module's ends in it, the name is as in the keys: PEFT would wrap that one too, and miss its weights in
    the file. So it wraps neither, or with a task's wrapper the head, and reads the head all the same.
    """
    is_ambiguous = any(name.endswith(head) for name, _ in plain_modules(model) if name != head)
    return f"{KEY_PREFIX}{head}" if is_ambiguous else head


def _joined(layer: AdaptedLayer, factors: Factors, scaling: float) -> tuple[Tensor, Tensor]:
    """The layer's update as one A (r, d_in) and one B (d_out, r) for a scaling; r sums the slices' ranks."""
    adapters = layer.adapters
    d_out, _ = layer.shape_of(layer)
    As = [A for A, _ in factors.values()]
    A = torch.cat(As[:1] if adapters.shares_a else As)
    B = A.new_zeros(d_out, A.shape[0])
    column = 0
    for name, adapter in adapters.items():
        rows = adapters.rows[name]
        block = factors[name][1] * (adapter.scaling / scaling)
        columns = slice(column, column + adapter.rank)
        rows.view(B[:, columns], 0).copy_(rows.split(block, 0))
        column += 0 if adapters.shares_a else adapter.rank
    return A, B


def _compact_form(
    layers: Mapping[str, AdaptedLayer], factors: Mapping[str, Factors]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors: dict[str, Tensor] = {}
    checksums: dict[str, float] = {}
    for name, layer in layers.items():
        for slice_name, adapter in layer.adapters.items():
            key = f"{name}.{slice_name}"
            A, tensors[f"{KEY_PREFIX}{key}.lora_B.weight"] = factors[name][slice_name]
            rule = adapter.scheme.A.rule
            # From a sharded weight no A can be drawn here alone.
            is_here = not any(is_sharded(parameter) for parameter in layer.base_parameters())
            is_redrawn = rule.is_redrawn and (is_here or not rule.needs_weight)
            if not adapter.factor_A.requires_grad and is_redrawn and torch.equal(A, redraw_A(layer, slice_name).to(A)):
                checksums[key] = checksum(A)
            else:
                tensors[f"{KEY_PREFIX}{key}.lora_A.weight"] = A
    return tensors, checksums


def task_type(model: nn.Module) -> str | None:
    """PEFT's name of the task, from a transformers class name; ``None`` for other models.

    PEFT's wrappers for tasks take text, hence none for models of speech and images; that for question answering drops
    `token_type_ids`, hence none for these models either.
    """
    name, model_config = type(model).__name__, getattr(model, "config", None)
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        return None
    is_text_to_text = getattr(model_config, "is_encoder_decoder", False)
    for suffix, task in (
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
        ("ForCausalLM", "CAUSAL_LM"),
        ("LMHeadModel", "CAUSAL_LM"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM" if is_text_to_text else None),
    ):
        if name.endswith(suffix):
            return task
    return None
