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
:func:`choose_path` for the rule.

W may be quantised (:class:`QuantizedWeight`): then it is made dense for the one product in the forward pass, and again
in the backward pass, and ``packed`` and ``formed``, which need a dense W that stays, are not taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.cpu.narrow_products import dot, outer
from asym_lightning.adapters.kernels.dropout import draw_seed, drop_then_project, dropped_copy, project_back_then_drop
from asym_lightning.adapters.kernels.sparse_rows import SparseRows
from asym_lightning.adapters.rows import Rows
from asym_lightning.core.private_names import unsafe_view

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # not in every torch
PATHS = ("auto", "plain", "two_gemm", "packed", "formed")
# Up to so many tokens on a CPU calling operators costs more than what they do, and ordinary ones are called fastest.
FEW_TOKENS = 128


class QuantizedWeight(NamedTuple):
    """A frozen weight in few bits.

    Attributes:
        shape: (d_out, d_in).
        dense: Makes the dense weight in a dtype, anew at each call.
    """

    shape: tuple[int, int]
    dense: Callable[[torch.dtype], Tensor]


Weight = Tensor | QuantizedWeight
MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


class Plan(NamedTuple):
    """What is fixed about one adapted layer between changes of its configuration.

    Attributes:
        rows: Where each slice's update goes.
        scalings: Each slice's scaling.
        shares_a: All slices read the first A.
        dropout: Probability of a drop now: 0 in evaluation.
        path: One of :data:`PATHS`.
        sparse: What stands for each A in products, where no A is dense; it needs no gradient.
    """

    rows: tuple[Rows, ...]
    scalings: tuple[float, ...]
    shares_a: bool
    dropout: float
    path: str
    sparse: tuple[SparseRows, ...] | None = None


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
    return torch.jit.is_tracing() or is_exporting()


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


def choose_path(path: str, x: Tensor, weight: Weight, rank: int, plan: Plan, *, is_packed: bool) -> tuple[str, bool]:
    """The forward path, and whether the backward pass forms ``W + s B A`` too.

    A forced path is taken or refused. The rule of ``auto``, from measurements on two cores: ``packed`` where the layer
    was laid out for it. Else, on a CPU in float32 or float64 without dropout and with at least as many tokens as input
    features (so that forming the weight costs less than passing over an activation once more), the backward pass forms
    the weight. So does the forward pass where ``rank * d_out >= 48 * d_in``, that is, where ``h B^T`` costs more than
    forming, and wherever A is sparse, which makes forming cheap; but not under torch.compile, which would keep the
    weight from one pass to the other. ``two_gemm`` otherwise, and always where the weight is quantised. Where a CPU has
    few tokens to read, as in generation, ``plain`` calls the fewest functions; but autocast would cast W in it and keep
    the cast.

    Raises:
        ValueError: The forced path can't be taken; the message says why.
    """
    is_full_precision = x.dtype in (torch.float32, torch.float64)
    is_quantized = isinstance(weight, QuantizedWeight)
    if path in ("packed", "formed") and is_quantized:
        raise ValueError(f"Path {path!r} needs a dense weight, and this one is quantised; use 'two_gemm' or 'auto'.")
    if path == "formed":
        if not is_full_precision:
            raise ValueError(f"Path 'formed' would round the update away in {x.dtype}; use 'two_gemm' or 'auto'.")
        if plan.dropout:
            raise ValueError("Path 'formed' can't drop entries of the adapter's input alone; use 'two_gemm' or 'auto'.")
    if path == "packed" and plan.dropout:
        raise ValueError("Path 'packed' reads x once, so it can't drop entries for A alone; use 'two_gemm' or 'auto'.")
    if path != "auto":
        return path, path == "formed"
    d_out, d_in = weight.shape
    num_tokens = x.numel() // d_in
    if (
        not (torch.compiler.is_compiling() or plan.dropout or plan.sparse or is_quantized or is_packed)
        and x.is_cpu
        and num_tokens <= FEW_TOKENS
        and not torch.is_autocast_enabled("cpu")
    ):
        return "plain", False
    # A compiled pass without gradients forms nothing either, and need not ask how many tokens there are.
    asks = torch.is_grad_enabled() or not torch.compiler.is_compiling()
    forms = (
        asks
        and is_full_precision
        and not (plan.dropout or is_quantized)
        and x.device.type == "cpu"
        and num_tokens >= d_in
    )
    if is_packed:
        return "packed", forms
    is_cheap = plan.sparse is not None or rank * d_out >= 48 * d_in
    forms_forward = forms and is_cheap and not torch.compiler.is_compiling()
    return ("formed" if forms_forward else "two_gemm"), forms


def _plain(
    x: Tensor, weight: Weight, bias: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan
) -> Tensor:
    dtype = x.dtype
    out = F.linear(x, dense_in(weight, dtype), _cast(bias, dtype))
    dropped = F.dropout(x, plan.dropout) if plan.dropout else x
    for i, (rows, scaling, B) in enumerate(zip(plan.rows, plan.scalings, Bs, strict=True)):
        h = F.linear(dropped, _cast(As[0 if plan.shares_a else i], dtype))
        out = rows.plus(out, F.linear(h, _cast(B, dtype)), scaling)
    return out


class _NotTwice(torch.autograd.Function):
    """Gradients as they are, of which nobody may take a gradient."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(grad.detach() for grad in grads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        raise RuntimeError(
            "A gradient of a gradient goes through adapters, whose backward pass has none: set `path: plain` in the "
            "adapter's configuration, which has every derivative and is slower."
        )


def _once_differentiable(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Like torch's `once_differentiable`, but what refuses a second derivative says what to do."""

    @functools.wraps(backward)
    def once(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        if not torch.is_grad_enabled():
            return backward(ctx, g)
        with torch.no_grad():
            grads = backward(ctx, g)
        source = next((t for t in (g, *ctx.saved_tensors) if t is not None and t.requires_grad), None)
        if source is None:
            return grads
        present = iter(_NotTwice.apply(source, *[grad for grad in grads if grad is not None]))
        return tuple(None if grad is None else next(present) for grad in grads)

    return once


class _FrozenLinear(torch.autograd.Function):
    """``x W^T + b`` for a quantised W, which is made dense once more for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.weight, ctx.bias_dtype = weight, None if bias is None else bias.dtype
        return F.linear(x, weight.dense(x.dtype), _cast(bias, x.dtype))

    @staticmethod
    @_once_differentiable
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
    @_once_differentiable
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
        scales = _scales(plan)

        grad_Bs: list[Tensor | None] = [None] * len(Bs)
        if needs_B:
            grad_Bs = [
                _cast(outer(g_slice, h_slice, scaling), B.dtype)
                for h_slice, g_slice, scaling, B in zip(
                    columns_of_slices(h, As, plan), g_slices, scales, Bs, strict=True
                )
            ]

        if needs_A or (needs_x and not forms_gradient):
            by_slice = [
                dot(g_slice, _cast(B, g.dtype).T, scaling)
                for g_slice, B, scaling in zip(g_slices, Bs, scales, strict=True)
            ]
            grad_h = sum(by_slice[1:], by_slice[0]) if plan.shares_a else _joined(by_slice, dim=1)

        grad_As: list[Tensor | None] = [None] * len(As)
        if needs_A:
            tokens = x.reshape(-1, x.shape[-1])
            read = tokens if seed is None else dropped_copy(tokens, seed, plan.dropout)
            grad_A = outer(grad_h, read)
            grad_As = [_cast(part, A.dtype) for part, A in zip(grad_A.split([len(A) for A in As]), As, strict=True)]

        grad_x = None
        if needs_x and forms_gradient:
            grad_x = g @ _form(weight, As, Bs, plan)
        elif needs_x and plan.sparse is not None and seed is None:
            grad_x = g @ dense_in(weight, g.dtype)
            for sparse, grad_slice in zip(plan.sparse, columns_of_slices(grad_h, As, plan), strict=False):
                sparse.add(grad_x, grad_slice, out=grad_x)  # one for all slices where they share A
        elif needs_x:
            A = _stack(As, g.dtype)
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
        out = F.linear(tokens, _form(weight, As, Bs, plan), _cast(bias, x.dtype))
        if needs_h:
            h = read_inputs(tokens, As, plan)
    elif path == "packed":
        assert packed is not None
        d_out = weight.shape[0]
        padded = None if bias is None else F.pad(bias.to(tokens.dtype), (0, len(packed) - d_out))
        both = F.linear(tokens, packed.to(tokens.dtype), padded)
        out, h = both[:, :d_out], both[:, d_out:].contiguous()
        for rows, scaling, B, h_slice in zip(plan.rows, _scales(plan), Bs, columns_of_slices(h, As, plan), strict=True):
            _accumulate(rows, out, h_slice, B.to(tokens.dtype).T, scaling)
    else:
        h = read_inputs(tokens, As, plan, seed)
        out = _low_rank_output(h, bias, As, Bs, plan, weight.shape[0])
        out.addmm_(tokens, dense_in(weight, x.dtype).T)
    # Not `view`: hosts write into a layer's output (`qkv += bias`), which autograd forbids for a function's view.
    return unsafe_view(out, (*x.shape[:-1], weight.shape[0])), h


def read_inputs(tokens: Tensor, As: Sequence[Tensor], plan: Plan, seed: Tensor | None = None) -> Tensor:
    """``x A^T`` of all A's side by side, (tokens, sum of ranks); a seed drops inputs."""
    if seed is not None:
        return drop_then_project(tokens, _stack(As, tokens.dtype), seed, plan.dropout)
    if plan.sparse is not None:
        read = {rows: rows.read(tokens) for rows in dict.fromkeys(plan.sparse)}  # equal A's are one object
        return _joined([read[rows] for rows in plan.sparse], dim=1)
    return dot(tokens, _stack(As, tokens.dtype))


def _low_rank_output(
    h: Tensor, bias: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan, d_out: int
) -> Tensor:
    """``s h B^T + b`` as a new (tokens, d_out) tensor."""
    dtype, scales = h.dtype, _scales(plan)
    if len(scales) == 1 and plan.rows[0].count == d_out:
        start = h.new_empty(()) if bias is None else _cast(bias, dtype)
        return torch.addmm(start, h, _cast(Bs[0], dtype).T, beta=int(bias is not None), alpha=scales[0])
    num_tokens = h.shape[0]
    out = h.new_zeros(num_tokens, d_out) if bias is None else h.new_empty(num_tokens, d_out).copy_(bias)
    for rows, scaling, B, h_slice in zip(plan.rows, scales, Bs, columns_of_slices(h, As, plan), strict=True):
        _accumulate(rows, out, h_slice, _cast(B, dtype).T, scaling)
    return out


def _accumulate(rows: Rows, out: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """``out[:, rows] += scaling * left @ right``, in place."""
    if rows.groups == 1:
        rows.view(out).addmm_(left, right, alpha=scaling)
    else:
        rows.view(out).add_(rows.split(left @ right), alpha=scaling)


def dense_in(weight: Weight, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype, (d_out, d_in); a quantised one is made dense anew."""
    return _cast(weight, dtype) if isinstance(weight, Tensor) else weight.dense(dtype)


def _cast(tensor: MaybeTensor, dtype: torch.dtype) -> MaybeTensor:
    """``tensor.to(dtype)``, which costs more than the question whether it has something to do."""
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def _stack(As: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All A's as one (sum of ranks, d_in) matrix, so that x is read once for every slice."""
    return _cast(_joined(As, dim=0), dtype)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def columns_of_slices(h: Tensor, As: Sequence[Tensor], plan: Plan) -> Sequence[Tensor]:
    """The (tokens, r) columns of h that each slice's B reads."""
    if plan.shares_a or len(As) == 1:
        return [h] * len(plan.rows)
    return h.split([A.shape[0] for A in As], dim=1)


def _scales(plan: Plan) -> list[float]:
    """Scalings with dropout's 1 / (1 - p) folded in, which costs nothing there."""
    return [scaling / (1 - plan.dropout) for scaling in plan.scalings]


def _form(weight: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan) -> Tensor:
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
