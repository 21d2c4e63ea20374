"""Callbacks that hold a copy of the module, to average its weights as a rule.

Most copy it in their `setup`, which is before layers are adapted. They pair its parameters with those of the copy by
their order, and keep the whole copy in checkpoints.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from asym_lightning.adapters import adapter_layers
from asym_lightning.adapters.files.checkpoint import STATE_KEY, frozen_names
from asym_lightning.core.names import plain_modules, plain_name
from asym_lightning.lifecycle.callback_methods import callbacks_that_change_factors

LEFT_OUT_KEY = "frozen_left_out_of"
_PREFIXES = ("", "module.")  # of the module's own names in a copy's: `AveragedModel` has the second


def warn_of_copies(module: nn.Module, backbone: nn.Module) -> None:
    """Warn of parts of a module that are copies of its backbone, which is about to be adapted: a momentum teacher, say.

    What pairs the parameters of both in their order would pair others from then on, without an error.
    """
    if adapter_layers(backbone):
        return
    own = {plain_name(name): tensor for name, tensor in backbone.named_parameters()}
    inside = set(backbone.modules())
    for name, part in plain_modules(module):
        if type(part) is not type(backbone) or part in inside or not own:
            continue
        others = {plain_name(other): tensor for other, tensor in part.named_parameters()}
        if others.keys() == own.keys() and all(_equal(tensor, own[other]) for other, tensor in others.items()):
            warnings.warn(
                f"`{name}` is a copy of the backbone that was made before its layers are adapted: what pairs the "
                "parameters of both in their order pairs others now. If it is to follow the backbone, call "
                "`AdapterInjection(...).inject(module)` before it is copied, else leave this be.",
                stacklevel=2,
            )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and not one.is_meta and bool(torch.equal(one.to(other), other))


def copy_adapted(trainer: Trainer, module: LightningModule) -> None:
    """Let callbacks that have copied a module before its layers were adapted copy it again, by their `setup`."""
    if trainer.state.fn == TrainerFn.FITTING:
        for callback in _holders(trainer, module):
            callback.setup(trainer, module, stage="fit")


def prepare_averages(trainer: Trainer, module: LightningModule) -> None:
    """Let averages leave what is frozen as it is, to the bit, and refuse those of factors that change in mid-course.

    Raises:
        ValueError: A callback holds a copy, and another changes ranks, or freezes a factor when it has been trained, so
            that columns mean something else before and after.
    """
    changing = callbacks_that_change_factors(trainer)
    for callback in _holders(trainer, module):
        if changing:
            raise ValueError(
                f"{type(callback).__name__} averages factors over the steps of a run, and {type(changing[0]).__name__} "
                "changes in its course what their columns stand for: leave one of them out."
            )
        for value in vars(callback).values():
            if not isinstance(value, AveragedModel):
                continue
            if value.avg_fn is not None:
                value.avg_fn = partial(_average, value.avg_fn)
            if value.multi_avg_fn is not None:
                value.multi_avg_fn = partial(_average_many, value.multi_avg_fn)


def _average(average: Callable[[Tensor, Tensor, Any], Tensor], averaged: Tensor, value: Tensor, number: Any) -> Tensor:
    """The average of equal numbers is that number, which `0.9 * x + 0.1 * x` is not."""
    return torch.where(averaged == value, value, average(averaged, value, number))


def _average_many(
    average: Callable[[list[Tensor], list[Tensor], Any], None],
    averaged: Sequence[Tensor],
    values: Sequence[Tensor],
    number: Any,
) -> None:
    """As :func:`_average`, in place, of tensors on one device; it is asked once which are equal."""
    still = torch.stack([(one == other).all() for one, other in zip(averaged, values, strict=True)]).tolist()
    moving = [pair for pair, is_still in zip(zip(averaged, values, strict=True), still, strict=True) if not is_still]
    if moving:
        average([one for one, _ in moving], [other for _, other in moving], number)


def leave_frozen_out(module: nn.Module, checkpoint: MutableMapping[str, Any]) -> None:
    """Leave the frozen backbone out of every state of a copy of the module in a checkpoint, and note where that was."""
    frozen = frozen_names(module)
    places = []
    for place, prefix in _copies_in(checkpoint, frozen):
        holder = _at(checkpoint, place[:-1])
        state = holder[place[-1]].items()
        holder[place[-1]] = {n: v for n, v in state if plain_name(n.removeprefix(prefix)) not in frozen}
        places.append([prefix, *place])
    checkpoint[LEFT_OUT_KEY] = places


def put_frozen_back(module: nn.Module, checkpoint: MutableMapping[str, Any]) -> None:
    """Complete what :func:`leave_frozen_out` has left out, from the module."""
    places = checkpoint.pop(LEFT_OUT_KEY, [])
    if not places:
        return
    state, frozen = module.state_dict(), frozen_names(module)
    for prefix, *place in places:
        left_out = {f"{prefix}{name}": value for name, value in state.items() if plain_name(name) in frozen}
        _at(checkpoint, place).update(left_out)


def _holders(trainer: Trainer, module: LightningModule) -> Iterator[Callback]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # it is set by a connector
        held = [value for value in vars(callback).values() if isinstance(value, nn.Module) and value is not module]
        if any(type(part) is type(module) for value in held for part in value.modules()):
            yield callback


def _copies_in(checkpoint: Mapping[str, Any], frozen: set[str]) -> Iterator[tuple[list[Any], str]]:
    """Where in a checkpoint a copy's state is, two levels down at most, but for the module's own."""
    states: list[tuple[list[Any], Any]] = [([key], value) for key, value in checkpoint.items() if key != STATE_KEY]
    states += [
        (["callbacks", name, key], value)
        for name, state in checkpoint.get("callbacks", {}).items()
        if isinstance(state, MutableMapping)
        for key, value in state.items()
    ]
    for place, state in states:
        if isinstance(state, Mapping) and frozen and any(isinstance(value, Tensor) for value in state.values()):
            for prefix in _PREFIXES:
                if frozen <= {plain_name(str(name).removeprefix(prefix)) for name in state}:
                    yield place, prefix
                    break


def _at(checkpoint: MutableMapping[str, Any], place: list[Any]) -> Any:
    found: Any = checkpoint
    for key in place:
        found = found[key]
    return found
