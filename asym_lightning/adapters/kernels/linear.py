"""The adapted linear map ``y = x W^T + b + s (x A^T) B^T`` and its gradients.

With ``h = x A^T`` and ``g = dL/dy``: ``dB = s g^T h``, ``dx = g W + s (g B) A``, ``dA = s (g B)^T x``. A frozen A
makes ``dA`` disappear and with it the need to keep x: all that the backward pass holds is h, ``rank`` numbers a token.

Three ways to compute it, one autograd function; which one is best depends on shape, dtype and device:

* ``two_gemm``: ``s h B^T + b`` first, then the large product is accumulated into it, which costs one pass over the
  output less than the other order.
* ``packed``: W and A lie in one matrix, so x is read once and ``[y, h]`` comes out of one GEMM.
* ``formed``: ``W + s B A`` is formed on the fly, in time that does not grow with the tokens, and multiplied once. Only
  in float32 and float64: in half precision the sum would round the update away.

and ``plain``, the same in ordinary operators, for ``torch.func``, double backward, and as a reference. See
:func:`~asym_lightning.adapters.kernels.plan.choose_path` for the rule.

W may be quantised (:class:`QuantizedWeight`): then it is made dense for the one product in the forward pass, and again
in the backward pass, and ``packed`` and ``formed``, which need a dense W that stays, are not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.cpu.narrow_products import dot, outer
from asym_lightning.adapters.kernels.dropout import draw_seed, dropped_copy, project_back_then_drop
from asym_lightning.adapters.kernels.once_differentiable import once_differentiable
from asym_lightning.adapters.kernels.plan import Plan, QuantizedWeight, Weight, choose_path
from asym_lightning.adapters.kernels.products import (
    accumulate,
    cast,
    columns_of_slices,
    dense_in,
    formed_weight,
    joined,
    low_rank_output,
    read_inputs,
    scales_of,
    stacked,
)
from asym_lightning.core.private_names import unsafe_view


def frozen_linear(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """``x W^T + b`` for a quantised W, which keeps nothing for the backward pass.

    Args:
        x: (..., d_in).
        weight: (d_out, d_in).
        bias: (d_out), or ``None``; it may be trained.

    Returns:
        (..., d_out), in the autocast dtype where autocast is on, else in x's.

    Raises:
        TypeError: x holds no floating-point numbers.
    """
    x = in_compute_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return _FrozenLinear.apply(x, weight, bias)


def adapted_linear(
    x: Tensor,
    weight: Weight,
    bias: Tensor | None,
    As: Sequence[Tensor],
    Bs: Sequence[Tensor],
    plan: Plan,
    packed: Tensor | None = None,
) -> Tensor:
    """Apply the frozen linear map and every slice's adapter.

    Args:
        x: (..., d_in), any strides.
        weight: (d_out, d_in), frozen; a tensor, or quantised.
        bias: (d_out), frozen, or ``None``.
        As: (r, d_in) each; one per slice, or a single one where ``plan.shares_a``.
        Bs: (rows, r) each.
        plan: Layout, scalings, dropout and path.
        packed: (d_out + sum of r, d_in), the matrix ``[W; A]`` that ``weight`` and ``As`` are views of, for ``packed``.

    Returns:
        (..., d_out), in the autocast dtype where autocast is on, else in x's.

    Raises:
        ValueError: ``plan.path`` can't be taken by this dtype or weight or with this dropout; the message says why.
        TypeError: x holds no floating-point numbers.
        RuntimeError: A ``torch.func`` transform meets a path other than ``plain``.
    """
    x = in_compute_dtype(x)
    if _is_exported():  # to ordinary operators, for any number of tokens
        return _plain(x, weight, bias, As, Bs, plan)
    path, forms_gradient = choose_path(plan.path, x, weight, As[0].shape[0], plan, is_packed=packed is not None)
    # Gradients of W and b are no business of the fast path: a host that unfroze them gets the ordinary one.
    is_trained = any(isinstance(t, Tensor) and t.requires_grad for t in (weight, bias))
    if path == "plain" or is_trained:
        return _plain(x, weight, bias, As, Bs, plan)
    seed = draw_seed() if plan.dropout else None
    if not torch.is_grad_enabled():
        with torch.autocast(x.device.type, enabled=False):
            return _forward(x, weight, bias, packed, seed, plan, path, As, Bs, needs_h=False)[0]
    operands = (weight, bias, packed, seed, plan, path, forms_gradient, len(As), *As, *Bs)
    try:
        if not torch.is_autocast_enabled(x.device.type):
            return _AdaptedLinear.apply(x, *operands)
        with torch.autocast(x.device.type, enabled=False):
            return _AdaptedLinear.apply(x, *operands)
    except RuntimeError as error:
        if "functorch" not in str(error):
            raise
        raise RuntimeError("torch.func transforms need `path: plain` in the adapter's configuration.") from error


def _is_exported() -> bool:
    """Whether a graph for elsewhere is being made: by `torch.export`, `torch.jit.trace`, or for ONNX by either."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def in_compute_dtype(x: Tensor) -> Tensor:
    """Return x in the dtype to compute in: autocast's where that is on."""
    if not x.is_floating_point():
        raise TypeError(
            f"a linear layer got {x.dtype} numbers: if its host casts them to `weight.dtype`, the layer can't be "
            "quantised."
        )
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(device_type))
    return x


def _plain(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan
) -> Tensor:
    dtype = x.dtype
    out = F.linear(x, dense_in(weight, dtype), cast(bias, dtype))
    dropped = F.dropout(x, plan.dropout) if plan.dropout else x
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
        h = F.linear(dropped, cast(As[0 if plan.shares_a else i], dtype))
        out = rows.plus(out, F.linear(h, cast(B, dtype)), scaling)
    return out


class _FrozenLinear(torch.autograd.Function):
    """``x W^T + b`` for a quantised W, which is made dense once more for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.weight, ctx.bias_dtype = weight, None if bias is None else bias.dtype
        return F.linear(x, weight.dense(x.dtype), cast(bias, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_x = g @ ctx.weight.dense(g.dtype) if ctx.needs_input_grad[0] else None
        grad_b = g.reshape(-1, g.shape[-1]).sum(0).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_x, None, grad_b


class _AdaptedLinear(torch.autograd.Function):
    """Forward and backward by ``plan.path``.

    Weights are cast to x's dtype inside and again in the backward pass, so that no cast copy is kept in between.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Weight,
        bias: Tensor | None,
        packed: Tensor | None,
        seed: Tensor | None,
        plan: Plan,
        path: str,
        forms_gradient: bool,
        num_As: int,
        *factors: Tensor,
    ) -> Tensor:
        As, Bs = factors[:num_As], factors[num_As:]
        needs_B = any(B.requires_grad for B in Bs)
        out, h = _forward(x, weight, bias, packed, seed, plan, path, As, Bs, needs_h=needs_B)
        keeps_x = any(A.requires_grad for A in As)
        is_dense = isinstance(weight, Tensor)
        ctx.save_for_backward(
            weight if is_dense else None, x if keeps_x else None, h if needs_B else None, seed, *factors
        )
        ctx.rest = (None if is_dense else weight, plan, forms_gradient, num_As)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, x, h, seed, *factors = ctx.saved_tensors
        quantized, plan, forms_gradient, num_As = ctx.rest
        weight = quantized if weight is None else weight
        As, Bs = factors[:num_As], factors[num_As:]
        needs_x, *needs_factors = ctx.needs_input_grad[:1] + ctx.needs_input_grad[9:]
        needs_A, needs_B = any(needs_factors[:num_As]), any(needs_factors[num_As:])
        shape = g.shape
        g = g.reshape(-1, shape[-1])
        g_slices = [rows.take(g) for rows in plan.rows]
        scales = scales_of(plan)

        grad_Bs: list[Tensor | None] = [None] * len(Bs)
        if needs_B:
            grad_Bs = [
                cast(outer(g_slice, h_slice, scaling), B.dtype)
                for h_slice, g_slice, scaling, B in zip(
                    columns_of_slices(h, As, plan), g_slices, scales, Bs, strict=True
                )
            ]

        if needs_A or (needs_x and not forms_gradient):
            by_slice = [
                dot(g_slice, cast(B, g.dtype).T, scaling)
                for g_slice, B, scaling in zip(g_slices, Bs, scales, strict=True)
            ]
            grad_h = sum(by_slice[1:], by_slice[0]) if plan.shares_a else joined(by_slice, dim=1)

        grad_As: list[Tensor | None] = [None] * len(As)
        if needs_A:
            tokens = x.reshape(-1, x.shape[-1])
            read = tokens if seed is None else dropped_copy(tokens, seed, plan.dropout)
            grad_A = outer(grad_h, read)
            grad_As = [cast(part, A.dtype) for part, A in zip(grad_A.split([len(A) for A in As]), As, strict=True)]

        grad_x = None
        if needs_x and forms_gradient:
            grad_x = g @ formed_weight(weight, As, Bs, plan)
        elif needs_x and plan.sparse is not None and seed is None:
            grad_x = g @ dense_in(weight, g.dtype)
            for sparse, grad_slice in zip(plan.sparse, columns_of_slices(grad_h, As, plan), strict=False):
                sparse.add(grad_x, grad_slice, out=grad_x)  # one for all slices where they share A
        elif needs_x:
            A = stacked(As, g.dtype)
            grad_x = grad_h @ A if seed is None else project_back_then_drop(grad_h, A, seed, plan.dropout)
            grad_x.addmm_(g, dense_in(weight, g.dtype))
        if grad_x is not None:
            grad_x = grad_x.view(*shape[:-1], weight.shape[1])
        return (grad_x, *[None] * 8, *grad_As, *grad_Bs)


def _forward(
    x: Tensor,
    weight: Weight,
    bias: Tensor | None,
    packed: Tensor | None,
    seed: Tensor | None,
    plan: Plan,
    path: str,
    As: Sequence[Tensor],
    Bs: Sequence[Tensor],
    *,
    needs_h: bool,
) -> tuple[Tensor, Tensor | None]:
    """The output (..., d_out) by a path, and h (tokens, sum of r) where it is there or ``needs_h``."""
    tokens = x.reshape(-1, x.shape[-1])
    h = None
    if path == "formed":
        assert isinstance(weight, Tensor)
        out = F.linear(tokens, formed_weight(weight, As, Bs, plan), cast(bias, x.dtype))
        if needs_h:
            h = read_inputs(tokens, As, plan)
    elif path == "packed":
        assert packed is not None
        d_out = weight.shape[0]
        padded = None if bias is None else F.pad(bias.to(tokens.dtype), (0, len(packed) - d_out))
        both = F.linear(tokens, packed.to(tokens.dtype), padded)
        out, h = both[:, :d_out], both[:, d_out:].contiguous()
        for rows, scaling, B, h_slice in zip(
            plan.rows, scales_of(plan), Bs, columns_of_slices(h, As, plan), strict=True
        ):
            accumulate(rows, out, h_slice, B.to(tokens.dtype).T, scaling)
    else:
        h = read_inputs(tokens, As, plan, seed)
        out = low_rank_output(h, bias, As, Bs, plan, weight.shape[0])
        out.addmm_(tokens, dense_in(weight, x.dtype).T)
    # Not `view`: hosts write into a layer's output (`qkv += bias`), which autograd forbids for a function's view.
    return unsafe_view(out, (*x.shape[:-1], weight.shape[0])), h
