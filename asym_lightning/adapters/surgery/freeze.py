"""What of a model trains, and what stays frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from asym_lightning.adapters.layers.lookup import adapters_by_name
from asym_lightning.core.names import submodule

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def freeze_backbone(model: nn.Module, heads: Sequence[str] = ()) -> None:
    """Freeze every parameter except those of the named modules, which are trained in full."""
    model.requires_grad_(False)
    for head in heads:
        submodule(model, head).requires_grad_(True)


def frozen_batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Batch normalisations whose parameters are frozen, which should be in evaluation mode while the rest trains.

    Their running statistics are a part of the frozen function, and must not drift.
    """
    for module in model.modules():
        if isinstance(module, BATCH_NORMS) and not any(p.requires_grad for p in module.parameters()):
            yield module


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of all that trains: adapters, heads, and whatever else requires a gradient."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def untrained_adapters(model: nn.Module) -> list[str]:
    """Adapters with a trainable factor that the last backward pass gave no gradient: their layer was never called.

    Call it after ``backward()`` and before the gradients are set to ``None``.
    """
    return [
        name
        for name, adapter in adapters_by_name(model).items()
        if any(p.requires_grad and p.grad is None for p in adapter.parameters())
    ]
