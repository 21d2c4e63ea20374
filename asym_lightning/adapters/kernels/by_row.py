"""The adapted linear map where every row of a batch has a B of its own: ``y_i = x_i W^T + b + s (x_i A^T) B_i^T``.

The A is one, so ``h = x A^T`` is one product for the whole batch, and the rows' B's are gathered from a stack of all
adapters' and multiplied in one batched product: its cost does not depend on how many adapters there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.linear import (
    Plan,
    Weight,
    adapted_linear,
    columns_of_slices,
    dense_in,
    in_compute_dtype,
    read_inputs,
)


class FactorsByRow(NamedTuple):
    """B's of many adapters of one layer, and which row has which.

    Attributes:
        layer: Its name, for messages.
        stacks: (adapters, rank, rows of the slice), the transposed B's of each slice.
        places: Which of the adapters each row of the batch has.
        only: The one adapter that all rows have; ``None`` where they have several.
    """

    layer: str
    stacks: Sequence[Tensor]
    places: Tensor
    only: int | None


def linear_by_row(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], factors: FactorsByRow, plan: Plan
) -> Tensor:
    """Apply the frozen linear map, and to each row its adapter.

    Args:
        x: (k * rows, ..., d_in): every row k times, one after another, as a beam search or windows of images have it.
        weight: (d_out, d_in), frozen; a tensor, or quantised.
        bias: (d_out), frozen, or ``None``.
        As: (r, d_in) each; one per slice, or a single one where ``plan.shares_a``.
        factors: The B's in the place of the layer's own.
        plan: Layout, scalings and dropout; the path is its own.

    Returns:
        (k * rows, ..., d_out), in the autocast dtype where autocast is on, else in x's.

    Raises:
        ValueError: The batch has another number of rows.
    """
    if len(x) % len(factors.places):
        raise ValueError(
            f"`{factors.layer}` was called with {len(x)} rows, but {len(factors.places)} are named: name an adapter, "
            "or None, for each row of the batch."
        )
    if factors.only is not None:
        Bs = [stack[factors.only].T for stack in factors.stacks]
        return adapted_linear(x, weight, bias, As, Bs, plan._replace(path="auto"))
    x = in_compute_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled():
            return _differentiable(x, weight, bias, As, factors, plan)
        return _in_place(x, weight, bias, As, factors, plan)


def _in_place(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], factors: FactorsByRow, plan: Plan
) -> Tensor:
    """The low-rank part first, into which the large product is accumulated."""
    num_rows, d_out = len(factors.places), weight.shape[0]
    tokens = x.reshape(-1, x.shape[-1])
    read = F.dropout(tokens, plan.dropout) if plan.dropout else tokens
    h = read_inputs(read, As, plan)
    Bs = _gathered(factors, x.dtype)
    by_row = [part.reshape(num_rows, -1, part.shape[1]) for part in columns_of_slices(h, As, plan)]
    start = x.new_zeros(()) if bias is None else bias.to(x.dtype)
    if len(Bs) == 1 and plan.rows[0].count == d_out:
        out = torch.baddbmm(start, by_row[0], Bs[0], alpha=plan.scalings[0])
    else:
        out = x.new_empty(num_rows, by_row[0].shape[1], d_out).copy_(start)
        for rows, scaling, part, B in zip(plan.rows, plan.scalings, by_row, Bs, strict=True):
            rows.view(out).add_(rows.split(torch.bmm(part, B)), alpha=scaling)
    out = out.view(-1, d_out).addmm_(tokens, dense_in(weight, x.dtype).T)
    return out.view(*x.shape[:-1], d_out)


def _differentiable(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], factors: FactorsByRow, plan: Plan
) -> Tensor:
    """The same in ordinary operators, with gradients for x and the stacks."""
    out = F.linear(x, dense_in(weight, x.dtype), None if bias is None else bias.to(x.dtype))
    dropped = F.dropout(x, plan.dropout) if plan.dropout else x
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, _gathered(factors, x.dtype), strict=True)):
        h = F.linear(dropped, As[0 if plan.shares_a else i].to(x.dtype))
        update = torch.bmm(h.reshape(len(B), -1, h.shape[-1]), B).reshape(*x.shape[:-1], -1)
        rows.view(out).add_(rows.split(update), alpha=scaling)
    return out


def _gathered(factors: FactorsByRow, dtype: torch.dtype) -> list[Tensor]:
    """(rows, rank, rows of the slice) for each slice."""
    return [stack[factors.places].to(dtype) for stack in factors.stacks]
