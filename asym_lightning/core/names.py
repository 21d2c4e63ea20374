"""Names of modules, parameters and tensors as they are without the wrappers that others put around modules.

`torch.compile`, activation checkpointing and FSDP1 each put a module around another, and a word between the names of
both. What a layer is called must not depend on it: A is drawn by the name, and files and checkpoints go by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from asym_lightning.core.private_names import WRAPPED

_WRAPPERS = re.compile(rf"(^|\.)({'|'.join(WRAPPED)})(?=\.|$)")
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def plain_name(name: str) -> str:
    """A module's or parameter's name without wrappers.

    >>> plain_name("backbone._fsdp_wrapped_module.blocks.0._orig_mod.attn"), plain_name("_orig_mod")
    ('backbone.blocks.0.attn', '')
    """
    return _WRAPPERS.sub("", name).removeprefix(".")


def prefix_of(part: nn.Module, module: nn.Module) -> str:
    """What names in a part of a module begin with in the module: empty for the module itself.

    >>> module = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    >>> prefix_of(module[1], module), prefix_of(module, module)
    ('1.', '')
    """
    return next(f"{name}." if name else "" for name, found in plain_modules(module) if found is part)


def without_numbers(names: Iterable[str]) -> list[str]:
    """Names that differ in the numbers of their layers alone, under one, in their order.

    >>> without_numbers(["blocks.0.fc1", "head", "blocks.1.fc1"])
    ['blocks.*.fc1', 'head']
    """
    return list(dict.fromkeys(_NUMBER.sub("*", name) for name in names))


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but wrappers, by their plain names and in order, as `named_modules` has them.

    >>> import torch
    >>> [name for name, _ in plain_modules(nn.Sequential(torch.compile(nn.ReLU()), nn.Tanh()))]
    ['', '0', '1']
    """
    return ((plain_name(name), module) for name, module in model.named_modules() if unwrapped(module) is module)


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of a plain name, in what wraps it or not, and without what wraps itself.

    Raises:
        AttributeError: There is none.
    """
    module = unwrapped(model)
    for part in name.split(".") if name else ():
        child = getattr(module, part)
        if not isinstance(child, nn.Module):
            raise AttributeError(f"`{part}` of `{name}` is no module.")
        module = unwrapped(child)
    return module


def unwrapped(module: nn.Module) -> nn.Module:
    """What a module wraps, if it wraps one, else itself.

    >>> import torch
    >>> type(unwrapped(torch.compile(nn.ReLU()))).__name__
    'ReLU'
    """
    inner = next((child for name, child in module.named_children() if name in WRAPPED), None)
    return module if inner is None else unwrapped(inner)


def plain_state(model: nn.Module) -> dict[str, Any]:
    """The state dict by plain names."""
    return {plain_name(name): tensor for name, tensor in model.state_dict().items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors that go by plain names; what is not among them stays."""
    own = {plain_name(name): name for name in model.state_dict()}
    model.load_state_dict({own[name]: tensor for name, tensor in state.items()}, strict=False)
