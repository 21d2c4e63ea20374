"""Attention and MLPs of a model in which no layer plays a role that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from asym_lightning.adapters.targets.derived import ATTENTION, MLP
from asym_lightning.adapters.targets.find import Found
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.names import plain_modules, without_numbers

_HOLDERS = {**dict.fromkeys("qkvo", ATTENTION), "mlp": MLP}


def unplayed_roles(model: nn.Module, tokens: Sequence[str], found: Found) -> dict[str, tuple[str, ...]]:
    """By role that was asked for, the modules that ought to hold it and do not, those alike under one name.

    They go by the names of their classes, outermost first, and need to hold a layer that may be a target.

    Args:
        model: The model.
        tokens: What was asked for.
        found: What was found.
    """
    playing: dict[str, list[str]] = {}
    for target in found.targets:
        for role in target.roles.values():
            playing.setdefault(role, []).append(target.name)
    unplayed: dict[str, tuple[str, ...]] = {}
    for role in dict.fromkeys(token for token in tokens if token in _HOLDERS):
        names = without_numbers(
            holder
            for holder in _outermost(model, _HOLDERS[role], found)
            if not any(is_within(name, [holder]) for name in playing.get(role, ()))
        )
        if names:
            unplayed[role] = tuple(names)
    return unplayed


def _outermost(model: nn.Module, pattern: re.Pattern[str], found: Found) -> list[str]:
    holders: list[str] = []
    for name, module in plain_modules(model):
        is_holder = name and pattern.search(type(module).__name__) and not is_within(name, holders)
        if is_holder and any(candidate.startswith(f"{name}.") for candidate in found.candidates):
            holders.append(name)
    return holders
