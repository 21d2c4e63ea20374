"""Triton kernels that drop entries of an operand while it is read or written: neither a copy nor a mask is made.

Whether entry (row, column) is dropped follows from the seed and its place alone (Philox, as in Salmon et al. 2011), so
that every kernel here drops the same ones. One round of Philox gives four numbers: a *group* of columns is four
*quarters*, and a counter's four numbers are for the same place in each of them.

They run on whatever Triton compiles for; :func:`work_on` says whether it does on a device.
"""

from __future__ import annotations

import functools
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

from asym_lightning.adapters.kernels.launches import FITS, Launch, Shape, launch_for, rank_block

NAME = "Triton"
QUARTER = 32
GROUP = 4 * QUARTER


def drop_then_project(x: Tensor, A: Tensor, seed: int, p: float, launch: Launch | None = None) -> Tensor:
    """``D(x) A^T``, where D zeroes entries and rescales nothing.

    Args:
        x: (tokens, d_in), any strides.
        A: (r, d_in) in x's dtype; see :func:`take`.
        seed: Of the drops.
        p: Probability of a drop.
        launch: How; None means as is best for the shape.

    Returns:
        (tokens, r), summed in float32.
    """
    num_tokens, width = x.shape
    launch = launch or launch_for("project", num_tokens, len(A), A.element_size(), x.device)
    blocks, num_groups = triton.cdiv(num_tokens, launch.rows), triton.cdiv(width, GROUP)
    groups_per_part = max(4, triton.cdiv(num_groups * blocks, launch.programs))
    parts = triton.cdiv(num_groups, groups_per_part)
    h = x.new_empty(parts, num_tokens, len(A), dtype=x.dtype if parts == 1 else torch.float32)
    if num_tokens:
        with torch.cuda.device_of(x):
            _drop_then_project[blocks, parts](
                x, A.contiguous(), h, seed, p, num_tokens, width, len(A), groups_per_part, *x.stride(),
                ROWS=launch.rows, RANK=rank_block(len(A)), QUARTER=QUARTER, num_warps=launch.warps,
            )  # fmt: skip
    return h[0] if parts == 1 else h.sum(0).to(x.dtype)


def project_back_then_drop(h: Tensor, A: Tensor, seed: int, p: float, launch: Launch | None = None) -> Tensor:
    """``D(h A)`` as a new (tokens, d_in) tensor, with the same entries dropped as in :func:`drop_then_project`.

    Args:
        h: (tokens, r).
        A: (r, d_in) in h's dtype; see :func:`take`.
        seed: Of the drops.
        p: Probability of a drop.
        launch: How; None means as is best for the shape.
    """
    num_tokens, width = len(h), A.shape[1]
    launch = launch or launch_for("back", num_tokens, len(A), A.element_size(), h.device)
    out = h.new_empty(num_tokens, width)
    if num_tokens:
        with torch.cuda.device_of(h):
            _project_back_then_drop[triton.cdiv(num_tokens, launch.rows), triton.cdiv(width, GROUP)](
                h.contiguous(), A.contiguous(), out, seed, p, num_tokens, width, len(A),
                ROWS=launch.rows, RANK=rank_block(len(A)), QUARTER=QUARTER, num_warps=launch.warps,
            )  # fmt: skip
    return out


def drop_(x: Tensor, seed: int, p: float) -> None:
    """Zero the same entries of contiguous ``x`` (..., d_in) in place."""
    width = x.shape[-1]
    num_rows = x.numel() // width
    if num_rows:
        with torch.cuda.device_of(x):
            _drop[triton.cdiv(num_rows, 32), triton.cdiv(width, GROUP)](
                x, seed, p, num_rows, width, ROWS=32, QUARTER=QUARTER
            )


def take(A: Tensor) -> bool:
    """Whether the two products can be made with an (r, d_in) matrix of this rank and dtype."""
    return (A.element_size(), rank_block(len(A))) in FITS


def seconds(shape: Shape, launch: Launch, device: torch.device, width: int = 4096) -> float:
    """Time a kernel on a card, on numbers of bfloat16 or float32 by their size."""
    from triton.testing import do_bench

    dtype = torch.bfloat16 if shape.size == 2 else torch.float32
    A = torch.randn(shape.ranks, width, device=device, dtype=dtype)
    kernel, columns = {
        "project": (drop_then_project, width), "back": (project_back_then_drop, shape.ranks)
    }[shape.kernel]  # fmt: skip
    operand = torch.randn(shape.tokens, columns, device=device, dtype=dtype)
    milliseconds: float = do_bench(lambda: kernel(operand, A, 0, 0.1, launch), return_mode="median")
    return milliseconds / 1e3


@functools.cache
def work_on(device: torch.device) -> bool:
    """Whether the kernels compile on a device and agree with one another there; tried once, with a warning if not.

    Triton builds a launcher with the machine's C compiler at the first call, which a bare node may lack.
    """
    try:
        x, A = torch.randn(40, 200, device=device), torch.randn(3, 200, device=device)
        dropped, back = x.clone(), x @ A.T @ A
        drop_(dropped, 7, 0.5)
        drop_(back, 7, 0.5)
        torch.testing.assert_close(drop_then_project(x, A, 7, 0.5), dropped @ A.T, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(project_back_then_drop(x @ A.T, A, 7, 0.5), back, rtol=1e-2, atol=1e-1)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"Triton's dropout kernels can't be used on {device} ({reason[0]}); torch draws masks instead, which is as "
            "exact, slower, and drops other entries for the same seed.",
            stacklevel=2,
        )
        return False
    return True


@triton.jit
def _uniforms(seed, rows, group, width, QUARTER: tl.constexpr):
    """Four (rows, QUARTER) blocks in [0, 1), one for each quarter of a group of columns."""
    counters = (rows[:, None] * tl.cdiv(width, 4 * QUARTER) + group) * QUARTER + tl.arange(0, QUARTER)[None, :]
    return tl.rand4x(seed, counters)


@triton.jit
def _load_A(A, ranks, columns, rank, width):
    """The (RANK, columns) block of A, zero outside."""
    return tl.load(
        A + ranks[:, None] * width + columns[None, :],
        mask=(ranks[:, None] < rank) & (columns[None, :] < width),
        other=0.0,
    )


@triton.jit(do_not_specialize=["seed"])
def _drop_then_project(
    x, A, h, seed, p, num_rows, width, rank, groups_per_part, row_stride, column_stride,
    ROWS: tl.constexpr, RANK: tl.constexpr, QUARTER: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    ranks = tl.arange(0, RANK)
    row_starts = x + rows[:, None].to(tl.int64) * row_stride
    total = tl.zeros((ROWS, RANK), tl.float32)
    first = part * groups_per_part
    for group in range(first, tl.minimum(first + groups_per_part, tl.cdiv(width, 4 * QUARTER))):
        uniforms = _uniforms(seed, rows, group, width, QUARTER)
        for quarter in tl.static_range(4):
            columns = (4 * group + quarter) * QUARTER + tl.arange(0, QUARTER)
            # A dropped entry is one that is not read.
            kept = (uniforms[quarter] >= p) & (rows[:, None] < num_rows) & (columns[None, :] < width)
            block = tl.load(row_starts + columns[None, :].to(tl.int64) * column_stride, mask=kept, other=0.0)
            A_block = _load_A(A, ranks, columns, rank, width)
            total = tl.dot(block, tl.trans(A_block), total, input_precision="ieee")
    place = (part.to(tl.int64) * num_rows + rows[:, None]) * rank + ranks[None, :]
    tl.store(h + place, total, mask=(rows[:, None] < num_rows) & (ranks[None, :] < rank))


@triton.jit(do_not_specialize=["seed"])
def _project_back_then_drop(
    h, A, out, seed, p, num_rows, width, rank,
    ROWS: tl.constexpr, RANK: tl.constexpr, QUARTER: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.program_id(1)
    ranks = tl.arange(0, RANK)
    uniforms = _uniforms(seed, rows, group, width, QUARTER)
    h_block = tl.load(
        h + rows[:, None].to(tl.int64) * rank + ranks[None, :],
        mask=(rows[:, None] < num_rows) & (ranks[None, :] < rank),
        other=0.0,
    )
    for quarter in tl.static_range(4):
        columns = (4 * group + quarter) * QUARTER + tl.arange(0, QUARTER)
        block = tl.dot(h_block, _load_A(A, ranks, columns, rank, width), input_precision="ieee")
        block = tl.where(uniforms[quarter] >= p, block, 0.0)
        tl.store(
            out + rows[:, None].to(tl.int64) * width + columns[None, :],
            block,
            mask=(rows[:, None] < num_rows) & (columns[None, :] < width),
        )


@triton.jit(do_not_specialize=["seed"])
def _drop(x, seed, p, num_rows, width, ROWS: tl.constexpr, QUARTER: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.program_id(1)
    uniforms = _uniforms(seed, rows, group, width, QUARTER)
    for quarter in tl.static_range(4):
        columns = (4 * group + quarter) * QUARTER + tl.arange(0, QUARTER)
        place = rows[:, None].to(tl.int64) * width + columns[None, :]
        dropped = (uniforms[quarter] < p) & (rows[:, None] < num_rows) & (columns[None, :] < width)
        tl.store(x + place, tl.zeros((ROWS, QUARTER), tl.float32), mask=dropped)
