"""What an adapter directory has to hold, checked as a whole before anything is done with it.

A directory may come from anybody: each check here names the file and the field, so that no later line has to doubt what
it reads. What only the model can tell (whether names and shapes are its own) is checked where it is loaded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.dtensor import is_sharded
from asym_lightning.core.kinds import FractionBelowOne, Positive, Range, check_fields, check_names
from asym_lightning.core.messages import shown
from asym_lightning.core.names import plain_name, plain_state

COMPACT_TYPE = "ASYM_LIGHTNING_COMPACT"
MAX_RANK = 2**16  # of what a file may claim: a rank is at most a layer's width
MAX_NAME = 300

Rank = Annotated[int, Range(1, MAX_RANK)]
_PEFT_FIELDS: Mapping[str, Any] = {
    "r": Rank,
    "lora_alpha": Positive,
    "lora_dropout": FractionBelowOne,
    "use_rslora": bool | None,
    "bias": Literal["none", "all", "lora_only"],
    "modules_to_save": list[str] | None,
    "rank_pattern": Mapping[str, Rank] | None,
    "alpha_pattern": Mapping[str, Positive] | None,
    "fan_in_fan_out": bool | None,
    "target_modules": list[str] | str | None,
    "task_type": str | None,
    "base_model_name_or_path": str | None,
    "inference_mode": bool | None,
    "init_lora_weights": bool | str | None,
    "layers_to_transform": list[int] | int | None,
    "layers_pattern": list[str] | str | None,
    "trainable_token_indices": list[int] | Mapping[str, list[int]] | None,
}
_METADATA_FIELDS: Mapping[str, Any] = {
    "config": Mapping[str, Any],
    "ranks": Mapping[str, Rank],
    "checksums": Mapping[str, float],
    "scaling": Positive,
    "backbone": Mapping[str, list[float]],
}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What a pattern costs: the ways in which `re` may try it on a name of layers, of which a few have some hundred letters.
_MAX_TRIES, _TRIES_OF_REPEAT = 1_000_000, 64


def check_peft_config(config: Any, path: Path) -> None:
    """Check `adapter_config.json`.

    Raises:
        ValueError: A field is missing, of another kind or out of range.
    """
    kind = config.get("peft_type") if isinstance(config, Mapping) else None
    if kind not in ("LORA", COMPACT_TYPE):
        raise ValueError(f"`{path}` should have peft_type LORA (or {COMPACT_TYPE}), found {shown(kind)}.")
    required = ("r", "lora_alpha") if kind == "LORA" else ()
    with _damage_of(path):
        check_fields("it", config, _PEFT_FIELDS, required)
        for field in ("rank_pattern", "alpha_pattern"):
            for pattern in config.get(field) or ():
                _check_pattern(field, pattern)


def check_metadata(metadata: Any, path: Path, key: str) -> None:
    """Check what we write beside PEFT's layout: configuration, ranks and, in a compact directory, checksums.

    Args:
        metadata: What was read.
        path: The file.
        key: What the file calls it.

    Raises:
        ValueError: A part is missing, of another kind or out of range.
    """
    parts = [metadata.get(part) if isinstance(metadata, Mapping) else None for part in ("config", "ranks")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"`{path}` is damaged: its `{key}` holds no config and ranks.")
    with _damage_of(path):
        check_names(f"its `{key}`", metadata, list(_METADATA_FIELDS))
        check_fields(f"its `{key}`", metadata, _METADATA_FIELDS)
    unknown = metadata["config"].keys() - {field.name for field in dataclasses.fields(AdapterConfig)}
    if unknown:
        raise ValueError(f"`{path}` has the unknown option {_quoted(min(unknown))}; was it written by a later version?")
    try:
        config = AdapterConfig(**metadata["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{path}` has a configuration that is not known here: {error}") from error
    with _damage_of(path):
        check_fields("its config", {"max_rank": config.max_rank}, {"max_rank": Rank | None})


def check_tensors(factors: Mapping[str, Tensor], others: Mapping[str, Tensor], path: Path) -> None:
    """Check names, shapes and kinds of tensors; their data need not be there, so they may be on the meta device.

    Raises:
        ValueError: One is no factor of low rank, or can be no head's.
    """
    for name, tensor in {**factors, **others}.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"`{path}` holds {shown(name)}, which is no name of a layer.")
        is_factor = name in factors
        if tensor.is_complex() or (is_factor and tensor.dtype not in _FLOATS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"`{path}` holds `{name}` in {kind}; it must be in float32, or another real floating type."
            )
        if is_factor and (tensor.dim() < 2 or not tensor.numel()):
            raise ValueError(f"`{path}` holds `{name}` of shape {tuple(tensor.shape)}; a factor has two dimensions.")


def check_factors(
    factors: Mapping[str, Tensor],
    ranks: Mapping[str, int],
    checksums: Mapping[str, float],
    path: Path,
    in_own_shapes: Container[str] = (),
) -> None:
    """Check that each A has its B, or each B its A or a checksum of it, of one rank.

    Args:
        factors: By ``layer.lora_A`` and ``layer.lora_B``.
        ranks: By layer and slice; empty where `peft` wrote the directory.
        checksums: Of the A's that were left out.
        path: The file of the tensors.
        in_own_shapes: Layers whose kind keeps factors in shapes of its own, which say nothing before it is asked.

    Raises:
        ValueError: A factor is missing, or the two of a layer are no pair.
    """
    layers = dict.fromkeys(key.rpartition(".")[0] for key in factors)
    for name in layers:
        A, B = (factors.get(f"{name}.lora_{factor}") for factor in "AB")
        if B is None or (A is None and name not in checksums):
            raise ValueError(f"`{path}` is damaged: it lacks `{name}.lora_{'B' if B is None else 'A'}`.")
        if name in in_own_shapes:
            continue
        rank = B.shape[1]
        # Of a convolution in groups PEFT has a part of A for each; a kind of one's own may keep both transposed.
        if A is not None and (len(A) < rank or len(A) % rank) and A.shape[1] != len(B):
            raise ValueError(
                f"`{path}` is damaged: A of `{name}` has {len(A)} rows, and B {rank} columns; both must be its rank."
            )
        if rank > MAX_RANK:
            raise ValueError(f"`{path}` holds `{name}` of rank {rank}; it must be at most {MAX_RANK}.")
    stray = [key for key in checksums if key not in layers or f"{key}.lora_A" in factors]
    if stray:
        raise ValueError(f"`{path}` is damaged: it has a checksum of {_quoted(stray[0])}, of which no A was left out.")
    for key, rank in ranks.items():
        owner = next((layer for layer in (key, key.rpartition(".")[0]) if layer in layers), None)
        if owner is not None and owner not in in_own_shapes and rank > factors[f"{owner}.lora_B"].shape[1]:
            raise ValueError(
                f"`{path}` is damaged: `{key}` should have rank {rank}, but B of `{owner}` has "
                f"{factors[f'{owner}.lora_B'].shape[1]} columns."
            )


def check_heads(others: Iterable[str], heads: Sequence[str], path: Path) -> None:
    """Check that tensors beside the factors are of the modules that the config says were trained.

    Raises:
        ValueError: One is of another module.
    """
    for name in others:
        if not is_within(name, heads) and not any(f".{head}." in f".{name}" for head in heads):
            raise ValueError(
                f"`{path}` holds `{name}`, which is neither a LoRA factor nor of a head: `modules_to_save` names "
                f"{', '.join(heads) or 'none'}."
            )


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that there are numbers in the tensors.

    Raises:
        ValueError: One holds NaN or an infinity.
    """
    if (name := first_not_finite(tensors)) is not None:
        raise ValueError(f"`{path}` holds NaN or infinity in `{name}`; was the run diverging? Take an earlier one.")


def first_not_finite(tensors: Mapping[str, Any]) -> str | None:
    """The first of some tensors that holds NaN or an infinity, of those that are here as a whole."""
    for name, tensor in tensors.items():
        is_readable = isinstance(tensor, Tensor) and tensor.is_floating_point() and not is_sharded(tensor)
        if is_readable and not tensor.is_meta and not torch.isfinite(tensor).all():
            return name
    return None


def without_buffers(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by their plain names in a model, but for its buffers, which may hold infinities, as a mask does."""
    parameters = {plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    others = plain_state(model).keys() - parameters
    return {name: tensor for name, tensor in tensors.items() if name not in others}


def _check_pattern(field: str, pattern: str) -> None:
    """Check that a regular expression is one, and of a kind that takes no time however it is meant."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"`{field}` has the key {shown(pattern)}, which is no regular expression ({error}).") from None
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
    repeats = len(re.findall(r"[*+?{]", plain.replace("(?:", "(")))
    choices = 1
    for group in re.split(r"[()]", plain):
        choices *= 1 + group.count("|")
    is_nested = re.search(r"\)[*+?{]|\(\?(?!:)|\\[0-9]", plain) is not None
    if len(pattern) > MAX_NAME or is_nested or choices * _TRIES_OF_REPEAT**repeats > _MAX_TRIES:
        raise ValueError(f"`{field}` has the key {shown(pattern)}, which may take for ever; use names of layers.")


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{path}` is damaged: {error}") from error


def _quoted(name: object) -> str:
    return f"`{name}`" if isinstance(name, str) and len(name) <= MAX_NAME else shown(name)
