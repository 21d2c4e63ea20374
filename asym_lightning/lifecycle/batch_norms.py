"""Frozen batch normalisations, whose statistics are a part of the frozen function and must not drift."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

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
    for batch_norm in _kept(module, backbone):
        batch_norm.train = partial(_train_unless_frozen, batch_norm)  # type: ignore[method-assign]
        batch_norm.eval()


class FrozenStatistics:
    """The statistics of frozen batch normalisations, for a callback may write to what no mode protects.

    StochasticWeightAveraging sets those of all batch normalisations to zero and one and means to gather them anew.

    Args:
        module: What holds the backbone, and perhaps more beside it.
        backbone: Adapted or frozen; it may be the module itself.
    """

    def __init__(self, module: nn.Module, backbone: nn.Module) -> None:
        self._kept = [
            (batch_norm, {name: (buffer, buffer.clone()) for name, buffer in batch_norm.named_buffers(recurse=False)})
            for batch_norm in _kept(module, backbone)
        ]

    def restore(self, *, look_inside: bool = False) -> None:
        """Put statistics back that have been replaced by others.

        Args:
            look_inside: Find those, too, that have been written to in place, which takes a comparison of all.
        """
        for batch_norm, statistics in self._kept:
            if any(parameter.requires_grad for parameter in batch_norm.parameters()):
                continue
            for name, (buffer, value) in statistics.items():
                now: Tensor = getattr(batch_norm, name)
                if now is not buffer or (look_inside and not torch.equal(now, value)):
                    setattr(batch_norm, name, buffer)
                    buffer.copy_(value)


def _kept(module: nn.Module, backbone: nn.Module) -> Iterator[nn.Module]:
    inside = set(backbone.modules())
    for batch_norm in frozen_batch_norms(module):
        # Outside the backbone one without parameters may belong to a head, which trains.
        if batch_norm in inside or any(True for _ in batch_norm.parameters()):
            yield batch_norm


# In a partial rather than a closure or a method: a deep copy or a pickle of the module has one for the copy.
def _train_unless_frozen(self: nn.Module, mode: bool = True) -> nn.Module:
    return type(self).train(self, mode and any(parameter.requires_grad for parameter in self.parameters()))
