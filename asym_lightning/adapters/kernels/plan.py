"""What is fixed about an adapted layer, and which way to compute it is best for an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from asym_lightning.adapters.kernels.sparse_rows import SparseRows
from asym_lightning.adapters.rows import Rows

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
