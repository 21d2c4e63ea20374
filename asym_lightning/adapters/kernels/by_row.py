"""The adapted linear map where every row of a batch has a B of its own: ``y_i = x_i W^T + b + s (x_i A^T) B_i^T``.

The A is one, so ``h = x A^T`` is one product for the whole batch, and the rows' B's are gathered from a stack of all
adapters' and multiplied in one batched product: its cost does not depend on how many adapters there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.linear import adapted_linear, in_compute_dtype
from asym_lightning.adapters.kernels.plan import Plan, Weight
from asym_lightning.adapters.kernels.products import columns_of_slices, dense_in, read_inputs

# Up to so many adapters times tokens of a row, as in generation, copying a B for each row costs more than products.
_FEW = 16


@dataclass
class FactorsByRow:
    """B's of many adapters of one layer, and which row has which.

    Args:
        layer: Its name, for messages.
        stacks: (adapters, rank, rows of the slice), the transposed B's of each slice.
        rows: Which of the adapters each row of a batch has.
    """

    layer: str
    stacks: Sequence[Tensor]
    rows: RowsInUse
    _kept: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def linear(self, x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], plan: Plan) -> Tensor:
        """Apply the frozen linear map, and to each row its adapter.

        Args:
            x: (k * rows, ..., d_in): every row k times, one after another, as a beam search or windows of images have
                it.
            weight: (d_out, d_in), frozen; a tensor, or quantised.
            bias: (d_out), frozen, or ``None``.
            As: (r, d_in) each; one per slice, or a single one where ``plan.shares_a``.
            plan: Layout, scalings and dropout; the path is its own.

        Returns:
            (k * rows, ..., d_out), in the autocast dtype where autocast is on, else in x's.

        Raises:
            ValueError: The batch has another number of rows.
        """
        num_rows = len(self.rows.places)
        if len(x) % num_rows:
            raise ValueError(
                f"`{self.layer}` was called with {len(x)} rows, but {num_rows} are named: name an adapter, "
                "or None, for each row of the batch."
            )
        if len(self.rows.distinct) == 1:
            Bs = [stack[self.rows.distinct[0]].T for stack in self.stacks]
            return adapted_linear(x, weight, bias, As, Bs, plan._replace(path="auto"))
        x = in_compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            if torch.is_grad_enabled():
                return _differentiable(x, weight, bias, As, self, plan)
            return _in_place(x, weight, bias, As, self, plan)

    def gathered(self, number: int, dtype: torch.dtype, *, for_each_row: bool, keep: bool) -> Tensor:
        """(rows or distinct adapters, rank, rows of the slice), B's of one slice, without gradients for the stack.

        Args:
            number: Of the slice.
            dtype: To compute in.
            for_each_row: One for each row of the batch, not for each adapter.
            keep: Keep them for the next call, as long as they take no more room than the stack itself.
        """
        kept = self._kept.get((number, for_each_row))
        if kept is None or kept.dtype != dtype:
            stack = self.stacks[number]
            kept = stack[self.rows.places if for_each_row else self.rows.distinct].to(dtype)
            if keep and len(kept) <= len(stack):
                self._kept[number, for_each_row] = kept
        return kept


class RowsInUse(NamedTuple):
    """Which adapter each row has, by its place in the stacks; the same for all layers.

    Attributes:
        places: One a row.
        distinct: Each that some row has, once.
        has: (rows, distinct), whether a row has it.
    """

    places: Tensor
    distinct: Tensor
    has: Tensor

    @classmethod
    def of(cls, places: Sequence[int], device: torch.device) -> RowsInUse:
        """Of places that are known by now."""
        by_row = torch.tensor(places, device=device)
        distinct = by_row.unique()
        return cls(by_row, distinct, by_row.unsqueeze(1) == distinct)


def _in_place(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], factors: FactorsByRow, plan: Plan
) -> Tensor:
    """The low-rank part first, into which the large product is accumulated."""
    d_out = weight.shape[0]
    tokens = x.reshape(-1, x.shape[-1])
    read = F.dropout(tokens, plan.dropout) if plan.dropout else tokens
    h = read_inputs(read, As, plan)
    start = x.new_zeros(()) if bias is None else bias.to(x.dtype)
    parts = columns_of_slices(h, As, plan)
    if len(parts) == 1 and plan.rows[0].count == d_out:
        out = _low_rank(parts[0], factors, 0, plan.scalings[0], start)
    else:
        out = x.new_empty(len(tokens), d_out).copy_(start)
        for i, (rows, scaling, part) in enumerate(zip(plan.rows, plan.scalings, parts, strict=True)):
            rows.view(out).add_(rows.split(_low_rank(part, factors, i, scaling, x.new_zeros(()))))
    return out.addmm_(tokens, dense_in(weight, x.dtype).T).view(*x.shape[:-1], d_out)


def _low_rank(h: Tensor, factors: FactorsByRow, number: int, scaling: float, start: Tensor) -> Tensor:
    """``start + s h_i B_i^T`` for one slice, (tokens, rows of the slice)."""
    rows = factors.rows
    by_row = h.reshape(len(rows.places), -1, h.shape[1])
    tokens_per_row = by_row.shape[1]
    if tokens_per_row * len(rows.distinct) <= _FEW:
        # Each token's h in the columns of its adapter, zeros beside it: one product, and no B is copied for each row.
        wide = by_row.unsqueeze(2) * rows.has[:, None, :, None]
        Bs = factors.gathered(number, h.dtype, for_each_row=False, keep=True).flatten(0, 1)
        return torch.addmm(start, wide.view(len(h), -1), Bs, alpha=scaling)
    # Kept in generation alone, whose next call is the next token.
    Bs = factors.gathered(number, h.dtype, for_each_row=True, keep=tokens_per_row == 1)
    return torch.baddbmm(start, by_row, Bs, alpha=scaling).flatten(0, 1)


def _differentiable(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], factors: FactorsByRow, plan: Plan
) -> Tensor:
    """The same in ordinary operators, with gradients for x and the stacks."""
    out = F.linear(x, dense_in(weight, x.dtype), None if bias is None else bias.to(x.dtype))
    dropped = F.dropout(x, plan.dropout) if plan.dropout else x
    for i, (rows, scaling) in enumerate(zip(plan.rows, plan.scalings, strict=True)):
        h = F.linear(dropped, As[0 if plan.shares_a else i].to(x.dtype))
        B = factors.stacks[i][factors.rows.places].to(x.dtype)
        update = torch.bmm(h.reshape(len(B), -1, h.shape[-1]), B).reshape(*x.shape[:-1], -1)
        out = rows.plus(out, update, scaling)
    return out
