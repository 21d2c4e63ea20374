"""Runs that train in lock step over one backbone: each is an ordinary one, and one pass of it serves all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from typing_extensions import override

from asym_lightning.adapters.stack.shared_backbone import Call, Member, Pass, SharedBackbone
from asym_lightning.core.private_names import is_compiled
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.lock_step import LockStep


class Together:
    """What runs in one process share: the frozen weights, and each pass through them.

    Every run is a function with a Trainer of its own, to whose callbacks :meth:`callback` adds one. Nothing else of a
    run changes: loops, optimizers, schedules, checkpoints and files are its own. Its backbone computes together with
    the others' where they are called alike, in training and in evaluation, and else by itself: in generation, with
    batches of another shape, and while somebody watches its layers.

    Example:
        >>> together = Together()
        >>> trainers = [Trainer(callbacks=[together.callback()], logger=False) for _ in range(2)]
        >>> together.run([functools.partial(print, len(trainer.callbacks) > 0) for trainer in trainers])
        True
        True
    """

    def __init__(self) -> None:
        self.backbone = SharedBackbone()
        self.steps = LockStep()

    def callback(self) -> Callback:
        """The callback of one run."""
        return TrainedTogether(self)

    def run(self, functions: Sequence[Callable[[], None]], enter: Sequence[Callable[[], None]] = ()) -> None:
        """Make the runs; for the arguments see `LockStep.run`."""
        self.steps.run(functions, enter)


class TrainedTogether(Callback):
    """Lets the backbone of a run be called together with those of others.

    Args:
        together: What the runs share.
    """

    def __init__(self, together: Together) -> None:
        self.together = together
        self._member: Member | None = None
        self._waiting: list[tuple[Pass, int]] = []
        """Passes that had no backward pass yet, and the number of this run in each."""
        self._replaced: list[tuple[nn.Module, str, dict[str, Any]]] = []

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the others.

        Raises:
            ValueError: The backbone can't be shared, or the module does not leave its backward pass to Lightning.
        """
        self._join(trainer, pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the others, for a test has no start of a fit."""
        self._join(trainer, pl_module)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the module be as it was."""
        for module, name, before in reversed(self._replaced):
            vars(module).pop(name)
            vars(module).update(before)
        self._replaced = []

    def _join(self, trainer: Trainer, module: LightningModule) -> None:
        if not isinstance(trainer.strategy, SingleDeviceStrategy):
            raise ValueError(f"Runs train together on one device, and not by {type(trainer.strategy).__name__}.")
        if is_compiled(module):
            raise ValueError("A compiled model computes by itself alone: leave `torch.compile` out to train together.")
        if not module.automatic_optimization:
            raise ValueError(
                f"{type(module).__name__} optimises by hand (`automatic_optimization` is false), and can't train "
                "together with others."
            )
        backbone = adapted_backbone(trainer, module)
        if backbone is module:
            backbone = getattr(module, "backbone", module)
        self._member = self.together.backbone.join(backbone)
        self._replace(backbone, "forward", self._forward)
        self._replace(module, "backward", functools.partial(self._backward, module.backward))

    def _replace(self, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
        before = {name: vars(module)[name]} if name in vars(module) else {}
        self._replaced.append((module, name, before))
        # Some look at the signature of a model's `forward`.
        vars(module)[name] = functools.update_wrapper(functools.partial(function), getattr(module, name))

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        member = self._member
        assert member is not None
        call = Call(args, kwargs)
        if call.form is None or member.is_watched:
            return member.forward(*args, **kwargs)
        key = ("forward", member.model.training, *_modes(call.device), call.form)
        made, number = self.together.steps.meet(key, (member, call), self._call_all)
        if made.needs_backward:
            self._waiting.append((made, number))
        return made.outputs[number]

    def _call_all(self, values: Sequence[tuple[Member, Call]]) -> Sequence[tuple[Pass, int]]:
        made = self.together.backbone.call([member for member, _ in values], [call for _, call in values])
        return [(made, number) for number in range(len(values))]

    def _backward(self, own: Callable[..., None], loss: Tensor, *args: Any, **kwargs: Any) -> None:
        own(loss, *args, **kwargs)
        waiting, self._waiting = self._waiting, []
        for made, number in reversed(waiting):
            self.together.steps.meet(("backward", id(made)), (made, number), _backward_of_all)


def _backward_of_all(values: Sequence[tuple[Pass, int]]) -> Sequence[None]:
    values[0][0].backward(number for _, number in values)
    return [None] * len(values)


def _modes(device: str) -> tuple[Hashable, ...]:
    """In which modes of torch this thread is."""
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast
