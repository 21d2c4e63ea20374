"""Frozen A's that need no storage: redrawn from seed and rule, and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.layers.adapted import AdaptedLayer

# A's that differ have checksums that differ by about 1; rounding on another machine moves them by 1e-6 at most.
CHECKSUM_TOLERANCE = 1e-4


def redraw_A(layer: AdaptedLayer, slice_name: str, *, rank: int | None = None) -> Tensor:
    """A of one slice as its seed and rule give it, (rank, d_in), in the dtype and on the device of the present one."""
    adapter = layer.adapters[slice_name]
    needs_weight = adapter.scheme.A.rule.needs_weight
    weight = layer.adapters.A_weight(slice_name, layer.weight_matrix().detach()) if needs_weight else None
    return adapter.draw_A(weight, rank=rank).to(device=adapter.factor_A.device, dtype=adapter.factor_A.dtype)


def checksum(A: Tensor) -> float:
    """A weighted sum of all entries, insensitive to the last bits, in which another machine's LAPACK may differ."""
    entries = A.detach().double().cpu().flatten()
    return float((entries * torch.cos(torch.arange(len(entries), dtype=torch.float64))).sum())
