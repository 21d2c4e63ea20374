"""What callbacks ask of one another: methods that any callback may have, in place of imports of one by the other.

| a callback that has                       | is asked                                                      |
|-------------------------------------------|---------------------------------------------------------------|
| `adapter_config(config) -> AdapterConfig` | before layers are adapted: by which configuration to do it    |
| `adapted_backbone_name`                   | where in the module adapted layers are; None means all of it  |
| `on_rank_change(trainer, pl_module)`      | to take note, after ranks have changed between two steps      |

A callback need not inherit anything for it. All callbacks of the Trainer are asked, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from asym_lightning.adapters import AdapterConfig


def asked_config(trainer: Trainer, config: AdapterConfig) -> AdapterConfig:
    """The configuration that layers are to be adapted by, when every callback has changed what it has to."""
    for adapter_config in _answers(trainer, "adapter_config"):
        if callable(adapter_config):
            config = adapter_config(config)
    return config


def adapted_backbone_names(trainer: Trainer) -> list[str | None]:
    """What the callbacks that adapt something name as its place in the module."""
    return list(_answers(trainer, "adapted_backbone_name"))


def tell_of_rank_change(trainer: Trainer, pl_module: LightningModule) -> None:
    """Tell every callback that ranks have changed."""
    for on_rank_change in _answers(trainer, "on_rank_change"):
        on_rank_change(trainer, pl_module)


def _answers(trainer: Trainer, name: str) -> Iterator[Any]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    return (getattr(callback, name) for callback in callbacks if hasattr(callback, name))
