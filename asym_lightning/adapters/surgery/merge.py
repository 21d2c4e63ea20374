"""Fold adapters into the weights they adapt, and take them out again.

A merged layer is exactly the host's layer: its class, its keys, nothing to compute beside it. The adapters and, for an
exact way back, the weight that was there wait outside the module tree, so ``state_dict()`` is that of the plain model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.adapters.layers.token_rows import merge_token_rows, unmerge_token_rows
from asym_lightning.adapters.surgery.quantize import (
    QuantizedPart,
    dequantize_layer,
    quantized_layers,
    requantize_layers,
)
from asym_lightning.core.dtensor import any_sharded

_ATTRIBUTE = "merged_adapters"


class MergedAdapters(NamedTuple):
    """What waits beside a merged layer."""

    kind: type[AdaptedLayer]
    # In a tuple, so that nn.Module does not register them.
    layer: tuple[nn.Module]
    adapters: tuple[SliceAdapters]
    # By parameter; none where they were quantised: `requantize_layers` has them. A parameter that other layers hold too
    # is here itself, for the merged layer has one of its own.
    weights: Mapping[str, Tensor]
    # Configurations by which transformers ties this layer's weight to the embeddings.
    tied_by: tuple[Any, ...] = ()


def merge_adapters(model: nn.Module, *, keep_weights: bool = True, dequantize: bool = False) -> None:
    """Add every update to its weight and leave plain layers behind; on a merged model it does nothing.

    Where several layers hold one parameter, a merged one gets one of its own, for its update is not that of the others.

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
        RuntimeError: A weight is not here: on the meta device, offloaded by accelerate, or in part in other processes.
    """
    quantized = QuantizedPart.of(model)
    if quantized.num_layers and not dequantize:
        raise ValueError(
            f"{quantized.num_layers} layers are quantised to {' and '.join(quantized.kinds)}, too coarse to hold a "
            "merged update: merge with `dequantize=True` (on the command line `--dequantize`) into dense weights."
        )
    layers = [module for module in model.modules() if isinstance(module, AdaptedLayer)]
    if any(p.is_meta for layer in layers for p in layer.base_parameters()):
        raise RuntimeError(
            "Some adapted weights are on the meta device, hence a merge would be lost: load them first, and without "
            "offloading (`device_map`, `cpu_offload`)."
        )
    if layers and any_sharded(model):
        raise RuntimeError(
            "The model is sharded over several processes, each of which would merge into its part alone: save the "
            "adapters, and merge them into the model loaded whole (on the command line `asym-lightning merge`)."
        )
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for layer in layers:
        # In the factors' precision: in bfloat16 the sum would be rounded twice.
        updates, adapters, kind, holder = layer.updates(), layer.adapters, type(layer), layer.holder()
        layer.restore_host()
        if not kind.has_dense_weight:
            dequantize_layer(layer, keep_weight=keep_weights)
        originals: dict[str, Tensor] = {}
        for name, update in updates.items():
            parameter, delta = own_parameter(holder, name), update.detach()
            weight = parameter.detach()
            merged = weight.to(delta.dtype) + delta.to(weight.device)
            if owners[id(parameter)] > 1:
                originals[name] = parameter
                own = nn.Parameter(merged.to(weight.dtype), requires_grad=parameter.requires_grad)
                holder.register_parameter(name, own)
            else:
                if keep_weights and kind.has_dense_weight:
                    originals[name] = weight.clone()
                weight.copy_(merged)
        tied_by = _untie(model, layer) if any(isinstance(weight, nn.Parameter) for weight in originals.values()) else ()
        if keep_weights:
            merged_layer = MergedAdapters(kind, (layer,), (adapters,), originals, tied_by)
            vars(holder).setdefault(_ATTRIBUTE, []).append(merged_layer)
    merge_token_rows(model, keep_weights=keep_weights)
    for _, rest in list(quantized_layers(model)):
        dequantize_layer(rest, keep_weight=keep_weights)


def unmerge_adapters(model: nn.Module) -> None:
    """Undo :func:`merge_adapters`: the original weights, bit for bit, and the adapters beside them."""
    requantize_layers(model)
    for holder in list(merged_layers(model)):
        for merged in vars(holder).pop(_ATTRIBUTE):
            with torch.no_grad():
                for name, weight in merged.weights.items():
                    if isinstance(weight, nn.Parameter):
                        holder.register_parameter(name, weight)
                    else:
                        own_parameter(holder, name).copy_(weight)
            for config in merged.tied_by:
                config.tie_word_embeddings = True
            adapted = merged.kind.adapt_host(merged.layer[0], merged.adapters[0])
            adapted.adapters.to(next(holder.parameters(recurse=False)).device)
    unmerge_token_rows(model)


def merged_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Modules with parameters from which adapters can be unmerged."""
    return (module for module in model.modules() if _ATTRIBUTE in vars(module))


def _untie(model: nn.Module, layer: nn.Module) -> tuple[Any, ...]:
    """Tell a model of transformers that its output layer shares no weight with the embeddings any more.

    Returns:
        The configurations that said it does.
    """
    configs = []
    for module in model.modules():
        get_output, config = getattr(module, "get_output_embeddings", None), getattr(module, "config", None)
        if callable(get_output) and config is not None and get_output() is layer:
            configs += [config, *(part for part in vars(config).values() if hasattr(part, "tie_word_embeddings"))]
    # By identity: they compare by value, and have no hash.
    tied = {id(config): config for config in configs if getattr(config, "tie_word_embeddings", False)}
    for config in tied.values():
        config.tie_word_embeddings = False
    return tuple(tied.values())
