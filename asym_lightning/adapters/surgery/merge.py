"""Fold adapters into the weights they adapt, and take them out again.

A merged layer is exactly the host's layer: its class, its keys, nothing to compute beside it. The adapters and, for an
exact way back, the weight that was there wait outside the module tree, so ``state_dict()`` is that of the plain model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.adapters.surgery.quantize import (
    QuantizedPart,
    dequantize_layer,
    quantized_layers,
    requantize_layers,
)

_ATTRIBUTE = "merged_adapters"


class MergedAdapters(NamedTuple):
    """What waits beside a merged layer."""

    kind: type[AdaptedLayer]
    # In a tuple, so that nn.Module does not register them.
    adapters: tuple[SliceAdapters]
    # By parameter; none where they were quantised: `requantize_layers` has them.
    weights: Mapping[str, Tensor]


def merge_adapters(model: nn.Module, *, keep_weights: bool = True, dequantize: bool = False) -> None:
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
        dequantize: Turn quantised layers, adapted or not, into layers of dense weights, in the dtype that they were
            quantised from; :func:`unmerge_adapters` turns them back. ``False`` refuses a quantised model.

    Raises:
        ValueError: The model is quantised, and ``dequantize`` is ``False``.
    """
    quantized = QuantizedPart.of(model)
    if quantized.num_layers and not dequantize:
        raise ValueError(
            f"{quantized.num_layers} layers are quantised to {' and '.join(quantized.kinds)}, too coarse to hold a "
            "merged update: merge with `dequantize=True` (on the command line `--dequantize`) into dense weights."
        )
    for layer in [module for module in model.modules() if isinstance(module, AdaptedLayer)]:
        # In the factors' precision: in bfloat16 the sum would be rounded twice.
        updates, adapters, kind = layer.updates(), layer.adapters, type(layer)
        layer.restore_host()
        if not kind.has_dense_weight:
            dequantize_layer(layer, keep_weight=keep_weights)
        originals: dict[str, Tensor] = {}
        for name, update in updates.items():
            weight, delta = getattr(layer, name).detach(), update.detach()
            if keep_weights and kind.has_dense_weight:
                originals[name] = weight.clone()
            weight.copy_(weight.to(delta.dtype) + delta.to(weight.device))
        if keep_weights:
            setattr(layer, _ATTRIBUTE, MergedAdapters(kind, (adapters,), originals))
    for _, rest in list(quantized_layers(model)):
        dequantize_layer(rest, keep_weight=keep_weights)


def unmerge_adapters(model: nn.Module) -> None:
    """Undo :func:`merge_adapters`: the original weights, bit for bit, and the adapters beside them."""
    requantize_layers(model)
    for layer in list(merged_layers(model)):
        merged: MergedAdapters = getattr(layer, _ATTRIBUTE)
        delattr(layer, _ATTRIBUTE)
        adapted = merged.kind.adapt_host(layer, merged.adapters[0])
        with torch.no_grad():
            for name, weight in merged.weights.items():
                getattr(adapted, name).copy_(weight)
        adapted.adapters.to(next(adapted.parameters(recurse=False)).device)


def merged_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Layers whose adapters can be unmerged."""
    return (module for module in model.modules() if hasattr(module, _ATTRIBUTE))
