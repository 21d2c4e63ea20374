"""What clients and the server exchange: B and heads as safetensors, and what they have to have in common before.

Over one frozen A the mean of the clients' B is the mean of their updates; of two trained factors it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from asym_lightning.adapters import adapters_by_name, trainable_parameters
from asym_lightning.adapters.files.redraw import CHECKSUM_TOLERANCE, checksum
from asym_lightning.core.names import plain_name


def exchanged(module: nn.Module) -> dict[str, nn.Parameter]:
    """B of every adapter and heads, by plain name: all that trains.

    Raises:
        ValueError: There are no adapters, or an A trains.
    """
    adapters = adapters_by_name(module)
    if not adapters:
        raise ValueError("Federated training exchanges B of adapters, and the module has none: give it an `adapter`.")
    trained_A = next((name for name, adapter in adapters.items() if adapter.factor_A.requires_grad), None)
    if trained_A is not None:
        raise ValueError(
            f"A of `{trained_A}` trains, and a mean of A's and of B's is no mean of updates: use a scheme that trains "
            "B alone, such as 'hB_zero_A_rand'."
        )
    return {plain_name(name): parameter for name, parameter in trainable_parameters(module)}


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def unpacked(data: bytes, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`packed`.

    Args:
        data: What was received.
        like: Tensors of the names and shapes that it has to have.

    Raises:
        ValueError: It is no safetensors file, or has other tensors, or numbers that are not finite.

    Example:
        >>> unpacked(packed({"B": torch.ones(2)}), {"B": torch.zeros(2)})
        {'B': tensor([1., 1.])}
    """
    try:
        tensors = load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"What was received is no safetensors file: {error}.") from error
    if tensors.keys() != like.keys():
        name = min(tensors.keys() ^ like.keys())
        raise ValueError(f"What was received {'lacks' if name in like else 'has an unknown'} `{name}`.")
    for name, tensor in tensors.items():
        if tensor.shape != like[name].shape or tensor.dtype != like[name].dtype:
            raise ValueError(
                f"What was received has a `{name}` of {tensor.dtype} and shape {tuple(tensor.shape)}, not of "
                f"{like[name].dtype} and shape {tuple(like[name].shape)}."
            )
        if not tensor.isfinite().all():
            raise ValueError(f"What was received has numbers in `{name}` that are not finite.")
    return tensors


@torch.no_grad()
def adopt(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Give parameters the values that were received."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def average(updates: Sequence[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    """The mean of several clients' tensors by their weights, added up in float64.

    >>> average([({"B": torch.tensor([0.0])}, 1), ({"B": torch.tensor([4.0])}, 3)])
    {'B': tensor([3.])}
    """
    total = sum(weight for _, weight in updates)
    first, _ = updates[0]
    means = {
        name: sum((weight / total * tensors[name].double() for tensors, weight in updates), torch.zeros(()))
        for name in first
    }
    return {name: mean.to(first[name].dtype) for name, mean in means.items()}


def identity(module: nn.Module) -> dict[str, Any]:
    """What client and server have to have in common, in numbers and strings."""
    trained = exchanged(module)
    adapters = adapters_by_name(module)
    factors = {id(factor) for adapter in adapters.values() for factor in adapter.parameters()}
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if id(parameter) not in factors and plain_name(name) not in trained:
            digest.update(f"{plain_name(name)} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "targets": sorted(adapters),
        "ranks": {name: [adapter.rank, adapter.scaling] for name, adapter in adapters.items()},
        "shapes": {name: list(parameter.shape) for name, parameter in trained.items()},
        "backbone": digest.hexdigest(),
        "A": {name: checksum(adapter.A) for name, adapter in adapters.items()},
    }


def difference(here: Mapping[str, Any], there: Any) -> str | None:
    """In what the :func:`identity` of a client differs from one's own; None if in nothing.

    >>> own = {"targets": ["fc"], "ranks": {"fc": [8, 2.0]}, "shapes": {}, "backbone": "a1", "A": {"fc": 1.0}}
    >>> difference(own, own), difference(own, {**own, "backbone": "b2"})
    (None, 'another backbone: its frozen weights are b2 and here a1')
    """
    if not isinstance(there, Mapping) or there.keys() != here.keys():
        return "a description of another form"
    if here["targets"] != there["targets"]:
        return f"other targets: `{min({*here['targets']} ^ {*there['targets']})}` is adapted by one alone"
    for field, what in (("ranks", "rank and scaling"), ("shapes", "shape")):
        for name, value in here[field].items():
            if there[field].get(name) != value:
                return f"another {what} of `{name}`: {there[field].get(name)} and here {value}"
    if here["backbone"] != there["backbone"]:
        return f"another backbone: its frozen weights are {there['backbone'][:12]} and here {here['backbone'][:12]}"
    for name, value in here["A"].items():
        if abs(there["A"].get(name, float("inf")) - value) > CHECKSUM_TOLERANCE * max(abs(value), 1.0):
            return f"another A of `{name}`, as of another `seed` or scheme"
    return None
