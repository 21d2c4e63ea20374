"""Tensors of which each process holds a shard: read whole, written whole, or taken piece by piece.

Where a model is sharded by FSDP2 its parameters and their optimizer state are ``DTensor``. Plain tensors go through the
same functions unchanged, so that code which changes a factor is written once. Whatever communicates says so: every
process has to call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Piece(NamedTuple):
    """What a process holds of a matrix, seen along one dimension.

    Attributes:
        local: The rows or columns that are here, or the whole matrix where ``group`` is ``None``.
        group: The processes that hold the others.
    """

    local: Tensor
    group: dist.ProcessGroup | None

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all pieces of what was computed from each, in place; communicates where there are several."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold parts of it.

    >>> import torch
    >>> is_sharded(torch.zeros(2))
    False
    """
    return isinstance(tensor, DTensor)


def any_sharded(model: nn.Module) -> bool:
    """Whether some parameter of a model is sharded."""
    return any(is_sharded(parameter) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, detached: itself where it is not sharded, else gathered (communicates).

    >>> import torch
    >>> x = torch.ones(2)
    >>> whole(x).data_ptr() == x.data_ptr()
    True
    """
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def piece(tensor: Tensor, dim: int) -> Piece:
    """What this process holds of a matrix that is sharded along ``dim``; the whole of any other (communicates then)."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return Piece(tensor, None)
    if tensor.device_mesh.ndim == 1 and tensor.placements[0].is_shard(dim):
        return Piece(tensor.to_local(), tensor.device_mesh.get_group())
    return Piece(tensor.full_tensor(), None)


def sharded_like(value: Tensor, target: Tensor) -> Tensor:
    """``value``, sharded if ``target`` is, and as it is (communicates); the first process' value counts."""
    if not isinstance(target, DTensor):
        return value
    value = value.to(device=target.device, dtype=target.dtype)
    return distribute_tensor(value.contiguous(), target.device_mesh, target.placements)


@contextmanager
def edited(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor to write in as a whole: itself, or, where it is sharded, a copy that is written back (communicates).

    >>> import torch
    >>> x = torch.zeros(2)
    >>> with torch.no_grad(), edited(x) as values:
    ...     values[1] = 3
    >>> x
    tensor([0., 3.])
    """
    values = whole(tensor)
    yield values
    if is_sharded(tensor):
        tensor.copy_(sharded_like(values, tensor))


def first_numbers(tensor: Tensor, count: int) -> Tensor:
    """The first few numbers of a tensor in row-major order (communicates where it is sharded).

    >>> import torch
    >>> first_numbers(torch.arange(6).view(2, 3), 4)
    tensor([0, 1, 2, 3])
    """
    if not isinstance(tensor, DTensor) or tensor.shape[1:].numel() < count:
        return whole(tensor).flatten()[:count]
    # All of them are in the first row, which the first process has.
    local, group = piece(tensor, 0)
    if group is None:
        return local.flatten()[:count]
    numbers = local.new_empty(count)
    if dist.get_rank(group) == 0:
        numbers.copy_(local[0].flatten()[:count])
    dist.broadcast(numbers, dist.get_global_rank(group, 0), group=group)
    return numbers


def whole_state_dict(state: Mapping[str, Tensor], names: Iterable[str], *, keep: bool = True) -> dict[str, Tensor]:
    """The named entries of a state dict, whole and on the CPU (communicates), one at a time.

    Args:
        state: A state dict, sharded or not.
        names: What to gather.
        keep: ``False`` lets this process take part and keep nothing.
    """
    gathered: dict[str, Tensor] = {}
    for name in names:
        tensor = state[name]
        values = whole(tensor).cpu() if isinstance(tensor, Tensor) else tensor
        if keep:
            gathered[name] = values
    return gathered
