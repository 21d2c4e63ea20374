"""Where in a LightningModule the adapted backbone is."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from asym_lightning.adapters import adapter_layers
from asym_lightning.core.either_lightning import either
from asym_lightning.core.messages import did_you_mean
from asym_lightning.core.names import submodule, unwrapped
from asym_lightning.lifecycle.callback_methods import adapted_backbone_names


def named_backbone(module: nn.Module, name: str | None) -> nn.Module:
    """The submodule of that dotted name, or the module itself for ``None``; of a compiled one, what was compiled.

    Raises:
        ValueError: There is no such submodule.
    """
    try:
        return unwrapped(module) if name is None else submodule(module, name)
    except AttributeError as error:
        hint = did_you_mean(name, [child for child, _ in module.named_children()])
        raise ValueError(f"`backbone` {name!r} is no submodule of {type(module).__name__}{hint}") from error


def refuse_fsdp1(trainer: Trainer) -> None:
    """Refuse FSDP1 on behalf of a callback that looks at adapters; the backbone need not be built yet.

    Raises:
        ValueError: The strategy is FSDP1, which leaves no factors to look at, only parts of flattened units.
    """
    if isinstance(trainer.strategy, either(FSDPStrategy)):
        raise ValueError(
            "FSDP1 flattens A and B into one parameter, where callbacks that watch, change or save adapters can't find "
            "them: use asym_lightning.strategies.FSDP2Strategy (configs/strategies/fsdp2.yaml), or leave those out."
        )


def adapted_backbone(trainer: Trainer, module: LightningModule) -> nn.Module:
    """What layers and adapter files are named by: what a callback adapted, else `backbone`, else the module.

    Args:
        trainer: Its callbacks are asked.
        module: The module in training.

    Raises:
        ValueError: The strategy is FSDP1.
    """
    refuse_fsdp1(trainer)
    for name in adapted_backbone_names(trainer):
        return named_backbone(module, name)
    backbone = getattr(module, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) and adapter_layers(backbone) else module
