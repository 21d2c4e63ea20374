"""Frozen batch normalisations, whose statistics are a part of the frozen function and must not drift."""

from __future__ import annotations

from functools import partial

from torch import nn

from asym_lightning.adapters import frozen_batch_norms


def keep_in_evaluation(module: nn.Module, backbone: nn.Module) -> None:
    """Keep frozen batch normalisations in evaluation mode, now and whenever anybody calls `train()`.

    One whose parameters are trained again later is an ordinary one again. A second call does nothing.

    Args:
        module: What holds the backbone, and perhaps more beside it.
        backbone: Adapted or frozen; it may be the module itself.

    Example:
        >>> backbone = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()).requires_grad_(False)
        >>> keep_in_evaluation(backbone, backbone)
        >>> [child.training for child in backbone.train()]
        [False, True]
    """
    inside = set(backbone.modules())
    for batch_norm in frozen_batch_norms(module):
        # Outside the backbone one without parameters may belong to a head, which trains.
        if batch_norm in inside or any(True for _ in batch_norm.parameters()):
            batch_norm.train = partial(_train_unless_frozen, batch_norm)  # type: ignore[method-assign]
            batch_norm.eval()


# In a partial rather than a closure or a method: a deep copy or a pickle of the module has one for the copy.
def _train_unless_frozen(self: nn.Module, mode: bool = True) -> nn.Module:
    return type(self).train(self, mode and any(parameter.requires_grad for parameter in self.parameters()))
