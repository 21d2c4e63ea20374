"""What a LightningModule needs to run under FSDP2; pure torch, so the module goes by what Lightning gives it."""

from __future__ import annotations

from typing import Any

from torch import nn

from asym_lightning.sharding.fully_shard import ShardingOptions, shard_module

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


def shard_lightning_module(module: nn.Module) -> None:
    """Shard a module over the device mesh that its strategy has made, with the strategy's options.

    Steps enclose all calls of the backbone, also those that pass its `forward` by, as generation does.

    Args:
        module: A LightningModule whose `device_mesh` is set, in or after its `configure_model`.

    Raises:
        ValueError: The strategy is a bare ModelParallelStrategy, or :func:`shard_module` refuses.
    """
    trainer: Any = module.trainer
    options = getattr(trainer.strategy, "sharding", None)
    if not isinstance(options, ShardingOptions):
        raise ValueError(
            f"{type(trainer.strategy).__name__} would write the frozen backbone to every checkpoint and could not "
            "resume without it: use asym_lightning.strategies.FSDP2Strategy, a ModelParallelStrategy that does not."
        )
    mesh: Any = module.device_mesh
    shard_module(module, mesh["data_parallel"], options, forward_methods=STEPS)
