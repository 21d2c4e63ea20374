"""What callbacks ask of one another: methods that any callback may have, in place of imports of one by the other.

| a callback that has                       | is asked                                                      |
|-------------------------------------------|---------------------------------------------------------------|
| `adapter_config(config) -> AdapterConfig` | before layers are adapted: by which configuration to do it    |
| `adapted_backbone_name`                   | where in the module adapted layers are; None means all of it  |
| `on_rank_change(trainer, pl_module)`      | to take note, after ranks have changed between two steps      |
| `on_factor_freeze(trainer, pl_module)`    | to take note, after a factor has been frozen between two steps |
| `changes_factors`                         | whether it is going to do the one or the other in mid-course  |

A callback need not inherit anything for it. All callbacks of the Trainer are asked, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

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


def tell_of_factor_freeze(trainer: Trainer, pl_module: LightningModule) -> None:
    """Tell every callback that a factor that was trained is frozen from now on."""
    for on_factor_freeze in _answers(trainer, "on_factor_freeze"):
        on_factor_freeze(trainer, pl_module)


def callbacks_that_change_factors(trainer: Trainer) -> list[Callback]:
    """The callbacks that are going to change in mid-course what the factors' columns stand for, or which one trains."""
    return [c for c in trainer.callbacks if getattr(c, "changes_factors", False)]  # type: ignore[attr-defined]


def _answers(trainer: Trainer, name: str) -> Iterator[Any]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    return (getattr(callback, name) for callback in callbacks if hasattr(callback, name))
