"""Whether optimizers hold what trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from asym_lightning.core.messages import listed


def hold_all(optimizers: Sequence[Optimizer], trained: Mapping[str, nn.Parameter]) -> None:
    """Add trained parameters that are in no optimizer, if there is no doubt where they belong.

    They join the only parameter group of the only optimizer, hence its learning rate and schedule. A group of their own
    would not do: a scheduler has one entry a group, made when the scheduler was made.

    Args:
        optimizers: All optimizers of the run.
        trained: Parameters by name, all of which have to be in one of them.

    Raises:
        RuntimeError: Some are missing, and there are several optimizers or groups, or none.
    """
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    missing = {name: p for name, p in trained.items() if id(p) not in held}
    if not missing:
        return
    if len(optimizers) == 1 and len(optimizers[0].param_groups) == 1:
        optimizers[0].param_groups[0]["params"].extend(missing.values())
        return
    num_groups = sum(len(optimizer.param_groups) for optimizer in optimizers)
    names = list(missing)
    raise RuntimeError(
        f"{len(names)} trained parameters are in none of the {len(optimizers)} optimizers ({num_groups} parameter "
        "groups) and would stay untrained; make the optimizers in `configure_optimizers`, which is called when the "
        f"adapters are there: {listed(names, 4)}."
    )
