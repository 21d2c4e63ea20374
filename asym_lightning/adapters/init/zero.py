"""Zero, as the trained factor starts that is to change nothing at first."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init


@register_init
class Zero(InitRule):
    """Zero: the update starts at zero, whatever the other factor is."""

    name = "zero"
    factors = "AB"
    nests = True
    is_zero = True

    def rows(self, draw: Draw) -> Tensor:
        """Zeros."""
        return torch.zeros(draw.rank, draw.dim, dtype=torch.float64)
