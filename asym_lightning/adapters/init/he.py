"""Kaiming uniform rows, as PEFT's and LoRA's A starts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init


@register_init
class KaimingUniform(InitRule):
    """``nn.Linear``'s default, Kaiming uniform with a = sqrt(5): uniform in +-1/sqrt(fan_in).

    Its rows do not nest: B's bound depends on the rank.
    """

    name = "he"
    factors = "AB"

    def rows(self, draw: Draw) -> Tensor:
        """Independent uniform numbers, float64."""
        bound = 1 / math.sqrt(draw.fan_in)
        rows = [
            torch.rand(draw.dim, generator=draw.generator, dtype=torch.float64, device="cpu") for _ in range(draw.rank)
        ]
        return torch.stack(rows).mul_(2 * bound).sub_(bound)
