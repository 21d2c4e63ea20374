"""A model, what it is called with, and what comes out of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Call(NamedTuple):
    """One call of a model: a method, mostly ``forward``, and its arguments by name."""

    method: str
    arguments: dict[str, Any]


@dataclass
class Subject:
    """A model that is to be adapted, and the calls that go through all of it."""

    name: str
    model: nn.Module
    calls: list[Call]


def outputs(model: nn.Module, calls: Sequence[Call]) -> list[Tensor]:
    """All floating-point tensors that the calls give, with one seed for what is drawn on the way."""
    found: list[Tensor] = []
    for method, arguments in calls:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        target = model if method == "forward" else getattr(model, method)
        found += [t for t in _tensors(target(**arguments)) if t.is_floating_point() and t.numel()]
    return found


def loss_of(found: Sequence[Tensor]) -> Tensor:
    """A scalar to which every number of the outputs contributes at random, masked ones (infinite) aside."""
    generator = torch.Generator().manual_seed(2)
    total = torch.zeros(())
    for tensor in found:
        # Drawn for all: what needs a gradient in one model may need none in the other.
        weights = torch.randn(tensor.shape, generator=generator)
        if tensor.requires_grad:
            total = total + (torch.where(tensor.isfinite(), tensor, 0) * weights).sum() / tensor.numel() ** 0.5
    return total


def difference(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Euclidean distance of two lists of outputs; infinite where their shapes or their masks differ."""
    if [t.shape for t in left] != [t.shape for t in right]:
        return float("inf")
    total = 0.0
    for a, b in zip(left, right, strict=True):
        finite = a.isfinite()
        if not torch.equal(finite, b.isfinite()):
            return float("inf")
        total += (a[finite].double() - b[finite].double()).square().sum().item()
    return total**0.5


def make_generic(model: nn.Module) -> None:
    """Move the weights away from the values at which a part has no effect: zeros, ones, and matrices near zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1:
                _make_generic(parameter, torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
            parameter.requires_grad_(parameter.is_floating_point())


def _make_generic(parameter: Tensor, noise: Tensor) -> None:
    mean, std = parameter.mean(), parameter.std()
    if parameter.dim() < 2:
        if std <= 1e-2:
            parameter.add_(0.1 * noise)
        return
    wanted = (parameter.numel() / parameter.shape[0]) ** -0.5
    if std == 0 and mean == 0:
        parameter.copy_(wanted * noise)
    elif std < 1e-3 * mean.abs():
        parameter.mul_(1 + 0.1 * noise)
    elif mean.abs() < 0.5 * std < 0.5 * wanted:
        parameter.mul_(wanted / std)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors(inner)
