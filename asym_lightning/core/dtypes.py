"""Float32 for what trains, beside a frozen backbone in bfloat16 or float16.

Narrow formats keep 8 or 11 bits of a number, and a step smaller than that is lost: B, which starts at zero and takes
many small steps, and heads would not learn as they should. Frozen weights take no steps and lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class InFloat32(nn.Module):
    """A module whose parameters stay as they are when the model around it is moved to a dtype narrower than float32.

    >>> class Scale(InFloat32):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(torch.ones(1))
    >>> model = nn.Sequential(nn.Linear(2, 2), Scale()).bfloat16()
    >>> model[0].weight.dtype, model[1].factor.dtype
    (torch.bfloat16, torch.float32)
    """

    # The one place that `.to()`, `.half()`, `.bfloat16()` of any module around it pass through.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        return super()._apply(_never_narrower(fn), recurse)


def train_in_float32(module: nn.Module, backbone: nn.Module) -> None:
    """Keep what trains in float32, in place, whatever narrower dtype the module is moved to, now or later.

    A module with trained parameters becomes float32 where it is narrower, and stays that: `module.to(torch.bfloat16)`,
    which is what Lightning does for `precision: bf16-true`, changes frozen modules only. Where both meet, one casts
    its inputs to the dtype of its own parameters; under autocast they are left to autocast. A second call does nothing.

    Args:
        module: What holds the backbone, and perhaps heads and more beside it.
        backbone: Adapted, hence frozen but for its adapters and heads; it may be the module itself.

    Example:
        >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=["1"]))
        >>> train_in_float32(model, model)
        >>> _ = model.bfloat16()
        >>> model[0].weight.dtype, model[1].weight.dtype, model(torch.ones(1, 4, dtype=torch.bfloat16)).dtype
        (torch.bfloat16, torch.float32, torch.float32)
    """
    inside = set(backbone.modules())
    for child in module.modules():
        own = [p for p in child.parameters(recurse=False) if p.is_floating_point()]
        is_trained = any(p.requires_grad for p in own)
        if isinstance(child, InFloat32) or not own or (child in inside and not is_trained):
            continue
        if is_trained and "_apply" not in vars(child):
            if any(p.dtype.itemsize < torch.float32.itemsize for p in own):
                child.float()
            child._apply = partial(_apply_never_narrower, child)  # type: ignore[method-assign]
        let_cast_inputs(child)
    if backbone is not module:
        let_cast_inputs(backbone)


@contextmanager
def at_least_float32() -> Iterator[None]:
    """Let new tensors be float32 where the default dtype is narrower, so that what trains is drawn in full.

    >>> torch.set_default_dtype(torch.bfloat16)
    >>> with at_least_float32():
    ...     torch.ones(1).dtype
    torch.float32
    >>> torch.set_default_dtype(torch.float32)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _never_narrower(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn``, which moves or casts a tensor, without its casts to less than float32."""

    def apply(tensor: Tensor) -> Tensor:
        applied = fn(tensor)
        if tensor.is_floating_point() and applied.dtype.itemsize < min(tensor.dtype.itemsize, torch.float32.itemsize):
            return tensor.to(applied.device)
        return applied

    return apply


# In a partial rather than a closure or a method: a deep copy or a pickle of the module has one for the copy.
def _apply_never_narrower(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    return type(self)._apply(self, _never_narrower(fn), recurse)


def let_cast_inputs(module: nn.Module) -> None:
    """Let a module cast its inputs to the dtype of its own parameters, unless there is autocast to do it."""
    if not getattr(module, "casts_inputs", False):
        module.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
        module.casts_inputs = True  # type: ignore[assignment]


def _cast_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Cast floating-point tensors to the dtype of the module's first parameters that are no adapter's."""
    weight = next((p for p in _parameters(module) if p.is_floating_point()), None)
    if weight is None or torch.is_autocast_enabled(weight.device.type):
        return None

    def cast(value: Any) -> Any:
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(weight.dtype) if is_number else value

    return tuple(map(cast, args)), {name: cast(value) for name, value in kwargs.items()}


def _parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    for child in module.modules():
        if not isinstance(child, InFloat32):
            yield from child.parameters(recurse=False)
