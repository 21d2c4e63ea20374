"""FSDP2: shard a module that contains an adapted backbone.

Units are the blocks, large embeddings, and all the rest together. FSDP2 shards parameter by parameter, and only those
with a gradient are reduced, so trained and frozen ones may share a unit: a block and its adapters come in one gather,
and nothing is spent on gradients of what is frozen. Apart from the adapters there is nothing to gain by units of their
own, which would be thousands of gathers of some kilobytes.

B is sharded by its rows and A by its columns, so that a process can compute its part of the Gram matrices ``B^T B`` and
``A A^T`` (rank x rank) from what it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard
from torch.utils.checkpoint import checkpoint

from asym_lightning.adapters import adapter_layers
from asym_lightning.core.ddp import first_difference
from asym_lightning.sharding.units import blocks, fsdp2_units, sharded_by_columns


@dataclass(frozen=True)
class ShardingOptions:
    """How FSDP2 trades memory for time.

    Attributes:
        reshard_after_forward: Free a block's gathered parameters after its forward pass and gather them again for its
            backward pass; False keeps them in between, which saves a third of the traffic.
        activation_checkpointing: Keep of each block only its input and compute the rest again in the backward pass.
        cpu_offload: Keep the shards, their gradients and the optimizer's state in the host's memory.
    """

    reshard_after_forward: bool = True
    activation_checkpointing: bool = False
    cpu_offload: bool = False


def shard_module(
    module: nn.Module,
    mesh: DeviceMesh,
    options: ShardingOptions = ShardingOptions(),
    *,
    forward_methods: Iterable[str] = (),
) -> None:
    """Shard a module in place over the processes of a mesh; parameters may be on the meta device. A second call fails.

    Args:
        module: What contains the backbone; its own forward pass, or one of ``forward_methods``, encloses all others.
        mesh: (processes,) one-dimensional.
        options: Memory for time.
        forward_methods: Methods beside ``forward`` that run the backbone, such as `training_step`.

    Raises:
        ValueError: The processes hold different models or adapters, an option does not suit the device, or the
            adapters' path is `packed`; the message says which.
    """
    _check(module, mesh, options)
    offload = CPUOffloadPolicy() if options.cpu_offload else OffloadPolicy()
    columns = sharded_by_columns(module, mesh.size())
    shard = partial(
        fully_shard,
        mesh=mesh,
        offload_policy=offload,
        shard_placement_fn=lambda parameter: Shard(1) if id(parameter) in columns else None,
    )
    if options.activation_checkpointing:
        checkpoint_activations(module)
    for unit in fsdp2_units(module):
        _to_device(unit, mesh)
        shard(unit, reshard_after_forward=options.reshard_after_forward)
    _to_device(module, mesh)
    shard(module)
    for name in forward_methods:
        register_fsdp_forward_method(module, name)


def checkpoint_activations(module: nn.Module) -> None:
    """Let each block keep its input alone, and compute the rest again in the backward pass.

    Under FSDP2's hooks, which gather once for the pass that repeats the forward one.
    """
    for block in blocks(module).values():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _check(module: nn.Module, mesh: DeviceMesh, options: ShardingOptions) -> None:
    if options.cpu_offload and mesh.device_type == "cpu":
        raise ValueError("`cpu_offload: true` moves shards from a device to the CPU; these devices are CPUs already.")
    layers = adapter_layers(module)
    if any(layer.adapters.config.path == "packed" for layer in layers.values()):
        raise ValueError("Path 'packed' lays W and A out as one matrix, which can't be sharded; use 'auto'.")
    difference = first_difference(_description(module), mesh.get_group())
    if difference is not None:
        name = difference.names[0]
        first, other = (said.get(name, "nothing") for said in (difference.first, difference.other))
        raise ValueError(
            f"The processes are about to train different models: `{name}` is {first} in process 0 and {other} in "
            f"process {difference.process}; give every process the same configuration."
        )


def _description(module: nn.Module) -> dict[str, str]:
    """What has to be the same in every process: shapes, what trains, and all that the adapters are drawn from."""
    config = next((layer.adapters.config.to_dict() for layer in adapter_layers(module).values()), {})
    description = {f"adapter.{key}": json.dumps(value, default=str) for key, value in config.items()}
    parameters = [
        (name, tuple(p.shape), str(p.dtype), "trained" if p.requires_grad else "frozen")
        for name, p in module.named_parameters()
    ]
    trained = hashlib.sha256(repr(parameters).encode()).hexdigest()[:8]
    return {**description, "parameters": f"{len(parameters)} tensors (digest {trained})"}


def _to_device(module: nn.Module, mesh: DeviceMesh) -> None:
    """Move what is neither a shard nor on the meta device; the rest of the model waits for its turn on the host."""
    for parameter in module.parameters():
        if not isinstance(parameter, DTensor) and not parameter.is_meta:
            parameter.data = parameter.data.to(mesh.device_type)
