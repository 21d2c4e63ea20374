"""Build a model without the memory for its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Let modules that are built inside have their parameters on the meta device, and all else as it is.

    Buffers such as rotary frequencies and relative positions are in no file and are what the constructor computes, so
    they are computed. Building everything on the meta device would leave them without a value. Parameters are
    initialised there, too, which takes no time and draws no random numbers. A model whose buffers go by the device of
    its parameters, as those of timm's Swin do, gets them on the meta device or fails to be built.

    >>> with empty_parameters():
    ...     layer = nn.BatchNorm1d(3)
    >>> layer.weight.device.type, layer.running_var
    ('meta', tensor([1., 1., 1.]))
    """
    register = nn.Module.register_parameter

    def register_empty(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            # One that is registered twice is tied, and remains so.
            known: Any = getattr(param, "emptied", None)
            if known is None:
                known = nn.Parameter(param.detach().to("meta"), param.requires_grad)
                param.emptied = known  # type: ignore[attr-defined]
            param = known
        register(self, name, param)

    nn.Module.register_parameter = register_empty  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def is_empty(module: nn.Module) -> bool:
    """Whether some parameter is on the meta device.

    >>> is_empty(nn.Linear(2, 2, device="meta"))
    True
    """
    return any(parameter.device == torch.device("meta") for parameter in module.parameters())
