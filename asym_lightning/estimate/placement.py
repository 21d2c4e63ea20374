"""What each device holds of a model, and what the devices send each other, by strategy. All of it is arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asym_lightning.adapters.surgery.quantize import quantization_scales
from asym_lightning.core.messages import check_choice
from asym_lightning.sharding.units import AdapterWrapPolicy, fsdp2_units, sharded_by_columns

Strategy = Literal["single", "ddp", "fsdp", "fsdp2"]
STRATEGIES: tuple[Strategy, ...] = ("single", "ddp", "fsdp", "fsdp2")


@dataclass(frozen=True)
class Unit:
    """Parameters that are gathered, used and freed together.

    Attributes:
        shards: Bytes that a device holds of each parameter, by id; the largest share where they differ.
        gathered: Bytes of all of it, padding included.
        trained: Bytes of all of it that trains, hence of its gradients.
        scattered: The same, padding included.
        is_kept: Whether it stays gathered between the forward and the backward pass.
    """

    shards: dict[int, int]
    gathered: int
    trained: int
    scattered: int
    is_kept: bool


@dataclass(frozen=True)
class Placement:
    """One device's part, in bytes.

    Attributes:
        weights: Of the parameters that it holds, and of all buffers and scales of quantised weights.
        gradients: Of those that it keeps.
        optimizer_state: Of the state of what it keeps gradients of.
        buckets: Copies of the gradients in which DDP exchanges them.
        gathered: The most that is gathered of other devices' parameters at a time, and of gradients to be scattered.
        share: Part of all gradients that it keeps.
        communication: Bytes of whole tensors that are exchanged in a step, by kind. Of each, a device sends and
            receives (devices - 1) / devices, and twice as much where it is an all-reduce.
    """

    weights: int
    gradients: int
    optimizer_state: int
    buckets: int
    gathered: int
    share: float
    communication: dict[str, int]


def place(
    module: nn.Module,
    optimizer: Optimizer,
    strategy: Strategy,
    devices: int,
    *,
    micro_batches: int = 1,
    reshard_after_forward: bool = True,
    gather_dtype: torch.dtype | None = None,
    counts_scalars: bool = False,
) -> Placement:
    """Work out what a device holds and exchanges.

    Args:
        module: What is trained; its parameters may be fake or on the meta device.
        optimizer: Of what trains, with its state.
        strategy: How the work is divided.
        devices: Number of devices.
        micro_batches: Backward passes a step, as `accumulate_grad_batches`.
        reshard_after_forward: Blocks are freed after their forward pass and gathered again, in FSDP.
        gather_dtype: What FSDP1 gathers in and reduces in; None is the parameters' own.
        counts_scalars: Count state that is one number a parameter, which is in the host's memory for a GPU.

    Raises:
        ValueError: There is no such strategy, or no device, or the strategy can't shard the module.
    """
    check_strategy(strategy, devices)
    scales = sum(tensor.nbytes for tensor in quantization_scales(module))
    if scales and strategy in ("fsdp", "fsdp2"):
        raise ValueError(f"`strategy` {strategy!r} can't shard a quantised backbone: choose single or ddp.")
    buffers = sum(buffer.nbytes for buffer in module.buffers())
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    communication: Counter[str] = Counter()
    if strategy in ("single", "ddp"):
        shards = {id(parameter): parameter.nbytes for parameter in module.parameters()}
        gathered, buckets = 0, 0
        if strategy == "ddp":
            buckets = sum(parameter.nbytes for parameter in trained)
            communication["all-reduce"] = buckets
            communication["broadcast"] = sum(buffer.nbytes for buffer in _trained_buffers(module))
    else:
        dtype = gather_dtype if strategy == "fsdp" else None
        units = _units(module, strategy, devices, reshard_after_forward, dtype)
        shards = {key: size for unit in units for key, size in unit.shards.items()}
        # What is gathered lies in the buffer of the exchange and in the parameters, and while one unit is used the next
        # is on its way; gradients lie in the parameters and in the buffer that is scattered.
        gathered = sum(unit.gathered for unit in units if unit.is_kept) + max(
            (1 if unit.is_kept else 2) * unit.gathered + unit.trained + unit.scattered for unit in units
        )
        buckets = 0
        for unit in units:
            communication["all-gather"] += micro_batches * unit.gathered * (1 if unit.is_kept else 2)
            communication["reduce-scatter"] += micro_batches * unit.scattered
    gradients = sum(shards[id(parameter)] for parameter in trained)
    all_gradients = sum(parameter.nbytes for parameter in trained)
    return Placement(
        weights=sum(shards.values()) + buffers + scales,
        gradients=gradients,
        optimizer_state=_state_bytes(optimizer, shards, counts_scalars),
        buckets=buckets,
        gathered=gathered,
        share=gradients / all_gradients if all_gradients else 0.0,
        communication={kind: size for kind, size in communication.items() if size},
    )


def check_strategy(strategy: str, devices: int) -> None:
    """Check that a strategy is known and that the number of devices suits it.

    Raises:
        ValueError: It is not known, or the number is below 1, or above 1 for `single`.
    """
    check_choice("strategy", strategy, STRATEGIES)
    if devices < 1:
        raise ValueError(f"`devices` must be at least 1, not {devices}.")
    if strategy == "single" and devices > 1:
        raise ValueError(f"`strategy` 'single' is for one device, not {devices}: choose ddp, fsdp or fsdp2.")


def _trained_buffers(module: nn.Module) -> Iterable[Tensor]:
    """Buffers that DDP hands round: those of modules with a parameter of their own that trains."""
    for child in module.modules():
        if any(parameter.requires_grad for parameter in child.parameters(recurse=False)):
            yield from child.buffers(recurse=False)


def _units(
    module: nn.Module, strategy: Strategy, devices: int, reshards: bool, dtype: torch.dtype | None
) -> list[Unit]:
    """The units, the innermost first and the rest of the module, which stays gathered, last."""
    if strategy == "fsdp2":
        roots, columns = fsdp2_units(module), sharded_by_columns(module, devices)
    else:
        policy = AdapterWrapPolicy()
        policy(module, recurse=True, nonwrapped_numel=0)
        roots = [child for child in module.modules() if policy(child, recurse=False, nonwrapped_numel=0)]
        roots.reverse()  # what is within comes first
    units: list[Unit] = []
    placed: set[int] = set()
    for root in [*roots, module]:
        parameters = [parameter for parameter in root.parameters() if id(parameter) not in placed]
        placed.update(map(id, parameters))
        is_kept = root is module or not reshards
        if strategy == "fsdp2":
            units.append(_unit_of_parameters(parameters, columns, devices, is_kept))
        else:
            units.append(_flat_unit(parameters, devices, is_kept, dtype))
    return units


def _unit_of_parameters(parameters: list[nn.Parameter], columns: set[int], devices: int, is_kept: bool) -> Unit:
    """FSDP2 pads each parameter, along the dimension that it is divided in, to a multiple of the devices."""
    shards = {id(p): _shard_bytes(p, 1 if id(p) in columns else 0, devices) for p in parameters}
    gathered = sum(size * devices for size in shards.values())
    trained = [p for p in parameters if p.requires_grad]
    scattered = sum(shards[id(p)] * devices for p in trained)
    return Unit(shards, gathered, sum(p.nbytes for p in trained), scattered, is_kept)


def _shard_bytes(parameter: Tensor, dim: int, devices: int) -> int:
    if parameter.dim() == 0:
        return parameter.nbytes
    length = parameter.shape[dim]
    return parameter.nbytes // max(length, 1) * math.ceil(length / devices)


def _flat_unit(parameters: list[nn.Parameter], devices: int, is_kept: bool, dtype: torch.dtype | None) -> Unit:
    """FSDP1 lays a unit out as one vector and pads that."""
    if not parameters:
        return Unit({}, 0, 0, 0, is_kept)
    numbers = sum(p.numel() for p in parameters)
    own = parameters[0].dtype.itemsize
    padded = math.ceil(numbers / devices) * devices
    gathered = padded * (own if dtype is None else dtype.itemsize)
    scattered = gathered if any(p.requires_grad for p in parameters) else 0
    # Rounding up once, at the first parameter, makes the sum the vector's.
    shards = {id(p): p.nbytes // devices for p in parameters}
    shards[id(parameters[0])] += padded // devices * own - sum(shards.values())
    return Unit(shards, gathered, scattered, scattered, is_kept)


def _state_bytes(optimizer: Optimizer, shards: dict[int, int], counts_scalars: bool) -> int:
    total = 0
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if not isinstance(value, Tensor):
                continue
            if value.shape == parameter.shape:
                total += shards[id(parameter)] * value.dtype.itemsize // parameter.dtype.itemsize
            elif counts_scalars or value.numel() > 1:
                total += value.nbytes
    return total
