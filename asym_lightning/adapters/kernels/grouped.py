"""The product of groups of tokens, each with the weight of its own expert and the low-rank update of it, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Product = Callable[..., Tensor]


def grouped_product(
    product: Product, x: Tensor, weight: Tensor, A: Tensor, B: Tensor, offs: Tensor, scaling: float
) -> Tensor:
    """``x_i W_i + s (x_i A^T) B_i^T`` for each group of rows of x, with what is added to a product added in place.

    Args:
        product: The host's own grouped product, called as ``product(x, weight, offs=offs)``.
        x: (tokens, d_in), sorted by group.
        weight: (groups, d_in, d_out), frozen.
        A: (rank, d_in), or (groups, rank, d_in).
        B: (groups, d_out, rank).
        offs: Where each group ends; rows behind the last are of no group.
        scaling: s.
    """
    return _Grouped.apply(x, weight, A, B, offs, scaling, product)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, A: Tensor, B: Tensor, offs: Tensor, scaling: float, product: Product
    ) -> Tensor:
        groups = [slice(*ends) for ends in pairwise([0, *offs.tolist()])]
        out = product(x, weight, offs=offs)
        h = x.new_zeros(len(x), A.shape[-2])
        for i, group in enumerate(groups):
            torch.mm(x[group], _of(A, i).mT, out=h[group])
            out[group].addmm_(h[group], B[i].mT, alpha=scaling)
        # Only for a trained A is the input kept.
        ctx.save_for_backward(x if ctx.needs_input_grad[2] else None, weight, A, B, h, offs)
        ctx.groups, ctx.scaling, ctx.product = groups, scaling, product
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, h, offs = ctx.saved_tensors
        of_x = ctx.product(gradient, weight.mT, offs=offs) if ctx.needs_input_grad[0] else None
        of_A, of_B = torch.zeros_like(A), torch.zeros_like(B)
        for i, group in enumerate(ctx.groups):
            of_h = gradient[group] @ B[i] * ctx.scaling
            torch.mm(gradient[group].mT, h[group], out=of_B[i])
            if of_x is not None:
                of_x[group].addmm_(of_h, _of(A, i))
            if x is not None:
                _of(of_A, i).addmm_(of_h.mT, x[group])
        return of_x, None, of_A if x is not None else None, of_B.mul_(ctx.scaling), None, None, None


def _of(A: Tensor, group: int) -> Tensor:
    return A if A.dim() == 2 else A[group]
