"""The adapted linear map where equal parts of a batch have each their own A and B, all of which may train.

``y_k = x_k W^T + b + (x_k A_k^T) (s B_k)^T`` for the k-th part: W is multiplied once with the whole batch, and the
factors in two batched products, whatever the number of parts. What is kept for the backward pass is h and, where A
trains, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.linear import in_compute_dtype
from asym_lightning.adapters.kernels.once_differentiable import once_differentiable
from asym_lightning.adapters.kernels.plan import Plan, Weight
from asym_lightning.adapters.kernels.products import dense_in
from asym_lightning.core.private_names import unsafe_view


@dataclass
class FactorsByGroup:
    """Factors of one layer in several models of one shape.

    Args:
        layer: Its name, for messages.
        As: (r, d_in) each, by model; one per slice, or a single one where slices share it.
        Bs: (rows of the slice, r) each, by model and slice.
    """

    layer: str
    As: Sequence[Sequence[Tensor]]
    Bs: Sequence[Sequence[Tensor]]

    def linear(self, x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], plan: Plan) -> Tensor:
        """Apply the frozen linear map, and to each part of the batch the factors of its model.

        Args:
            x: (models * rows, ..., d_in).
            weight: (d_out, d_in), frozen; a tensor, or quantised.
            bias: (d_out), frozen, or ``None``.
            As: Those of the layer itself, which are not used.
            plan: Layout and scalings; the path is its own.

        Returns:
            (models * rows, ..., d_out), in the autocast dtype where autocast is on, else in x's.

        Raises:
            ValueError: The rows can't be divided among the models, or adapters drop inputs.
        """
        if len(x) % len(self.Bs):
            raise ValueError(f"`{self.layer}` was called with {len(x)} rows, which {len(self.Bs)} models can't share.")
        if plan.dropout:
            raise ValueError(
                f"`dropout: {plan.dropout}` of adapters draws random numbers, which in one pass for several models "
                "can't be those of each: set it to 0."
            )
        x = in_compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            A = torch.stack([torch.cat([*of_model]) for of_model in self.As]).to(x.dtype)
            B = self._scaled_B(weight.shape[0], A.shape[1], plan).to(x.dtype)
            return _LinearByGroup.apply(x, weight, None if bias is None else bias.to(x.dtype), A, B)

    def _scaled_B(self, d_out: int, num_columns: int, plan: Plan) -> Tensor:
        """(models, d_out, columns), every ``s B`` in the rows of its slice and the columns of its A."""
        by_slice = [scaling * torch.stack(Bs) for scaling, *Bs in zip(plan.scalings, *self.Bs, strict=True)]
        if len(by_slice) == 1 and plan.rows[0].count == d_out:
            return by_slice[0]
        block = by_slice[0].new_zeros(len(self.Bs), d_out, num_columns)
        start = 0
        for rows, B in zip(plan.rows, by_slice, strict=True):
            rank = B.shape[-1]
            rows.view(block.narrow(2, start, rank), 1).copy_(rows.split(B, 1))
            start += 0 if plan.shares_a else rank
        return block


class _LinearByGroup(torch.autograd.Function):
    """``x W^T + b + (x A_k^T) B_k^T`` with the low-rank part added in place, forward and backward."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Weight, bias: Tensor | None, A: Tensor, B: Tensor
    ) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        parts = tokens.view(len(A), -1, x.shape[-1])
        h = parts @ A.mT
        out = F.linear(tokens, dense_in(weight, x.dtype), bias)
        out.view(len(A), -1, out.shape[-1]).baddbmm_(h, B.mT)
        is_dense = isinstance(weight, Tensor)
        ctx.save_for_backward(weight if is_dense else None, parts if A.requires_grad else None, h, A, B)
        ctx.quantized = None if is_dense else weight
        return unsafe_view(out, (*x.shape[:-1], out.shape[-1]))  # hosts write into it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, parts, h, A, B = ctx.saved_tensors
        needs_x, _, needs_bias, needs_A, needs_B = ctx.needs_input_grad
        tokens = g.reshape(-1, g.shape[-1])
        by_model = tokens.view(len(A), -1, g.shape[-1])
        grad_h = by_model @ B
        grad_x = None
        if needs_x:
            dense = dense_in(ctx.quantized if weight is None else weight, g.dtype)
            grad_x = tokens @ dense
            grad_x.view(len(A), -1, grad_x.shape[-1]).baddbmm_(grad_h, A)
            grad_x = grad_x.view(*g.shape[:-1], -1)
        return (
            grad_x,
            None,
            tokens.sum(0) if needs_bias else None,
            grad_h.mT @ parts if needs_A else None,
            by_model.mT @ h if needs_B else None,
        )
