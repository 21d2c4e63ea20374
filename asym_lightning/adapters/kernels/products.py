"""The products that an adapted linear map is made of: with A, with B, and with the sum of W and both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from asym_lightning.adapters.kernels.cpu.narrow_products import dot
from asym_lightning.adapters.kernels.dropout import drop_then_project
from asym_lightning.adapters.kernels.plan import Plan, Weight
from asym_lightning.adapters.rows import Rows

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def read_inputs(tokens: Tensor, As: Sequence[Tensor], plan: Plan, seed: Tensor | None = None) -> Tensor:
    """``x A^T`` of all A's side by side, (tokens, sum of ranks); a seed drops inputs."""
    if seed is not None:
        return drop_then_project(tokens, stacked(As, tokens.dtype), seed, plan.dropout)
    if plan.sparse is not None:
        read = {rows: rows.read(tokens) for rows in dict.fromkeys(plan.sparse)}  # equal A's are one object
        return joined([read[rows] for rows in plan.sparse], dim=1)
    return dot(tokens, stacked(As, tokens.dtype))


def low_rank_output(
    h: Tensor, bias: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan, d_out: int
) -> Tensor:
    """``s h B^T + b`` as a new (tokens, d_out) tensor."""
    dtype, scales = h.dtype, scales_of(plan)
    if len(scales) == 1 and plan.rows[0].count == d_out:
        start = h.new_empty(()) if bias is None else cast(bias, dtype)
        return torch.addmm(start, h, cast(Bs[0], dtype).T, beta=int(bias is not None), alpha=scales[0])
    num_tokens = h.shape[0]
    out = h.new_zeros(num_tokens, d_out) if bias is None else h.new_empty(num_tokens, d_out).copy_(bias)
    for rows, scaling, B, h_slice in zip(plan.rows, scales, Bs, columns_of_slices(h, As, plan), strict=True):
        accumulate(rows, out, h_slice, cast(B, dtype).T, scaling)
    return out


def accumulate(rows: Rows, out: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """``out[:, rows] += scaling * left @ right``, in place."""
    if rows.groups == 1:
        rows.view(out).addmm_(left, right, alpha=scaling)
    else:
        rows.view(out).add_(rows.split(left @ right), alpha=scaling)


def dense_in(weight: Weight, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype, (d_out, d_in); a quantised one is made dense anew."""
    return cast(weight, dtype) if isinstance(weight, Tensor) else weight.dense(dtype)


def cast(tensor: MaybeTensor, dtype: torch.dtype) -> MaybeTensor:
    """``tensor.to(dtype)``, which costs more than the question whether it has something to do."""
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def stacked(As: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All A's as one (sum of ranks, d_in) matrix, so that x is read once for every slice."""
    return cast(joined(As, dim=0), dtype)


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The parts as one tensor, without a copy where there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def columns_of_slices(h: Tensor, As: Sequence[Tensor], plan: Plan) -> Sequence[Tensor]:
    """The (tokens, r) columns of h that each slice's B reads."""
    if plan.shares_a or len(As) == 1:
        return [h] * len(plan.rows)
    return h.split([A.shape[0] for A in As], dim=1)


def scales_of(plan: Plan) -> list[float]:
    """Scalings with dropout's 1 / (1 - p) folded in, which costs nothing there."""
    return [scaling / (1 - plan.dropout) for scaling in plan.scalings]


def formed_weight(weight: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan) -> Tensor:
    """``W + s B A`` as a new (d_out, d_in) matrix."""
    if plan.sparse is not None:
        is_whole = sum(rows.count for rows in plan.rows) == weight.shape[0]
        formed = _empty_like(weight) if is_whole else _empty_like(weight).copy_(weight)
        for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
            sparse = plan.sparse[0 if plan.shares_a else i]
            sparse.add(rows.view(weight, 0), rows.split(scaling * B, 0), out=rows.view(formed, 0))
        return formed
    if len(plan.rows) == 1 and plan.rows[0].count == weight.shape[0]:
        return torch.addmm(weight, Bs[0], As[0], alpha=plan.scalings[0])
    formed = _empty_like(weight).copy_(weight)
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
        A = As[0 if plan.shares_a else i]
        if rows.groups == 1:
            rows.view(formed, 0).addmm_(B, A, alpha=scaling)
        else:
            rows.view(formed, 0).add_(rows.split(B @ A, 0), alpha=scaling)
    return formed


def _empty_like(weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)
