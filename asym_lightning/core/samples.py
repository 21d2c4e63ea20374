"""A few numbers of a tensor, by which it is known again."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from asym_lightning.core.dtensor import is_sharded

_NUM_SAMPLED = 256


@torch.no_grad()
def sample(tensor: Tensor) -> Tensor:
    """Some hundred numbers, evenly spread over what this process holds of a tensor."""
    local: Tensor = cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
    flat = local.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _NUM_SAMPLED)].clone()


def is_still(before: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor has the numbers of which :func:`sample` was taken, in whatever dtype and place it is now.

    >>> x = torch.zeros(4)
    >>> before = sample(x)
    >>> is_still(before, x.double()), is_still(before, x + 1)
    (True, False)
    """
    now = sample(tensor)
    return before.shape == now.shape and torch.equal(before.to(now), now)
