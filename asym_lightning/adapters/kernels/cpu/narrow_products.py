"""Matrix products over the tokens in which one side has as few columns as the rank.

On a CPU in float32 a kernel of our own makes the narrowest ones (``narrow_products.c``); torch makes the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asym_lightning.adapters.kernels.cpu.library import c_library

# Up to these ranks the kernels are faster than torch, on two cores with AVX-512 (widths of 384 to 4,096).
MAX_DOT_RANK = 8
MAX_OUTER_RANK = 64  # the C file's too
# Up to this rank torch's product over the tokens is faster with the narrow matrix first, beyond it with the wide one.
NARROW = 8
_ORDINARY = (Tensor, nn.Parameter)  # no fake tensor, no shard, nothing else without memory of its own


def dot(x: Tensor, m: Tensor, scale: float = 1) -> Tensor:  # 1.0 would be an input to `torch.compile(dynamic=True)`
    """``scale x m^T``, (tokens, r), for ``x`` (tokens, n) and ``m`` (r, n).

    >>> dot(torch.ones(2, 3), torch.ones(1, 3), 2.0)
    tensor([[6.],
            [6.]])
    """
    rank = m.shape[0]
    if x.is_cpu:
        m = m.contiguous()  # for torch's product too, which is up to twice as fast then
    library = c_library() if rank <= MAX_DOT_RANK and _suit(x, m) else None
    if library is None:
        return _product(x, m.T, scale)
    num_tokens, width = x.shape
    out = x.new_empty(num_tokens, rank)
    library.dot(
        x.data_ptr(), x.stride(0), m.data_ptr(), out.data_ptr(), num_tokens, width, rank, scale, torch.get_num_threads()
    )
    return out


def outer(left: Tensor, right: Tensor, scale: float = 1) -> Tensor:
    """``scale left^T right`` for two (tokens, ...) matrices, one of which has ``rank`` columns; strided in any way.

    >>> outer(torch.ones(2, 1), torch.ones(2, 3))
    tensor([[2., 2., 2.]])
    """
    rank, (num_tokens, width) = left.shape[1], right.shape
    if rank > width:
        return outer(right, left, scale).T
    library = c_library() if rank <= MAX_OUTER_RANK and _suit(left, right) else None
    if library is None:
        return _product(left.T, right, scale) if rank <= NARROW else _product(right.T, left, scale).T
    # One sum for each thread, unless there is too little to do for several.
    parts = max(1, min(torch.get_num_threads(), num_tokens * width // 32768))
    sums = right.new_empty((parts, rank, width) if parts > 1 else (rank, width))
    library.outer(
        left.data_ptr(), left.stride(0), right.data_ptr(), right.stride(0), sums.data_ptr(), num_tokens, width, rank,
        scale, parts,
    )  # fmt: skip
    return sums.sum(0) if parts > 1 else sums


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``scale a b`` in one operator."""
    return a @ b if scale == 1 else torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def _suit(a: Tensor, b: Tensor) -> bool:
    """Whether the kernels can read both: ordinary float32 matrices of the CPU whose rows are contiguous."""
    return (
        a.is_cpu
        and a.dtype is b.dtype is torch.float32
        and type(a) in _ORDINARY
        and type(b) in _ORDINARY
        and a.stride(1) == b.stride(1) == 1
        and not torch.compiler.is_compiling()
    )
