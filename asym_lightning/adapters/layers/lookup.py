"""The adapted layers and the adapters of a model, by name."""

from __future__ import annotations

from torch import nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.core.names import plain_modules


def adapter_layers(model: nn.Module) -> dict[str, AdaptedLayer]:
    """The adapted layers by name, in the model's order; empty while the adapters are merged."""
    return {name: module for name, module in plain_modules(model) if isinstance(module, AdaptedLayer)}


def adapters_by_name(model: nn.Module) -> dict[str, LowRankAdapter]:
    """Every adapter by ``layer.slice``, e.g. ``blocks.0.attn.qkv.q``; ``layer.all`` for a whole layer."""
    return {
        f"{name}.{slice_name}": adapter
        for name, layer in adapter_layers(model).items()
        for slice_name, adapter in layer.adapters.items()
    }


def factors_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every adapter's parameters by their plain names in ``model``; one that slices share has several names."""
    return {
        f"{name}.adapters.{key}".removeprefix("."): parameter
        for name, layer in adapter_layers(model).items()
        for key, parameter in layer.adapters.named_parameters(remove_duplicate=False)
    }
