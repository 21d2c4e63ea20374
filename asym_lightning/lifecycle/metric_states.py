"""What the metrics of torchmetrics in a module have counted since they were reset, as in the course of an epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from asym_lightning.core.names import plain_modules
from asym_lightning.core.private_names import set_num_updates


def metric_states(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The states of metrics that have counted something, by their plain names.

    >>> import torch
    >>> from torchmetrics import MeanMetric
    >>> module = nn.ModuleDict({"loss": MeanMetric(), "other": MeanMetric()})
    >>> module["loss"].update(torch.tensor(3.0))
    >>> states = metric_states(module)
    >>> list(states), states["loss"]["num_updates"]
    (['loss'], 1)
    >>> fresh = nn.ModuleDict({"loss": MeanMetric(), "other": MeanMetric()})
    >>> set_metric_states(fresh, states)
    >>> float(fresh["loss"].compute())
    3.0
    """
    for part in module.modules():
        if isinstance(part, MetricCollection):
            part.values(copy_state=False)  # those that count the same let one count for all, until they are asked for
    return {
        name: {"num_updates": metric.update_count, "state": {n: _apart(v) for n, v in metric.metric_state.items()}}
        for name, metric in _metrics(module)
        if metric.update_called and all(map(_is_of_tensors, metric.metric_state.values()))
    }


def set_metric_states(module: nn.Module, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Let metrics count on from :func:`metric_states`; those that were not among them begin anew."""
    for name, metric in _metrics(module):
        if name in states:
            for attribute, value in states[name]["state"].items():
                setattr(metric, attribute, _moved(value, metric.device))
            set_num_updates(metric, states[name]["num_updates"])


def reset_metrics(module: nn.Module, names: Collection[str]) -> None:
    """Let metrics of these names begin anew."""
    for name, metric in _metrics(module):
        if name in names:
            metric.reset()


def _metrics(module: nn.Module) -> Iterator[tuple[str, Metric]]:
    return ((name, part) for name, part in plain_modules(module) if isinstance(part, Metric))


def _is_of_tensors(value: Any) -> bool:
    """Whether a state is a tensor or tensors in a list, and not, as of masks, objects that a checkpoint can't hold."""
    return all(isinstance(part, Tensor) for part in (value if isinstance(value, list) else [value]))


def _apart(value: Any) -> Any:
    return [_apart(part) for part in value] if isinstance(value, list) else value.detach().cpu().clone()


def _moved(value: Any, device: Any) -> Any:
    return [_moved(part, device) for part in value] if isinstance(value, list) else value.to(device)
