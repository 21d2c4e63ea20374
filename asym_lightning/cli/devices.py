"""Whether a machine has what a run asks for, checked before anything is built or started."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import StrategyRegistry

from asym_lightning.core.messages import did_you_mean

# They give weights back to the starting process' model, which has no backbone and no adapters; Lightning drops those.
_FORGETFUL = ("ddp_spawn", "ddp_fork", "ddp_notebook")
_FEW_PROCESSES = 4  # which a test of several processes may start on any machine


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Check strategy, accelerator and devices of a Trainer's options, which every process does alike.

    Args:
        trainer: The options as they are in a config; strategies that are given as a class are left to the Trainer.

    Raises:
        ValueError: If there is no such strategy, or it would lose what it trains, no GPU, or not as many or not those
            that are asked for.

    Example:
        >>> check_devices({"strategy": "dpp"})
        Traceback (most recent call last):
        ValueError: `trainer.strategy` 'dpp' is not known: did you mean ddp?
    """
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy not in ("auto", *StrategyRegistry.available_strategies()):
        known = [
            name
            for name in StrategyRegistry.available_strategies()
            if "_find_" not in name and not name.startswith(_FORGETFUL)
        ]
        raise ValueError(f"`trainer.strategy` {strategy!r} is not known{did_you_mean(strategy, known)}")
    if isinstance(strategy, str) and strategy.startswith(_FORGETFUL):
        raise ValueError(
            f"`trainer.strategy: {strategy}` trains in processes that end with what they built and trained: set "
            "`trainer.strategy: ddp`."
        )
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        _check_processes(trainer)
        return
    count = torch.cuda.device_count()
    if count == 0 and not (trainer["accelerator"] == "gpu" and torch.backends.mps.is_available()):
        why = "there is none here" if torch.version.cuda else "this PyTorch was built without CUDA"
        raise ValueError(
            f"`trainer.accelerator: {trainer['accelerator']}` asks for a GPU, but {why}: set `trainer.accelerator: "
            "cpu`, or `auto` for what there is."
        )
    asked = _numbers(trainer.get("devices", "auto"))
    if count and asked and max(asked) >= count:
        raise ValueError(
            f"`trainer.devices: {trainer['devices']}` asks for more than the {count} GPU(s) of this machine: set a "
            "number up to that, or `auto` for all."
        )


def _check_processes(trainer: Mapping[str, Any]) -> None:
    """Check that not many more processes are asked for than there are cores, each of which takes memory at once."""
    devices, most = trainer.get("devices", "auto"), max(os.cpu_count() or 1, _FEW_PROCESSES)
    is_alone = trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    if is_alone and isinstance(devices, (int, str)) and str(devices).isdigit() and not 0 < int(devices) <= most:
        raise ValueError(
            f"`trainer.devices: {devices}` asks for a process each, and there are {os.cpu_count()} cores: set a number "
            f"in [1, {most}], or `auto`."
        )


def _numbers(devices: int | str | list[int]) -> list[int]:
    """Numbers of the devices that are asked for; none where the Trainer is to choose.

    >>> _numbers(2), _numbers("2"), _numbers("0,3"), _numbers([1]), _numbers("auto"), _numbers(-1)
    ([0, 1], [0, 1], [0, 3], [1], [], [])
    """
    if isinstance(devices, str):
        if not re.fullmatch(r"\d+(,\d+)*,?", devices):
            return []
        numbers = [int(number) for number in devices.split(",") if number]
        return numbers if "," in devices else list(range(numbers[0]))
    return list(range(devices)) if isinstance(devices, int) else list(devices)
