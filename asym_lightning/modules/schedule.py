"""Learning-rate schedules that know how long the run is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from asym_lightning.core.kinds import Count, Fraction, FractionBelowOne
from asym_lightning.core.options import check_kinds

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class WarmupSchedule:
    """Linear warm-up to the optimizer's learning rate, then decay until the last step.

    It is told the number of steps when the optimizer is built, so that a config names fractions of the run and
    stays right when the number of epochs, of images or of devices changes. Moves once an optimizer step.

    Args:
        warmup: Share of the run, in [0, 1), over which the rate rises from near 0; 0 starts at the full rate.
        decay: Shape of the way down after the warm-up: `cosine`, `linear` or `constant` (no way down).
        final: Share of the learning rate, in [0, 1], that is left at the end.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> schedule = WarmupSchedule(warmup=0.25, decay="linear")
        >>> [round(schedule.factor(step, num_steps=8), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.83, 0.67, 0.5, 0.33, 0.17]
    """

    warmup: FractionBelowOne = 0.0
    decay: Decay = "cosine"
    final: Fraction = 0.0

    def __post_init__(self) -> None:
        check_kinds(self)

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the learning rate that the step numbered `step`, from 0, uses."""
        num_warmup_steps = round(self.warmup * num_steps)
        if step < num_warmup_steps:
            return (step + 1) / num_warmup_steps  # + 1: a first step at rate 0 would be wasted
        progress = min(1.0, (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
        remaining = {
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "linear": 1 - progress,
            "constant": 1.0,
        }[self.decay]
        return self.final + (1 - self.final) * remaining

    def __call__(self, optimizer: Optimizer, num_steps: int) -> LambdaLR:
        """Return the scheduler of `optimizer` for a run of `num_steps` optimizer steps."""
        return _StepsSchedule(optimizer, self, num_steps)


@dataclass(frozen=True)
class TorchSchedule:
    """A scheduler of torch that moves otherwise than once an epoch, such as `OneCycleLR`, which moves each step.

    Args:
        make: Makes the scheduler from the optimizer.
        interval: What it counts: `step` or `epoch`.
        frequency: How many of them go by from one move to the next. A `ReduceLROnPlateau` needs its metric at each.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from functools import partial
        >>> from torch.optim.lr_scheduler import OneCycleLR
        >>> TorchSchedule(partial(OneCycleLR, max_lr=0.01, total_steps=100)).interval
        'step'
    """

    make: LRSchedulerCallable
    interval: Literal["step", "epoch"] = "step"
    frequency: Count = 1

    def __post_init__(self) -> None:
        check_kinds(self)


class _StepsSchedule(LambdaLR):
    """A `WarmupSchedule` of an optimizer, in a run that may turn out, or become, longer than it seemed.

    Args:
        optimizer: Whose rates it sets.
        schedule: Says which share of them a step uses.
        num_steps: Number of optimizer steps of the run.
    """

    def __init__(self, optimizer: Optimizer, schedule: WarmupSchedule, num_steps: int) -> None:
        self.num_steps = num_steps
        super().__init__(optimizer, lambda step: schedule.factor(step, self.num_steps))

    def count_steps(self, num_steps: int) -> None:
        """Go by this number of steps from now on, and by the rates that the schedule starts from now."""
        self.num_steps = num_steps
        self._set_present_rates()

    def state_dict(self) -> dict[str, Any]:
        """Return what goes on in another run, which counts its steps itself."""
        return {name: value for name, value in super().state_dict().items() if name != "num_steps"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rate that the present schedule has at the saved step: that in the optimizer may be its end."""
        super().load_state_dict(state_dict)
        self._set_present_rates()

    def _set_present_rates(self) -> None:
        rates = [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
