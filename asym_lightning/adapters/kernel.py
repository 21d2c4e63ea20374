"""The adapted linear map ``y = x W^T + b + s (x A^T) B^T`` and its gradients.

With ``h = x A^T`` and ``g = dL/dy``: ``dB = s g^T h``, ``dx = g W + s (g B) A``, ``dA = s (g B)^T x``. A frozen A
makes ``dA`` disappear and with it the need to keep x: all that the backward pass holds is h, ``rank`` numbers a token.

Three ways to compute it, one autograd function; which one is best depends on shape, dtype and device:

* ``two_gemm``: ``x W^T``, then the low-rank part is accumulated into it in place.
* ``packed``: W and A lie in one matrix, so x is read once and ``[y, h]`` comes out of one GEMM.
* ``formed``: ``W + s B A`` is formed on the fly, in time that does not grow with the tokens, and multiplied once. Only
  in float32 and float64: in half precision the sum would round the update away.

and ``plain``, the same in ordinary operators, for ``torch.func``, double backward, and as a reference. See
:func:`choose_path` for the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from asym_lightning.adapters.dropout import add_low_rank_where_kept_, draw_seed, drop
from asym_lightning.adapters.rows import Rows

PATHS = ("auto", "plain", "two_gemm", "packed", "formed")


class Plan(NamedTuple):
    """What is fixed about one adapted layer between changes of its configuration.

    Attributes:
        rows: Where each slice's update goes.
        scalings: Each slice's scaling.
        shares_a: All slices read the first A.
        dropout: Probability of a drop now: 0 in evaluation.
        path: One of :data:`PATHS`.
    """

    rows: tuple[Rows, ...]
    scalings: tuple[float, ...]
    shares_a: bool
    dropout: float
    path: str


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    As: Sequence[Tensor],
    Bs: Sequence[Tensor],
    plan: Plan,
    packed: Tensor | None = None,
) -> Tensor:
    """Apply the frozen linear map and every slice's adapter.

    Args:
        x: (..., d_in), any strides.
        weight: (d_out, d_in), frozen.
        bias: (d_out), frozen, or ``None``.
        As: (r, d_in) each; one per slice, or a single one where ``plan.shares_a``.
        Bs: (rows, r) each.
        plan: Layout, scalings, dropout and path.
        packed: (d_out + sum of r, d_in), the matrix ``[W; A]`` that ``weight`` and ``As`` are views of, for ``packed``.

    Returns:
        (..., d_out), in the autocast dtype where autocast is on, else in x's.

    Raises:
        ValueError: ``plan.path`` can't be taken by this dtype or with this dropout; the message says why.
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device_type))
    path = choose_path(plan.path, x, weight, plan, is_packed=packed is not None)
    # Gradients of W and b are no business of the fast path: a host that unfroze them gets the ordinary one.
    if path == "plain" or weight.requires_grad or (bias is not None and bias.requires_grad):
        return _plain(x, weight, bias, As, Bs, plan)
    seed = draw_seed() if plan.dropout else None
    plan = plan._replace(path=path)
    with torch.autocast(device_type, enabled=False):
        # Reshaped out here: hosts write into a layer's output (`qkv += bias`), which autograd forbids for a view that a
        # function returns.
        tokens = x.reshape(-1, x.shape[-1])
        out = _AdaptedLinear.apply(tokens, weight, bias, packed, seed, torch.is_grad_enabled(), plan, len(As), *As, *Bs)
    return out.view(*x.shape[:-1], weight.shape[0])


def choose_path(path: str, x: Tensor, weight: Tensor, plan: Plan, *, is_packed: bool) -> str:
    """The path to take: a forced one if it can be taken, else by rule.

    The rule, from measurements (``benchmarks/results``): ``packed`` where the layer was laid out for it; ``formed``
    on a CPU in float32 or float64 without dropout where there are at least as many tokens as input features, so that
    forming the weight costs less than passing over the output once more; ``two_gemm`` otherwise.
    """
    is_full_precision = x.dtype in (torch.float32, torch.float64)
    if path == "formed":
        if not is_full_precision:
            raise ValueError(f"Path 'formed' would round the update away in {x.dtype}; use 'two_gemm' or 'auto'.")
        if plan.dropout:
            raise ValueError("Path 'formed' can't drop entries of the adapter's input alone; use 'two_gemm' or 'auto'.")
    if path == "packed" and plan.dropout:
        raise ValueError("Path 'packed' reads x once, so it can't drop entries for A alone; use 'two_gemm' or 'auto'.")
    if path != "auto":
        return path
    if plan.dropout:
        return "two_gemm"
    if is_packed:
        return "packed"
    num_tokens, d_in = x.numel() // max(x.shape[-1], 1), x.shape[-1]
    return "formed" if is_full_precision and x.device.type == "cpu" and num_tokens >= d_in else "two_gemm"


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan
) -> Tensor:
    out = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    dropped = F.dropout(x, plan.dropout) if plan.dropout else x
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
        h = F.linear(dropped, As[0 if plan.shares_a else i].to(x.dtype))
        rows.view(out).add_(rows.split(F.linear(h, B.to(x.dtype))), alpha=scaling)
    return out


class _AdaptedLinear(torch.autograd.Function):
    """Forward and backward by ``plan.path``.

    Weights are cast to x's dtype inside and again in the backward pass, so that no cast copy is kept in between.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        tokens: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        packed: Tensor | None,
        seed: Tensor | None,
        needs_grad: bool,
        plan: Plan,
        num_As: int,
        *factors: Tensor,
    ) -> Tensor:
        As, Bs = factors[:num_As], factors[num_As:]
        needs_B = needs_grad and any(B.requires_grad for B in Bs)
        h = None
        if plan.path == "formed":
            out = F.linear(tokens, _form(weight, As, Bs, plan), _cast(bias, tokens.dtype))
            if needs_B:
                h = tokens @ _stack(As, tokens.dtype).T
        else:
            if plan.path == "packed":
                assert packed is not None
                d_out = weight.shape[0]
                both = F.linear(tokens, packed.to(tokens.dtype))
                out, h = both[:, :d_out], both[:, d_out:]
                if bias is not None:
                    out.add_(bias.to(tokens.dtype))
                h = h.clone()  # else the backward pass would keep all of `both` alive
            else:
                out = F.linear(tokens, weight.to(tokens.dtype), _cast(bias, tokens.dtype))
                kept = tokens if seed is None else drop(tokens.contiguous(), seed, plan.dropout)
                h = kept @ _stack(As, tokens.dtype).T
            for rows, scaling, B, h_slice in zip(plan.rows, _scales(plan), Bs, _slices(h, As, plan), strict=True):
                _accumulate(rows, out, h_slice, B.to(tokens.dtype).T, scaling)
        if needs_grad:
            keeps_x = any(A.requires_grad for A in As)
            ctx.save_for_backward(weight, tokens if keeps_x else None, h if needs_B else None, seed, *factors)
            ctx.plan, ctx.num_As = plan, num_As
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, tokens, h, seed, *factors = ctx.saved_tensors
        plan: Plan = ctx.plan
        As, Bs = factors[: ctx.num_As], factors[ctx.num_As :]
        needs_x, needs_factors = ctx.needs_input_grad[0], ctx.needs_input_grad[8:]
        needs_A, needs_B = any(needs_factors[: ctx.num_As]), any(needs_factors[ctx.num_As :])
        grads = [rows.take(g) for rows in plan.rows]
        scales = _scales(plan)

        grad_Bs: list[Tensor | None] = [None] * len(Bs)
        if needs_B:
            # h^T g, not g^T h: the skinny operand first is several times faster on a CPU.
            grad_Bs = [
                (h_slice.T @ g_slice).mul_(scaling).T.to(B.dtype)
                for h_slice, g_slice, scaling, B in zip(_slices(h, As, plan), grads, scales, Bs, strict=True)
            ]

        forms = plan.path == "formed"
        A = _stack(As, g.dtype)
        grad_h = g.new_empty(0)
        if needs_A or (needs_x and not forms):
            by_slice = [
                (g_slice @ B.to(g.dtype)).mul_(scaling) for g_slice, B, scaling in zip(grads, Bs, scales, strict=True)
            ]
            grad_h = sum(by_slice[1:], by_slice[0]) if plan.shares_a else torch.cat(by_slice, dim=1)

        grad_As: list[Tensor | None] = [None] * len(As)
        if needs_A:
            kept = tokens if seed is None else drop(tokens.contiguous(), seed, plan.dropout)
            grad_A = grad_h.T @ kept
            grad_As = [part.to(A_.dtype) for part, A_ in zip(grad_A.split([len(A_) for A_ in As]), As, strict=True)]

        grad_x = None
        if needs_x:
            if forms:
                grad_x = g @ _form(weight, As, Bs, plan)
            else:
                grad_x = g @ weight.to(g.dtype)
                if seed is None:
                    grad_x.addmm_(grad_h, A)
                else:
                    add_low_rank_where_kept_(grad_x, grad_h, A, seed, plan.dropout)
        return (grad_x, *[None] * 7, *grad_As, *grad_Bs)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _stack(As: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All A's as one (sum of ranks, d_in) matrix, so that x is read once for every slice."""
    return (As[0] if len(As) == 1 else torch.cat(list(As))).to(dtype)


def _slices(h: Tensor, As: Sequence[Tensor], plan: Plan) -> Sequence[Tensor]:
    """The columns of h that each slice's B reads."""
    return [h] * len(plan.rows) if plan.shares_a else h.split([len(A) for A in As], dim=1)


def _scales(plan: Plan) -> list[float]:
    """Scalings with dropout's 1 / (1 - p) folded in, which costs nothing there."""
    return [scaling / (1 - plan.dropout) for scaling in plan.scalings]


def _accumulate(rows: Rows, out: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """``out[:, rows] += scaling * left @ right``, in place."""
    if rows.groups == 1:
        rows.view(out).addmm_(left, right, alpha=scaling)
    else:
        rows.view(out).add_(rows.split(left @ right), alpha=scaling)


def _form(weight: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan) -> Tensor:
    """``W + s B A`` as a new (d_out, d_in) matrix."""
    if len(plan.rows) == 1 and plan.rows[0].count == weight.shape[0]:
        return torch.addmm(weight, Bs[0], As[0], alpha=plan.scalings[0])
    formed = weight.clone(memory_format=torch.contiguous_format)
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
        A = As[0 if plan.shares_a else i]
        if rows.groups == 1:
            rows.view(formed, 0).addmm_(B, A, alpha=scaling)
        else:
            rows.view(formed, 0).add_(rows.split(B @ A, 0), alpha=scaling)
    return formed
