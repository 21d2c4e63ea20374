"""The place of a run: what each process needs beside weights and optimizer to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from asym_lightning.adapters.files.checkpoint import random_state_of, restore_random_state
from asym_lightning.core.ddp import from_all_processes
from asym_lightning.core.dtensor import is_sharded
from asym_lightning.core.kinds import NumberOrZero, check_fields, check_names
from asym_lightning.core.private_names import accumulates
from asym_lightning.lifecycle import loops
from asym_lightning.lifecycle.metric_states import metric_states, set_metric_states
from asym_lightning.lifecycle.resumable_loader import (
    ResumableLoader,
    generator_states,
    generators_of,
    set_generator_states,
    why_not_resumable,
)

PLACES_KEY = "places"
_FIELDS: Mapping[str, Any] = {
    "random_state": Mapping[str, Any],
    "loaders": list[Mapping[str, Any]],
    "gradients": Mapping[str, Any],
    "metrics": Mapping[str, Any],
    "counted": Mapping[str, Mapping[str, Any]],
}
_LATER_FIELDS = ("counted",)  # which places of earlier versions lack
_COUNTED_FIELDS: Mapping[str, Any] = {"num_updates": NumberOrZero, "state": Mapping[str, Any]}
_LOADER_FIELDS: Mapping[str, Any] = {"state": Mapping[str, Any] | None, "generators": list[Any]}


@dataclass(frozen=True)
class Place:
    """Where one process of a run is.

    Attributes:
        random_state: Of the global generators.
        loaders: Of each training loader the `state`, None if it has none, and the states of its `generators`.
        gradients: Those that are kept for batches to come, by the parameters' names.
        metrics: The latest, which callbacks and schedulers look at.
    """

    random_state: dict[str, Any]
    loaders: list[dict[str, Any]]
    gradients: dict[str, Tensor]
    metrics: dict[str, Tensor]
    counted: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, trainer: Trainer, module: LightningModule) -> Place:
        """The place at this instant."""
        metrics = {name: torch.as_tensor(value).detach().cpu() for name, value in trainer.callback_metrics.items()}
        # A module that steps by itself may keep them from batch to batch in its own way.
        keeps_gradients = not module.automatic_optimization or accumulates(trainer)
        gradients = {
            name: parameter.grad.detach().cpu()
            for name, parameter in module.named_parameters()
            if keeps_gradients and parameter.grad is not None and not is_sharded(parameter)
        }
        num_unfinished = loops.num_unfinished(trainer)
        loaders = [_place_of(loader, num_unfinished) for loader in loops.train_loaders(trainer)]
        # Beyond a batch, Lightning resets some of them in what it does next and a resumed run leaves out.
        counted = metric_states(module) if loops.is_within_batch(trainer) else {}
        return cls(random_state_of(module), loaders, gradients, metrics, counted)

    def go_on(self, trainer: Trainer, module: LightningModule, instant: loops.Instant) -> None:
        """Go on from here, in `on_train_start` of a run that has restored everything else.

        Args:
            trainer: About to train.
            module: What it trains.
            instant: When the checkpoint was written.

        Raises:
            ValueError: If the training data are others and some are left of an epoch.
        """
        trainer.callback_metrics.update({name: value.to(module.device) for name, value in self.metrics.items()})
        for name, gradient in self.gradients.items():
            parameter = module.get_parameter(name)
            parameter.grad = gradient.to(parameter)
        set_metric_states(module, self.counted)
        is_mid_epoch = loops.go_on(trainer, instant)
        loaders = loops.train_loaders(trainer)
        self._restore_generators(loaders)
        if is_mid_epoch:
            if loops.is_epoch_unfinished(trainer):
                self._enter_epoch(loaders)
            loops.begin_data_anew(trainer)
            if not loops.is_epoch_unfinished(trainer):
                self._restore_generators(loaders)  # some loaders draw an epoch's order when it begins; it has not yet
            restore_random_state(module, self.random_state)  # what was drawn for the epoch's beginning is behind it
        else:
            restore_random_state(module, self.random_state)
            loops.begin_data_anew(trainer)

    def _restore_generators(self, loaders: list[Any]) -> None:
        for loader, place in zip(loaders, self.loaders, strict=False):
            set_generator_states(generators_of(loader), place["generators"])

    def _enter_epoch(self, loaders: list[Any]) -> None:
        if len(loaders) != len(self.loaders):
            raise ValueError(
                f"The checkpoint was written in the middle of an epoch with {len(self.loaders)} training loaders, and "
                f"now there are {len(loaders)}: resume it with the same data, or from a checkpoint of an epoch's end."
            )
        for loader, place in zip(loaders, self.loaders, strict=True):
            if place["state"] is not None and hasattr(loader, "load_state_dict"):
                loader.load_state_dict(place["state"])
            else:
                reason = why_not_resumable(loader) or "had no place in the checkpoint"
                rank_zero_warn(
                    "The rest of this epoch is not what it would have been: batches that were trained on before the "
                    f"interruption come again, because {_name(loader)} {reason}. Give it "
                    "`state_dict` and `load_state_dict`, as torchdata's StatefulDataLoader has them, or resume from "
                    "checkpoints of an epoch's end."
                )


def add_places(checkpoint: MutableMapping[str, Any], trainer: Trainer, module: LightningModule) -> None:
    """Add the places of all processes, which have to call this together, to a checkpoint of training."""
    # Lightning's own record of the loaders is that of the process that writes, and would be loaded too early.
    checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)
    checkpoint[PLACES_KEY] = from_all_processes(vars(Place.of(trainer, module)))


def take_place(checkpoint: MutableMapping[str, Any], process: int) -> Place | None:
    """The place of a process in a checkpoint; None if there are none in it.

    Where there were fewer processes, the new ones start from places of the old ones: that is as far in the epoch.
    """
    places = checkpoint.get(PLACES_KEY)
    if not places:
        return None
    place = places[process % len(places)]
    try:
        check_fields("it", place, _FIELDS, tuple(name for name in _FIELDS if name not in _LATER_FIELDS))
        check_names("it", place, tuple(_FIELDS))
        for loader in place["loaders"]:
            check_fields("a loader", loader, _LOADER_FIELDS, tuple(_LOADER_FIELDS))
        for counted in place.get("counted", {}).values():
            check_fields("a metric", counted, _COUNTED_FIELDS, tuple(_COUNTED_FIELDS))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The checkpoint is damaged: in its `{PLACES_KEY}`, {error}") from error
    return Place(**place)


def _place_of(loader: Any, num_unfinished: int) -> dict[str, Any]:
    state = loader.state_dict() if hasattr(loader, "state_dict") else None
    if isinstance(loader, ResumableLoader):
        assert state is not None
        state["num_given"] = max(state["num_given"] - num_unfinished, 0)
    return {"state": state, "generators": generator_states(generators_of(loader))}


def _name(loader: Any) -> str:
    dataset = getattr(loader, "dataset", None)
    kind = type(loader).__name__
    return f"the {kind}" if dataset is None else f"the {kind} of {type(dataset).__name__}"
