"""Fold adapters into the weights they adapt, and take them out again.

A merged layer is exactly the host's layer: its class, its keys, nothing to compute beside it. The adapters and, for an
exact way back, the weight that was there wait outside the module tree, so ``state_dict()`` is that of the plain model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers import AdaptedLayer, SliceAdapters, adapt_host, restore_host

_ATTRIBUTE = "merged_adapters"


class MergedAdapters(NamedTuple):
    """What waits beside a merged layer."""

    adapted_class: type[AdaptedLayer]
    # In a tuple, so that nn.Module does not register them.
    adapters: tuple[SliceAdapters]
    weight: Tensor


def merge_adapters(model: nn.Module, *, keep_weights: bool = True) -> None:
    """Add every update to its weight and leave plain layers behind; on a merged model it does nothing.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> _ = inject_adapters(model, AdapterConfig(scheme="hB_he_A_rand", rank=2, targets=["0"]))
    >>> x = torch.ones(1, 4)
    >>> before = model(x)
    >>> merge_adapters(model)
    >>> type(model[0]).__name__, list(model.state_dict()), torch.allclose(model(x), before, atol=1e-6)
    ('Linear', ['0.weight', '0.bias'], True)

    Args:
        model: An adapted model.
        keep_weights: Keep the original weights, so that :func:`unmerge_adapters` can restore them to the bit. ``False``
            holds no second copy and can't be undone.
    """
    for layer in [module for module in model.modules() if isinstance(module, AdaptedLayer)]:
        with torch.no_grad():
            weight = layer.weight
            original = weight.detach().clone() if keep_weights else None
            # In the factors' precision: in bfloat16 the sum would be rounded twice.
            delta = layer.delta_weight()
            weight.copy_(weight.to(delta.dtype) + delta.to(weight.device))
        merged = None if original is None else MergedAdapters(type(layer), (layer.adapters,), original)
        restore_host(layer)
        if merged is not None:
            setattr(layer, _ATTRIBUTE, merged)


def unmerge_adapters(model: nn.Module) -> None:
    """Undo :func:`merge_adapters`: the original weights, bit for bit, and the adapters beside them."""
    for layer in list(merged_layers(model)):
        merged: MergedAdapters = getattr(layer, _ATTRIBUTE)
        delattr(layer, _ATTRIBUTE)
        adapted = adapt_host(layer, merged.adapted_class, merged.adapters[0])
        with torch.no_grad():
            adapted.weight.copy_(merged.weight)
        adapted.adapters.to(adapted.weight.device)


def merged_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Layers whose adapters can be unmerged."""
    return (module for module in model.modules() if hasattr(module, _ATTRIBUTE))
