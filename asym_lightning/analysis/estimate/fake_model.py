"""A model without numbers, whose operators give shapes alone: the largest one fits into a few megabytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

# No public name: torch.compile's own way to run a model without data. Backward passes over fake tensors of a GPU need a
# GPU (pytorch issue 92627), so these say that they are on the CPU, and `GpuOperators` lets them compute as on a GPU.
DEVICE = "cpu"


def fake_mode() -> FakeTensorMode:
    """Return the context in which tensors that are made, and results of operators, have no numbers."""
    return FakeTensorMode()


def make_fake(module: nn.Module) -> None:
    """Replace every parameter and buffer, in place, by one without numbers; what was shared is shared still.

    Call it in a `fake_mode`.

    >>> layer = nn.Linear(3, 3, device="meta")
    >>> with fake_mode():
    ...     make_fake(layer)
    ...     layer(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    known: dict[int, Tensor] = {}
    for child in module.modules():
        for name, parameter in list(child.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in known:
                known[id(parameter)] = nn.Parameter(_empty(parameter), parameter.requires_grad)
            setattr(child, name, known[id(parameter)])
        for name, buffer in list(child.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(child, name, known.setdefault(id(buffer), _empty(buffer)))


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)
