"""One vector of a text from those of its tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last"]


def pooled(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return a vector a text (texts, width).

    Args:
        states: Hidden states (texts, length, width).
        attention_mask: 1 where there is a token, 0 in the padding at the ends (texts, length).
        pooling: The `mean` over tokens, the first token (`cls`) or the `last` one.

    Example:
        >>> states, mask = torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[1, 1, 0]])
        >>> [pooled(states, mask, pooling).item() for pooling in ("mean", "cls", "last")]
        [1.5, 1.0, 2.0]
    """
    if pooling == "cls":
        return states[:, 0]
    lengths = attention_mask.sum(dim=1)
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), lengths - 1]
    return (states * attention_mask.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(-1)
