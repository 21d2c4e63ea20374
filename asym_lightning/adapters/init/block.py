"""Sums of blocks of inputs, as in MiSS."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
from asym_lightning.adapters.kernels.sparse_rows import InputSums, SparseRows


@register_init
class Block(InitRule):
    """Row i of A adds up the i-th of `rank` equal blocks of inputs; what does not fill blocks goes to the first rows.

    Each row is divided by the root of the number of its inputs, so it has length one. With the rank the blocks change,
    hence the rows do not nest. Nothing is drawn: all seeds have the same A. In eager mode and without dropout no
    product with A is computed: inputs are added up, and B is added to blocks of the weight.

    Source: Kang and Yin 2024 (MiSS, arXiv 2409.15371), whose sums are not divided and take every rank-th input.
    """

    name = "block"
    is_orthonormal = True
    is_sparse = True

    def rows(self, draw: Draw) -> Tensor:
        """Indicators of the blocks, of length one."""
        return _blocks(draw.rank, draw.dim)

    def sparse_rows(self, A: Tensor, rank: int) -> SparseRows | None:
        """The blocks, where the rows in use are their indicators still."""
        drawn = torch.zeros_like(A)
        drawn[:rank] = _blocks(rank, A.shape[1]).to(A)
        return InputSums(len(A), drawn[:rank].amax(1)) if torch.equal(A, drawn) else None


def _blocks(rank: int, dim: int) -> Tensor:
    size = dim // rank
    block = torch.cat([torch.arange(rank).repeat_interleave(size), torch.arange(dim - rank * size)])
    rows = torch.zeros(rank, dim, dtype=torch.float64).scatter_(0, block[None], 1.0)
    return rows / rows.sum(1, keepdim=True).sqrt()
