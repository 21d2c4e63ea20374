"""Hosts that run their blocks in an autograd function of their own and compute them again in its backward pass.

Torch asks for that backward pass only where an input of the function needs a gradient, and the trained factors are none
of its inputs: before a frozen block lies a frozen embedding, so that no adapter would get a gradient (Reformer).
"""

from __future__ import annotations

import ast
import functools
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.core.sources import methods_naming

_HOOK = "input_gradient_hook"


def ask_for_input_gradients(model: nn.Module) -> None:
    """Let the inputs of such hosts need gradients, where adapters lie in the blocks that they give away."""
    for module in model.modules():
        if any(isinstance(layer, AdaptedLayer) for block in _given_away(module) for layer in block.modules()):
            vars(module)[_HOOK] = module.register_forward_pre_hook(_need_gradients, with_kwargs=True)


def forget_input_gradients(model: nn.Module) -> None:
    """Undo :func:`ask_for_input_gradients`."""
    for module in model.modules():
        if (handle := vars(module).pop(_HOOK, None)) is not None:
            handle.remove()


def _given_away(module: nn.Module) -> list[nn.Module]:
    cls: Any = type(module)
    return [part for name in _names_given_away(cls) if isinstance(part := getattr(module, name, None), nn.Module)]


@functools.cache
def _names_given_away(cls: Any) -> frozenset[str]:
    """Attributes that the code of a class hands to an ``apply``: of ``Function.apply(x, self.layers)``, ``layers``."""
    found: set[str] = set()
    for method in methods_naming(cls, "apply"):
        calls = (node for node in ast.walk(method) if isinstance(node, ast.Call))
        applied = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "apply")
        found.update(
            argument.attr
            for call in applied
            for argument in call.args
            if isinstance(argument, ast.Attribute) and ast.unparse(argument.value) == "self"
        )
    return frozenset(found)


def _need_gradients(module: nn.Module, args: Any, kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return None
    return tuple(map(_needing, args)), {name: _needing(value) for name, value in kwargs.items()}


def _needing(value: Any) -> Any:
    is_frozen = isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad
    return value.detach().requires_grad_() if is_frozen else value
