"""Read adapter directories in PEFT's layout, of ours or of `peft`, full or compact; :mod:`.save` has the format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.files.redraw import CHECKSUM_TOLERANCE, checksum, redraw_A
from asym_lightning.adapters.files.save import COMPACT_TYPE, CONFIG_FILE, KEY_PREFIX, METADATA_KEY, TENSOR_FILE
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name
from asym_lightning.adapters.surgery.inject import inject_adapters, remove_adapters
from asym_lightning.core.dtensor import sharded_like

_REFUSED_FEATURES = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "trainable_token_indices",
)


def load_adapters(model: nn.Module, directory: str | Path) -> None:
    """Load an adapter directory of ours or of `peft` into ``model``, which is adapted first where it is not yet.

    Everything is checked before the first number changes.

    Raises:
        FileNotFoundError: There is no adapter in ``directory``.
        ValueError: A file is damaged, holds features that are not LoRA's, or does not fit the model; the message names
            file or layer, what was expected and what was found.
    """
    saved = _read(Path(directory))
    was_adapted = bool(adapter_layers(model))
    if not was_adapted:
        trainable = {name: p.requires_grad for name, p in model.named_parameters()}
        inject_adapters(model, saved.config, draw=False)
    try:
        _assign(model, saved)
    except Exception:
        if not was_adapted:
            remove_adapters(model)
            for name, p in model.named_parameters():
                p.requires_grad_(trainable[name])
        raise


class _Saved(NamedTuple):
    """A directory's contents: factors by layer, as one (A, B) pair or by slice, and what goes with them."""

    path: Path
    config: AdapterConfig
    ranks: Mapping[str, int] | None
    checksums: Mapping[str, float]
    is_compact: bool
    factors: dict[str, Tensor]
    scalings: dict[str, float]
    others: dict[str, Tensor]


def _read(directory: Path) -> _Saved:
    config_path, tensor_path = directory / CONFIG_FILE, directory / TENSOR_FILE
    for path in (config_path, tensor_path):
        if not path.is_file():
            raise FileNotFoundError(f"`{directory}` holds no adapter: it lacks {path.name}.")
    try:
        peft_config = json.loads(config_path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{config_path}` is not valid JSON ({error}).") from error
    try:
        with safe_open(tensor_path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"`{tensor_path}` is damaged or no safetensors file ({error}).") from error
    kind = peft_config.get("peft_type") if isinstance(peft_config, dict) else None
    if kind not in ("LORA", COMPACT_TYPE):
        raise ValueError(f"`{config_path}` should have peft_type LORA (or {COMPACT_TYPE}), found {kind!r}.")
    factors, others = _sort_keys(tensors, tensor_path)
    if kind == COMPACT_TYPE:
        metadata = peft_config[METADATA_KEY]
    elif METADATA_KEY in header:
        metadata = json.loads(header[METADATA_KEY])
    else:
        return _foreign(peft_config, config_path, factors, others)
    try:
        config = AdapterConfig(**metadata["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{directory}` was saved with a configuration that is not known here: {error}") from error
    return _Saved(
        directory, config, metadata["ranks"], metadata.get("checksums", {}), kind == COMPACT_TYPE, factors, {}, others
    )


def _sort_keys(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Factors under ``layer.lora_A`` and ``layer.lora_B``, and the rest (heads) under their own names."""
    factors: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(KEY_PREFIX)
        if name.endswith((".lora_A.weight", ".lora_B.weight")):
            factors[name.removesuffix(".weight")] = tensor
        elif "lora_" in name or not key.startswith(KEY_PREFIX):
            raise ValueError(f"`{path}` holds `{key}`, which is neither a LoRA factor nor a head's tensor.")
        else:
            others[name] = tensor
    if not factors:
        raise ValueError(f"`{path}` holds no LoRA factors.")
    return factors, others


def _foreign(peft_config: dict[str, Any], path: Path, factors: dict[str, Tensor], others: dict[str, Tensor]) -> _Saved:
    """What `peft` wrote itself: every layer is adapted as a whole, both factors trained."""
    used = [feature for feature in _REFUSED_FEATURES if peft_config.get(feature)]
    if peft_config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise ValueError(
            f"`{path}` uses {', '.join(f'`{u}`' for u in used)}, which plain low-rank adapters don't have."
        )
    # Longest first: a name may be the suffix of another, and the first match in a pattern counts.
    layers = sorted({name.rpartition(".")[0] for name in factors}, key=len, reverse=True)
    ranks = {layer: len(factors[f"{layer}.lora_A"]) for layer in layers if f"{layer}.lora_A" in factors}
    scalings = {layer: _peft_scaling(peft_config, layer, rank) for layer, rank in ranks.items()}
    config = AdapterConfig(
        scheme="hB_zero_hA_he",
        rank=peft_config["r"],
        alpha=peft_config["lora_alpha"],
        dropout=peft_config.get("lora_dropout", 0.0),
        targets=layers,
        heads=[h for h in peft_config.get("modules_to_save") or () if any(f".{h}." in f".{name}" for name in others)],
        rank_pattern=ranks,
        alpha_pattern={layer: scaling * ranks[layer] for layer, scaling in scalings.items()},
    )
    return _Saved(path.parent, config, None, {}, False, factors, scalings, others)


def _peft_scaling(peft_config: dict[str, Any], layer: str, rank: int) -> float:
    patterns = (peft_config.get("alpha_pattern") or {}).items()
    alpha = next((a for key, a in patterns if re.match(rf"(.*\.)?({key})$", layer)), peft_config["lora_alpha"])
    return alpha / (rank**0.5 if peft_config.get("use_rslora") else rank)


def _assign(model: nn.Module, saved: _Saved) -> None:
    layers = adapter_layers(model)
    staged: list[tuple[Tensor, Tensor]] = []
    ranks: dict[str, int] = {}
    wanted: set[str] = set()
    for name, layer in layers.items():
        for slice_name, (A, B) in _slices_of(name, layer, saved, wanted).items():
            adapter = layer.adapters[slice_name]
            rank = A.shape[0]
            if rank > adapter.max_rank or A.shape[1] != adapter.d_in or B.shape != (adapter.d_out, rank):
                raise ValueError(
                    f"`{saved.path}` does not fit `{name}` ({slice_name}): the model has room for A "
                    f"{(adapter.max_rank, adapter.d_in)} and B {(adapter.d_out, adapter.max_rank)}, found "
                    f"A {tuple(A.shape)} and B {tuple(B.shape)}."
                )
            ranks[f"{name}.{slice_name}"] = rank
            staged.append((adapter.factor_A, nn.functional.pad(A, (0, 0, 0, adapter.max_rank - rank))))
            staged.append((adapter.factor_B, nn.functional.pad(B, (0, adapter.max_rank - rank))))
    unknown = [key for key in saved.factors if key not in wanted]
    if unknown:
        raise ValueError(f"`{saved.path}` adapts `{unknown[0].rpartition('.')[0]}`, which is not adapted in the model.")
    state = model.state_dict()
    for name, tensor in saved.others.items():
        if name not in state or state[name].shape != tensor.shape:
            here = tuple(state[name].shape) if name in state else "no such tensor"
            raise ValueError(f"`{saved.path}` holds `{name}` {tuple(tensor.shape)}, the model has {here}.")
        staged.append((state[name], tensor))
    with torch.no_grad():
        for target, source in staged:
            target.copy_(sharded_like(source, target))
    for name, adapter in adapters_by_name(model).items():
        adapter.rank = ranks[name]


def _slices_of(name: str, layer: AdaptedLayer, saved: _Saved, wanted: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each slice of one layer, with the model's own scaling; adds the keys it reads to ``wanted``."""
    if saved.is_compact:
        return {s: _compact_slice(name, s, layer, saved, wanted) for s in layer.adapters}
    keys = (f"{name}.lora_A", f"{name}.lora_B")
    wanted.update(keys)
    missing = [key for key in keys if key not in saved.factors]
    if missing:
        raise ValueError(f"`{saved.path}` lacks `{missing[0]}`, which the model needs.")
    A, B = (saved.factors[key].flatten(1) for key in keys)
    return _split_joined(name, layer, A, B, saved)


def _split_joined(
    name: str, layer: AdaptedLayer, A: Tensor, B: Tensor, saved: _Saved
) -> dict[str, tuple[Tensor, Tensor]]:
    """Undo :func:`_joined`."""
    adapters = layer.adapters
    first = next(iter(adapters.values()))
    scaling = saved.scalings.get(name, first.scaling)
    covered = sum(rows.count for rows in adapters.rows.values())
    if B.shape[0] != layer.weight_matrix().shape[0]:
        raise ValueError(
            f"`{saved.path}` does not fit `{name}`: B should have {layer.weight_matrix().shape[0]} rows, found "
            f"{B.shape[0]}."
        )
    slices: dict[str, tuple[Tensor, Tensor]] = {}
    column = 0
    left = B.clone()
    for slice_name, adapter in adapters.items():
        rows = adapters.rows[slice_name]
        if adapters.shares_a:
            columns = slice(0, A.shape[0])
        else:
            rank = A.shape[0] if len(adapters) == 1 else _saved_rank(saved, f"{name}.{slice_name}", adapter.rank)
            columns = slice(column, column + rank)
            column += rank
        block = rows.take(B[:, columns], 0)
        rows.view(left[:, columns], 0).zero_()
        slices[slice_name] = (A[columns], block * (scaling / adapter.scaling))
    if left.any() or (covered and not adapters.shares_a and column != A.shape[0]):
        raise ValueError(
            f"`{saved.path}` mixes the slices {', '.join(adapters)} of `{name}` in one A; adapt the model with "
            "`share_a: true`, or the whole layer by its name, to load it."
        )
    return slices


def _saved_rank(saved: _Saved, key: str, default: int) -> int:
    return default if saved.ranks is None else saved.ranks.get(key, default)


def _compact_slice(
    name: str, slice_name: str, layer: AdaptedLayer, saved: _Saved, wanted: set[str]
) -> tuple[Tensor, Tensor]:
    key = f"{name}.{slice_name}"
    wanted.update((f"{key}.lora_A", f"{key}.lora_B"))
    if f"{key}.lora_B" not in saved.factors:
        raise ValueError(f"`{saved.path}` lacks `{key}.lora_B`, which the model needs.")
    B = saved.factors[f"{key}.lora_B"]
    if f"{key}.lora_A" in saved.factors:
        return saved.factors[f"{key}.lora_A"], B
    if key not in saved.checksums:
        raise ValueError(f"`{saved.path}` has neither A nor a checksum of it for `{key}`.")
    A = redraw_A(layer, slice_name, rank=B.shape[1])
    if abs(checksum(A) - saved.checksums[key]) > CHECKSUM_TOLERANCE:
        raise ValueError(
            f"A of `{key}`, redrawn from seed {layer.adapters.config.seed}, has checksum {checksum(A):.6f}, but "
            f"`{saved.path}` expects {saved.checksums[key]:.6f}; was it saved with another seed, init or backbone?"
        )
    return A, B
