"""A model without numbers, whose operators give shapes alone: the largest one fits into a few megabytes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.core.private_names import FakeTensorMode

# Backward passes over fake tensors of a GPU need a GPU (pytorch issue 92627), so these say that they are on the CPU,
# and `GpuOperators` lets them compute as on a GPU.
DEVICE = "cpu"


def fake_mode() -> FakeTensorMode:
    """Return the context in which tensors that are made, and results of operators, have no numbers."""
    return FakeTensorMode()


def make_fake(module: nn.Module) -> None:
    """Replace every parameter and buffer, in place, by one without numbers; what was shared is shared still.

    A quantised weight keeps the description by which bitsandbytes makes it dense.

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
                known[id(parameter)] = fake = nn.Parameter(_empty(parameter), parameter.requires_grad)
                _copy_quantization(parameter, fake)
            setattr(child, name, known[id(parameter)])
        for name, buffer in list(child.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(child, name, known.setdefault(id(buffer), _empty(buffer)))


def _copy_quantization(weight: Any, fake: Any) -> None:
    for name in ("quant_state", "SCB"):
        if getattr(weight, name, None) is not None:
            setattr(fake, name, _without_numbers(getattr(weight, name)))


def _without_numbers(state: Any) -> Any:
    """A tensor, or an object with some."""
    if isinstance(state, Tensor):
        return _empty(state)
    state = copy.copy(state)
    for name, value in vars(state).items():
        if isinstance(value, Tensor) or (name == "state2" and value is not None):
            setattr(state, name, _without_numbers(value))
    return state


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)
