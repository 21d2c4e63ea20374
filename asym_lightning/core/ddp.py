"""Data parallelism with a frozen backbone: each process has all of the model, and only what trains is exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from asym_lightning.core.private_names import leave_out_of_ddp


def leave_frozen_out_of_ddp(module: nn.Module, backbone: nn.Module) -> None:
    """Let a `DistributedDataParallel` made of the module later exchange what trains and nothing else.

    Left to itself it broadcasts every parameter when it is made, and every buffer in each forward pass: of a frozen
    backbone, what each process has read from the same file. Frozen parameters, A among them, are left out, and buffers
    of the backbone's modules that train nothing; :func:`check_replicas` sees that they are equal. Call it again when
    more has been frozen.

    Args:
        module: What DDP will wrap.
        backbone: Adapted or frozen; it may be the module itself.
    """
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    constant = {id(buffer) for buffer in _frozen_buffers(backbone)}
    buffers = [name for name, buffer in module.named_buffers() if id(buffer) in constant]
    leave_out_of_ddp(module, [*frozen, *buffers])


def from_all_processes(here: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """What each process gives, in their order and in all of them; every process has to call it.

    >>> from_all_processes("alone")
    ['alone']
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [here]
    everywhere = [None] * dist.get_world_size(group)
    dist.all_gather_object(everywhere, here, group=group)
    return everywhere


class Difference(NamedTuple):
    """What the first process says and another one says differently.

    Attributes:
        process: Number of the other one.
        names: Names of what differs, in the order of the first process.
        first: All that the first process says, by name.
        other: All that the other one says.
    """

    process: int
    names: list[str]
    first: dict[str, Any]
    other: dict[str, Any]


def first_difference(here: dict[str, Any], group: dist.ProcessGroup | None = None) -> Difference | None:
    """The first process that differs from process 0, the same in all of them; every process has to call it.

    Args:
        here: What this process says, by name.
        group: The processes; None means all.
    """
    everywhere = from_all_processes(here, group)
    first = everywhere[0]
    for process, there in enumerate(everywhere):
        names = [name for name in {**first, **there} if first.get(name) != there.get(name)]
        if names:
            return Difference(process, names, first, there)
    return None


def _frozen_buffers(backbone: nn.Module) -> Iterator[Tensor]:
    for child in backbone.modules():
        if not any(parameter.requires_grad for parameter in child.parameters(recurse=False)):
            yield from child.buffers(recurse=False)


def sum_of_bits(tensor: Tensor) -> int:
    """The sum of a tensor's numbers, read as integers, which tells apart all but permutations.

    >>> sum_of_bits(torch.tensor([0.0, 1.0])) == sum_of_bits(torch.tensor([0.0, 1.0000001]))
    False
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.dtype.itemsize, torch.uint8)
    return int(tensor.detach().flatten().view(integers).sum(dtype=torch.int64))
