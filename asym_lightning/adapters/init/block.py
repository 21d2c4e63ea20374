"""Sums of blocks of inputs, as in MiSS."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init


@register_init
class Block(InitRule):
    """Row i of A adds up the inputs i, i + rank, i + 2 rank ...; no two rows share an input.

    Each row is divided by the root of the number of its inputs, so it has length one. With the rank the blocks change,
    hence the rows do not nest. Nothing is drawn: all seeds have the same A.

    Source: Kang and Yin 2024 (MiSS, arXiv 2409.15371), whose sums are not divided.
    """

    name = "block"
    is_orthonormal = True

    def rows(self, draw: Draw) -> Tensor:
        """Indicators of the blocks, of length one."""
        block = torch.arange(draw.dim) % draw.rank
        rows = torch.zeros(draw.rank, draw.dim, dtype=torch.float64).scatter_(0, block[None], 1.0)
        return rows / rows.sum(1, keepdim=True).sqrt()
