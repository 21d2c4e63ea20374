"""Give a sharded model its numbers, so that no process ever holds more than its shards and one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from asym_lightning.adapters import adapter_layers, adapters_by_name, reset_adapters
from asym_lightning.adapters.layers.token_rows import token_rows_of
from asym_lightning.core.dtensor import sharded_like
from asym_lightning.sharding.weights import PretrainedWeights

Initialize = Callable[[nn.Module], None]


def materialize(
    model: nn.Module,
    weights: PretrainedWeights,
    heads: Sequence[str] = (),
    initialize: Initialize | None = None,
    *,
    device: str | None = None,
) -> None:
    """Read a backbone that is on the meta device, sharded or not, from its files; draw what is new.

    Parameters come from the files shard by shard; tied ones once. Adapters are drawn as they are without sharding. What
    is in no file, as a new head, starts as the architecture makes it, the same in every process.

    Args:
        model: The backbone, by whose names the files go.
        weights: Where its weights are.
        heads: Names of the modules that may start anew.
        initialize: Fills the parameters of a module in the architecture's way; None calls `reset_parameters`.
        device: Where the shards live: `cpu` with `cpu_offload`; None means the devices of the mesh.

    Raises:
        ValueError: A parameter of no head is in no file, or has another shape there.
    """
    of_adapters = [*adapters_by_name(model).values(), *token_rows_of(model).values()]
    drawn = {id(p) for module in of_adapters for p in module.parameters()}
    new: dict[nn.Module, list[str]] = {}
    for places in _places(model):
        parameter = places[0].parameter
        if not parameter.is_meta:
            continue
        name = next((found for place in places if (found := weights.find(place.name, model))), None)
        in_head = places[0].name.startswith(tuple(f"{head}." for head in heads))
        if in_head and name and not (weights.keeps_heads and weights.shape(name) == parameter.shape):
            name = None
        filled = _empty_like(parameter, device)
        if name is not None:
            _read(filled, weights, name)
        elif id(parameter) not in drawn:
            if not in_head:
                raise ValueError(
                    f"the backbone {weights.source!r} has no `{places[0].name}` in its files, which the model needs; "
                    "load it without sharding, which may convert it."
                )
            new.setdefault(places[0].module, []).append(places[0].attribute)
        for place in places:
            setattr(place.module, place.attribute, filled)
    for module, attributes in new.items():
        _initialize(module, attributes, initialize)
    for name, buffer in model.named_buffers():
        if (found := weights.find(name, model)) is not None:
            buffer.copy_(weights.read(found, tuple(buffer.shape)))
    layers = adapter_layers(model).values()
    reset_adapters(model, draw=not any(layer.adapters.config.needs_data for layer in layers))


class _Place(NamedTuple):
    """One of the places where a parameter is registered."""

    name: str
    module: nn.Module
    attribute: str

    @property
    def parameter(self) -> nn.Parameter:
        parameter = getattr(self.module, self.attribute)
        assert isinstance(parameter, nn.Parameter)
        return parameter


def _places(model: nn.Module) -> list[list[_Place]]:
    """All places of each parameter, in the model's order."""
    places: dict[int, list[_Place]] = {}
    for prefix, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            place = _Place(f"{prefix}.{attribute}".removeprefix("."), module, attribute)
            places.setdefault(id(parameter), []).append(place)
    return list(places.values())


def _empty_like(parameter: nn.Parameter, device: str | None) -> nn.Parameter:
    """The same, shards and all, with memory."""
    if device is None:
        device = parameter.device_mesh.device_type if isinstance(parameter, DTensor) else "cpu"
    return nn.Parameter(torch.empty_like(parameter.detach(), device=device), parameter.requires_grad)


@torch.no_grad()
def _read(parameter: nn.Parameter, weights: PretrainedWeights, name: str) -> None:
    shape = tuple(parameter.shape)
    if not isinstance(parameter, DTensor):
        parameter.copy_(weights.read(name, shape))
        return
    local = parameter.to_local()
    # As FSDP2 cuts: pieces of equal length, the last ones shorter or empty.
    mesh = parameter.device_mesh
    length = -(-shape[0] // mesh.size())
    start = min(length * mesh.get_local_rank(), shape[0])
    if local.numel():
        local.copy_(weights.read(name, shape, start, start + len(local)))


@torch.no_grad()
def _initialize(module: nn.Module, attributes: list[str], initialize: Initialize | None) -> None:
    """Draw a module's own parameters whole, and keep the shards of what the first process drew."""
    shards: dict[str, Tensor] = {attribute: getattr(module, attribute) for attribute in attributes}
    for attribute, parameter in shards.items():
        drawn = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
        setattr(module, attribute, drawn)
    if initialize is not None:
        initialize(module)
    else:
        module.reset_parameters()  # type: ignore[operator]
    for attribute, parameter in shards.items():
        drawn = getattr(module, attribute)
        setattr(module, attribute, parameter)
        parameter.copy_(sharded_like(drawn.detach(), parameter))
