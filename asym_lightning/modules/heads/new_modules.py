"""Parts of a backbone that a checkpoint has no weights for, which train in full with the head."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from asym_lightning.adapters.targets.heads import find_heads


def heads_and_new_modules(backbone: nn.Module, new_modules: Sequence[str]) -> list[str] | None:
    """Return the head and whatever else is new, such as BERT's pooler, and say so; None where that is the head alone.

    Args:
        backbone: The backbone.
        new_modules: Names of the modules for which the checkpoint has no weights.
    """
    own = find_heads(backbone, None)
    others = [n for n in new_modules if not any(n == head or n.startswith(f"{head}.") for head in own)]
    if not others:
        return None
    rank_zero_info(f"also trained   {', '.join(others)}, for which the checkpoint has no weights")
    return [*own, *others]
