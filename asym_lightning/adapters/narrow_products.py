"""Matrix products over the tokens in which one side has as few columns as the rank.

On a CPU in float32 a kernel of our own makes the narrowest ones (``narrow_products.c``); torch makes the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asym_lightning.adapters.c_library import c_library

# Up to these ranks the kernels are faster than torch, on two cores with AVX-512 (widths of 384 to 4,096).
MAX_DOT_RANK = 8
MAX_OUTER_RANK = 64  # the C file's too
# Up to this rank torch's product over the tokens is faster with the narrow matrix first, beyond it with the wide one.
NARROW = 8


def dot(x: Tensor, m: Tensor) -> Tensor:
    """``x m^T``, (tokens, r), for ``x`` (tokens, n) and ``m`` (r, n).

    >>> dot(torch.ones(2, 3), torch.ones(1, 3))
    tensor([[3.],
            [3.]])
    """
    m = m.contiguous()  # for torch's product too, which is up to twice as fast then
    library = c_library() if len(m) <= MAX_DOT_RANK and _suit(x, m) else None
    if library is None:
        return x @ m.T
    out = x.new_empty(len(x), len(m))
    library.dot(
        x.data_ptr(), x.stride(0), m.data_ptr(), out.data_ptr(), len(x), x.shape[1], len(m), torch.get_num_threads()
    )
    return out


def outer(left: Tensor, right: Tensor) -> Tensor:
    """``left^T right`` for two (tokens, ...) matrices, one of which has ``rank`` columns; strided in any way.

    >>> outer(torch.ones(2, 1), torch.ones(2, 3))
    tensor([[2., 2., 2.]])
    """
    if left.shape[1] > right.shape[1]:
        return outer(right, left).T
    rank = left.shape[1]
    library = c_library() if rank <= MAX_OUTER_RANK and _suit(left, right) else None
    if library is None:
        return left.T @ right if rank <= NARROW else (right.T @ left).T
    # One sum for each thread, unless there is too little to do for several.
    parts = max(1, min(torch.get_num_threads(), right.numel() // 32768))
    sums = right.new_empty(parts, rank, right.shape[1])
    library.outer(
        left.data_ptr(), left.stride(0), right.data_ptr(), right.stride(0), sums.data_ptr(), len(right), right.shape[1],
        rank, parts,
    )  # fmt: skip
    return sums.sum(0)


def _suit(*matrices: Tensor) -> bool:
    """Whether the kernels can read the matrices: ordinary float32 tensors of the CPU whose rows are contiguous."""
    return not torch.compiler.is_compiling() and all(
        type(m) in (Tensor, nn.Parameter) and m.dtype == torch.float32 and m.device.type == "cpu" and m.stride(1) == 1
        for m in matrices
    )
