"""Operators that keep other tensors on a GPU than on a CPU, as the GPU has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from asym_lightning.core.private_names import efficient_attention, flash_attention

aten = torch.ops.aten
# From autocast's list of operators that compute in float32 on a GPU (torch/amp, "CUDA Ops that can autocast to
# float32"), those that networks and losses are made of; a CPU computes them in the dtype that they get.
_IN_FLOAT32 = {
    F.layer_norm, F.group_norm, F.cosine_similarity, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.nll_loss,
    F.binary_cross_entropy_with_logits, torch.exp, torch.log, torch.pow, torch.rsqrt, torch.reciprocal,
    torch.layer_norm, torch.group_norm, torch.cumsum, torch.sum, torch.prod, torch.norm,
    Tensor.exp, Tensor.log, Tensor.pow, Tensor.rsqrt, Tensor.reciprocal, Tensor.cumsum, Tensor.sum, Tensor.prod,
    Tensor.norm, Tensor.__pow__, F.cross_entropy,
}  # fmt: skip
_SOFTMAX = {F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, Tensor.softmax, Tensor.log_softmax}
_ALIGNED = 8  # numbers in a row of q, k and v that the flash kernel asks for


class GpuOperators(TorchFunctionMode):
    """Attention by the fused kernels, dropout with a mask of bytes, and autocast's float32, for tensors of the CPU.

    Attention takes the flash kernel in half precision without a mask and the memory-efficient one otherwise, as torch
    chooses on a recent GPU.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, or what stands for it on a GPU."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in (F.dropout, torch.dropout):
            return _dropout(*args, **kwargs)
        if torch.is_autocast_enabled("cpu"):
            if func in _IN_FLOAT32:
                args = tuple(_wide(argument) for argument in args)
            elif func in _SOFTMAX and args and isinstance(args[0], Tensor) and kwargs.get("dtype") is None:
                kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        width = query.shape[-1]
        missing = -width % _ALIGNED
        if missing:
            query, key, value = (F.pad(t, (0, missing)) for t in (query, key, value))
        out = flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
        return out[..., :width]
    if enable_gqa and key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(query.dtype)  # of truth values too: torch makes numbers to add of them, in each layer
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    keeps = torch.is_grad_enabled()
    out = efficient_attention(query, key, value, bias, keeps, dropout_p, is_causal, scale=scale)
    return out[0]
