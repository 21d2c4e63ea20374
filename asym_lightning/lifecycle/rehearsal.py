"""Training steps that leave no trace, for what has to be known before those that count."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import Metric, MetricCollection

from asym_lightning.core.either_lightning import either
from asym_lightning.core.private_names import data_fetcher, loading_mode
from asym_lightning.core.random_state import random_state, set_random_state
from asym_lightning.lifecycle.loops import train_loaders
from asym_lightning.lifecycle.resumable_loader import (
    ResumableLoader,
    generator_states,
    generators_of,
    set_generator_states,
)


class Rehearsal(AbstractContextManager["Rehearsal"]):
    """Batches and losses of a run; when the context ends, all is as it was.

    What is undone: random states and samplers' generators, buffers (running statistics), every `.grad`, parameters that
    :meth:`keep` names. Copies stand in for metrics, and logging is off. The run's own iterators over its data are not
    touched: batches come from the same data sets and samplers, loaded in this process. What a step leaves elsewhere,
    say in a list of the module's own, is not known here.

    Args:
        trainer: In `on_train_start`, or between two steps.
        module: The module in training.

    Raises:
        ValueError: The module optimises by hand, so a training step would train.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        if not module.automatic_optimization:
            raise ValueError(
                f"{type(module).__name__} steps its optimizers by itself (`automatic_optimization` is false), so its "
                "training step can't be tried without training."
            )
        self._trainer, self._module = trainer, module
        self._undo = ExitStack()

    def __enter__(self) -> Rehearsal:
        self._undo.enter_context(_drawing_undone(self._trainer))
        for context in (_buffers_restored, _grads_restored, _metrics_spared, _logging_off):
            self._undo.enter_context(context(self._module))
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def keep(self, parameters: list[nn.Parameter]) -> None:
        """Restore these parameters when the context ends."""
        self._undo.enter_context(_values_restored(parameters))

    def batches(self) -> Iterator[Any]:
        """Training batches on the run's device, as training will get them; one epoch follows another without end.

        Raises:
            ValueError: There are none.
        """
        loaders = data_fetcher(self._trainer).combined_loader
        while True:
            batch = None
            # `CombinedLoader` has the batch structure that the module expects of several loaders.
            for batch, _, dataloader_idx in CombinedLoader(_apart(loaders.iterables), loading_mode(loaders)):
                yield self._transferred(batch, dataloader_idx)
            if batch is None:
                raise ValueError("the training data give no batch.")

    def loss(self, batch: Any, number: int) -> Tensor:
        """The module's own loss of a batch, in the run's precision.

        Raises:
            ValueError: The training step fails on the batch, or gives no loss.
        """
        try:
            with self._trainer.precision_plugin.train_step_context(), torch.enable_grad():
                output = self._module.training_step(batch, number)
        except Exception as error:
            raise ValueError(
                f"the training step of {type(self._module).__name__} fails on training batch {number}, which has to "
                f"have labels, with {type(error).__name__}: {error}"
            ) from error
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            raise ValueError(
                f"the training step of {type(self._module).__name__} gives no loss of training batch {number}."
            )
        return loss

    def _transferred(self, batch: Any, dataloader_idx: int) -> Any:
        """Let a batch pass through the hooks that it passes in training."""
        data: Any = getattr(self._trainer, "datamodule", None)
        base = next((kind for kind in either(LightningDataModule) if isinstance(data, kind)), None)
        has_own = base is not None and is_overridden("on_before_batch_transfer", data, base)
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = (data if has_own else self._module).on_before_batch_transfer(batch, dataloader_idx)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=dataloader_idx)


def _apart(loaders: Any) -> Any:
    """Loaders of the same data in the same structure, with no workers, whose iterators are their own."""
    if isinstance(loaders, Mapping):
        return {name: _apart(loader) for name, loader in loaders.items()}
    if isinstance(loaders, (list, tuple)):
        return [_apart(loader) for loader in loaders]
    has_usual_way = (
        isinstance(loaders, ResumableLoader) or getattr(type(loaders), "__iter__", None) is DataLoader.__iter__
    )
    if not isinstance(loaders, DataLoader) or not has_usual_way:
        return loaders
    options: dict[str, Any] = {"collate_fn": loaders.collate_fn, "generator": loaders.generator}
    if isinstance(loaders.dataset, IterableDataset):
        return DataLoader(loaders.dataset, loaders.batch_size, drop_last=loaders.drop_last, **options)
    if loaders.batch_sampler is None:
        return DataLoader(loaders.dataset, None, sampler=loaders.sampler, **options)
    return DataLoader(loaders.dataset, batch_sampler=loaders.batch_sampler, **options)


@contextmanager
def _drawing_undone(trainer: Trainer) -> Iterator[None]:
    generators = [generator for loader in train_loaders(trainer) for generator in generators_of(loader)]
    before, states = random_state(), generator_states(generators)
    try:
        yield
    finally:
        set_random_state(before)
        set_generator_states(generators, states)


@contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


@contextmanager
def _grads_restored(module: nn.Module) -> Iterator[None]:
    before = [(parameter, parameter.grad) for parameter in module.parameters() if parameter.requires_grad]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


@contextmanager
def _metrics_spared(module: nn.Module) -> Iterator[None]:
    """Let copies stand in for all metrics, whatever these have counted so far."""
    kinds = (Metric, MetricCollection)
    metrics = {
        (parent, name): child
        for parent in module.modules()
        if not isinstance(parent, kinds)
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    }
    for (parent, name), metric in metrics.items():
        setattr(parent, name, copy.deepcopy(metric))
    try:
        yield
    finally:
        for (parent, name), metric in metrics.items():
            setattr(parent, name, metric)


@contextmanager
def _logging_off(module: LightningModule) -> Iterator[None]:
    names = ("log", "log_dict")
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(dict.fromkeys(names, _ignore))
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""


@contextmanager
def _values_restored(parameters: list[nn.Parameter]) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
