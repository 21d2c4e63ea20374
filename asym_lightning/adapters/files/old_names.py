"""Names that layers had in an earlier version of transformers: adapter files keep them, and models have new ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from asym_lightning.adapters.files.directory import SavedAdapter
from asym_lightning.adapters.layers.kinds.registry import layers_of
from asym_lightning.core.names import plain_modules, plain_state


def under_present_names(saved: SavedAdapter, model: nn.Module) -> SavedAdapter:
    """What was read, under the names that the model has now, where it lacks those of the file.

    transformers renames layers between its versions, and checkpoints as it loads them, by a list that a model brings.
    Where that list does not lead to a name of the model, the name stays as it is.

    Args:
        saved: What was read.
        model: A model of transformers, or any other, for which nothing is renamed.
    """
    renamings = renamings_of(model)
    if not renamings:
        return saved
    layers = {*layers_of(model), *(name for name, _ in plain_modules(model))}
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in saved.factors))
    present = {path: renamed(f"{path}.weight", renamings).removesuffix(".weight") for path in paths}
    present = {old: new for old, new in present.items() if new in layers and not _is_within(old, layers)}
    state = plain_state(model)
    tensors = {name: renamed(name, renamings) for name in (*saved.others, *saved.base) if name not in state}
    tensors = {old: new for old, new in tensors.items() if new in state}
    if not (present or tensors):
        return saved

    def of_layer(key: str) -> str:
        path, _, own = key.rpartition(".")
        return f"{present.get(path, path)}.{own}"

    return replace(
        saved,
        peft_config={**saved.peft_config, "alpha_pattern": _alphas(saved.peft_config, present)},
        factors={of_layer(name): factor for name, factor in saved.factors.items()},
        ranks={of_layer(name): rank for name, rank in saved.ranks.items()},
        checksums={of_layer(name): value for name, value in saved.checksums.items()},
        others={tensors.get(name, name): tensor for name, tensor in saved.others.items()},
        base={tensors.get(name, name): tensor for name, tensor in saved.base.items()},
    )


def renamings_of(model: Any) -> list[Any]:
    """The renamings that a model of transformers brings, in their order."""
    mapping = sys.modules.get("transformers.conversion_mapping")  # imported, where there is such a model
    if mapping is None or not hasattr(model, "base_model_prefix"):
        return []
    transforms = mapping.get_model_conversion_mapping(model, add_legacy=False)
    return [transform for transform in transforms if not hasattr(transform, "operations")]  # which change numbers too


def renamed(name: str, renamings: Iterable[Any]) -> str:
    """A name after all renamings, each applied to what the one before it has left."""
    for renaming in renamings:
        name, _ = renaming.rename_source_key(name)
    return name


def _is_within(path: str, layers: Iterable[str]) -> bool:
    """Whether the model has what a path of the file leads to: a layer, a part of one, or what PEFT wraps."""
    plain = path.replace(".base_layer", "")
    return plain in layers or plain.rpartition(".")[0] in layers


def _alphas(peft_config: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's alphas by pattern, those of renamed layers by their new names first."""
    patterns = peft_config.get("alpha_pattern") or {}
    own = {
        f"^{re.escape(new)}": alpha
        for old, new in present.items()
        for alpha in [next((a for key, a in patterns.items() if re.match(rf"(.*\.)?({key})$", old)), None)]
        if alpha is not None
    }
    return {**own, **patterns}
