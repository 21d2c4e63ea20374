"""What a config says of a run, without making anything of it but an empty model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

from asym_lightning.cli.training import TrainingCLI
from asym_lightning.estimate.estimate import Run
from asym_lightning.estimate.placement import STRATEGIES, Strategy
from asym_lightning.sharding import ShardingOptions

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}
_TRUE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64, "64": torch.float64}
_FULL = ("32-true", "32", "None")
_CLASSES: dict[str, Strategy] = {
    "SingleDeviceStrategy": "single",
    "DDPStrategy": "ddp",
    "FSDPStrategy": "fsdp",
    "ModelParallelStrategy": "fsdp2",
    "FSDP2Strategy": "fsdp2",
}


class _Described(TrainingCLI):
    """Parses options as `fit` does, and builds neither data, callbacks nor trainer, which may ask for devices."""

    def __init__(self, args: Sequence[str]) -> None:
        LightningCLI.__init__(
            self, args=list(args), run=False, seed_everything_default=0, auto_configure_optimizers=False,
            save_config_callback=None, trainer_defaults={"logger": False},
        )  # fmt: skip

    def instantiate_classes(self) -> None:
        """Build nothing yet."""

    def _set_seed(self) -> None:
        """Draw nothing, and say nothing of a seed."""


class DescribedRun:
    """The parts of a config that decide what a step takes.

    Args:
        arguments: Options as `fit` takes them.

    Raises:
        ValueError: An option is not understood.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._cli = _Described(arguments)
        config: Any = self._cli.config
        if config.get("model") is None:
            raise ValueError("the config names no `model`.")
        self._trainer: Any = config.trainer
        self.data: dict[str, Any] = {}
        if config.get("data") is not None and config.data.get("init_args") is not None:
            self.data = config.data.init_args.as_dict()
        self._model: Any = config.model
        self.name = f"{config.model.class_path.rpartition('.')[2]} {config.model.init_args.get('backbone')}"

    def build_module(self) -> LightningModule:
        """Build the module on the meta device, in training mode and in the run's precision; no weights are read.

        Raises:
            ValueError: The precision is one that is not estimated, or the config is of no model.
        """
        arguments = self._model.init_args
        if isinstance(arguments.get("backbone"), str) and "backbone_options" in arguments:
            arguments.backbone_options.pretrained = False
        if "label_names" in arguments and arguments.label_names is None:
            # The data tells how many there are, and few numbers depend on it.
            arguments.label_names = [str(number) for number in range(arguments.get("num_classes") or 2)]
        precision = str(self._trainer.precision)
        if precision not in (*_AUTOCAST, *_TRUE, *_FULL):
            known = ", ".join(name for name in (*_AUTOCAST, *_TRUE, "32-true") if "-" in name)
            raise ValueError(f"`trainer.precision` {precision!r} is not estimated; those that are: {known}.")
        with torch.device("meta"):
            module: LightningModule = self._cli.parser.instantiate_classes(self._cli.config.clone()).model
            module.configure_model()
            if dtype := _TRUE.get(precision):
                module.to(dtype)
        return module.train()

    def input_dtype(self) -> torch.dtype | None:
        """Dtype that Lightning casts a batch's numbers to; None leaves them."""
        return _TRUE.get(str(self._trainer.precision))

    def run(self, strategy: str | None, devices: int | None) -> Run:
        """Return how the config trains, with a strategy and a number of devices in place of its own.

        Raises:
            ValueError: The strategy is not known, or the number of devices can't be read from the config.
        """
        num_devices = self._num_devices() if devices is None else devices
        own, options = self._own_strategy(num_devices)
        return Run(
            strategy=own if strategy is None else cast(Strategy, strategy),  # checked where it is used
            devices=num_devices,
            is_gpu=self._trainer.accelerator != "cpu",
            autocast=_AUTOCAST.get(str(self._trainer.precision)),
            micro_batches=self._trainer.accumulate_grad_batches or 1,
            sharding=options,
        )

    def _num_devices(self) -> int:
        devices, nodes = self._trainer.devices, self._trainer.num_nodes or 1
        if isinstance(devices, (list, tuple)):
            return len(devices) * nodes
        if isinstance(devices, str) and devices.isdigit():
            devices = int(devices)
        if isinstance(devices, int) and devices > 0:
            return devices * nodes
        if devices in ("auto", None) and self._trainer.strategy in ("auto", None) and nodes == 1:
            return 1
        raise ValueError(f"`trainer.devices` is {devices!r}, which depends on the machine: give `--devices`.")

    def _own_strategy(self, devices: int) -> tuple[Strategy, ShardingOptions]:
        given = self._trainer.strategy
        arguments: dict[str, Any] = {}
        if isinstance(given, str) or given is None:
            name = given or "auto"
            if name in ("auto", "single_device"):
                return ("single" if devices == 1 else "ddp"), ShardingOptions()
            found = next((known for known in reversed(STRATEGIES) if name.startswith(known)), None)
        else:
            name = given.class_path.rpartition(".")[2]
            found = _CLASSES.get(name)
            arguments = given.init_args.as_dict() if given.get("init_args") is not None else {}
        if found is None:
            raise ValueError(
                f"`trainer.strategy` {name!r} is not estimated: give `--strategy`, one of {', '.join(STRATEGIES)}."
            )
        return found, ShardingOptions(
            reshard_after_forward=bool(arguments.get("reshard_after_forward", True)),
            activation_checkpointing=bool(
                arguments.get("activation_checkpointing") or arguments.get("activation_checkpointing_policy")
            ),
            cpu_offload=bool(arguments.get("cpu_offload")),
        )
