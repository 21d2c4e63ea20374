"""Computations that keep the activations of a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(function: Callable[..., Tensor], size: int | None, *inputs: Tensor) -> Tensor:
    """Return what a function makes of rows, `size` of them at a time, one chunk after another.

    A backward pass computes each chunk again, with the same dropout, so that the activations of one chunk alone are
    there at a time; the gradients are those of all rows at once, whatever is made of the results.

    Args:
        function: From rows of each input to as many rows; they may not depend on one another.
        size: Rows of a chunk; None means all rows, whose activations are kept.
        inputs: Tensors of equally many rows.

    Example:
        >>> in_chunks(lambda x: x.square(), 2, torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 4., 9.])
    """
    if size is None:
        return function(*inputs)
    parts = zip(*(of_all.split(size) for of_all in inputs), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([cast(Tensor, checkpoint(function, *part, use_reentrant=False)) for part in parts])
    return torch.cat([function(*part) for part in parts])
