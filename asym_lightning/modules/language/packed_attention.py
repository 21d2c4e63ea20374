"""Attention of packed sequences: several examples in one row that must not see each other."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.core.private_names import attention_implementation


def packed_attention_mask(segment_ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a mask (batch, 1, length, length): a token attends to itself and to earlier ones of its own segment.

    Args:
        segment_ids: Number of the example that each token is a part of (batch, length). Padding has a number too, so
            that no token is left with nothing to attend to, which would be a NaN.
        dtype: Return numbers to add to the scores (0, or the least of this type); None returns truth values.

    Example:
        >>> packed_attention_mask(torch.tensor([[1, 1, 2]]))[0, 0].int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    length = segment_ids.shape[1]
    is_earlier = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    mask = ((segment_ids[:, :, None] == segment_ids[:, None, :]) & is_earlier)[:, None]
    if dtype is None:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def packed_inputs(model: nn.Module, segment_ids: Tensor, position_ids: Tensor) -> dict[str, Any]:
    """Return what a decoder needs beside its tokens to treat each segment as a sequence of its own.

    Raises:
        ValueError: If the model cannot: it has no positions to set, it has layers that are not attention, or its
            attention is of a kind that takes no mask.
    """
    config: Any = model.config
    attention = attention_implementation(config)
    base: Any = model.base_model
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise ValueError(f"packing needs a model that takes `position_ids`, and {config.model_type!r} does not.")
    others = {*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())}
    others -= {"full_attention", "sliding_attention", "attention"}
    if others:
        raise ValueError(f"packing needs attention in all layers, and {config.model_type!r} has {sorted(others)}.")
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"packing needs attention with a mask (sdpa or eager), not {attention!r}.")
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and segment_ids.shape[1] > window:
        raise ValueError(
            f"packed rows of {segment_ids.shape[1]} tokens are longer than the model's attention window of {window}: "
            "set the data module's `max_length` to at most that."
        )
    dtype = None if attention == "sdpa" else next(model.parameters()).dtype
    return {"attention_mask": packed_attention_mask(segment_ids, dtype), "position_ids": position_ids}
